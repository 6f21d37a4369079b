"""A table: a frame, with the format and the colouring of each column."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

Tone = Literal["plain", "good", "warn", "bad"]
Form = Literal["text", "code", "count", "share", "ratio", "number", "factor", "ms", "bytes"]

NOTHING = "–"


def plain(_: Any) -> Tone:
    """Returns "plain" for every value."""
    return "plain"


def bad_if_any(value: Any) -> Tone:
    """Returns the tone of a count that should be zero."""
    return "bad" if value > 0 else "good"


def warn_if_any(value: Any) -> Tone:
    """Returns the tone of a count or share that deserves attention unless it is zero."""
    return "warn" if value > 0 else "plain"


def against(limit: float, near: float = 0.9) -> Callable[[Any], Tone]:
    """Returns a function from a value to its tone: bad above the limit, a warning above ``near`` times the limit."""

    def judge(value: Any) -> Tone:
        return "bad" if value > limit else "warn" if value > near * limit else "plain"

    return judge


@dataclass(frozen=True)
class Column:
    """One column of a table: its name in the frame, its heading, its format, and the tone of its values."""

    key: str
    title: str
    form: Form = "text"
    tone: Callable[[Any], Tone] = plain

    @property
    def numeric(self) -> bool:
        """Whether values are numbers, which are aligned to the right."""
        return self.form not in ("text", "code")

    def text(self, value: Any) -> str:
        """Returns the text of a value."""
        return NOTHING if _missing(value) else WRITERS[self.form](value)

    def judged(self, value: Any) -> Tone:
        """Returns the tone of a value."""
        return "plain" if _missing(value) else self.tone(value)


@dataclass(frozen=True)
class Table:
    """A frame with the columns to show, in order, and a note."""

    title: str
    columns: tuple[Column, ...]
    frame: pd.DataFrame
    note: str = ""

    def cells(self) -> Iterator[list[tuple[str, Tone]]]:
        """Yields the rows: text and tone of each cell."""
        values = [self.frame[column.key].tolist() for column in self.columns]
        for row in zip(*values, strict=True):
            yield [(column.text(value), column.judged(value)) for column, value in zip(self.columns, row, strict=True)]


def made_with(rows: pd.DataFrame, *names: str) -> Table:
    """Returns a table of versions and machine; several values where the rows are of several runs."""
    values = [", ".join(sorted(rows[name].dropna().unique())) for name in names]
    frame = pd.DataFrame({"name": names, "value": values}, dtype="object")
    return Table("Made with", (Column("name", "what"), Column("value", "value", "code")), frame)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _share(value: float) -> str:
    percent = 100 * value
    if percent in (0, 100):
        return f"{percent:.0f} %"
    return "<0.01 %" if percent < 0.01 else f"{percent:.2f} %" if percent >= 99 else f"{percent:.3g} %"


def _ratio(value: float) -> str:
    if value == 0 or math.isinf(value):
        return "∞" if value else "0"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2g}" if value < 0.1 else f"{value:.3g}"


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _bytes(value: float) -> str:
    mebibytes = value / 2**20
    return f"{mebibytes:,.0f} MiB" if mebibytes >= 100 else f"{mebibytes:.3g} MiB"


WRITERS: dict[Form, Callable[[Any], str]] = {
    "text": str,
    "code": str,
    "count": lambda value: f"{int(value):,}",
    "share": _share,
    "ratio": _ratio,
    "number": lambda value: "0" if value == 0 else f"{value:.2e}",
    "factor": lambda value: f"{value:.3f}",
    "ms": _milliseconds,
    "bytes": _bytes,
}
