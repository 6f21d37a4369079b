"""The findings of a check: rows with a verdict, a value and its limit."""

from __future__ import annotations

import dataclasses
import json
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

GpuVerdict = Literal["passed", "failed", "measured", "not measured"]


@dataclass(frozen=True)
class GpuFinding:
    """One row of the GPU run.

    Attributes:
        check: name of the check.
        what: the checked or measured property.
        verdict: "measured" where there is no limit.
        value: measured value, ``None`` where there is none.
        limit: bound on the value, ``None`` where there is none.
        unit: unit of value and limit.
        workload: name of the batch.
        dtype: dtype of the logits.
        detail: further text.
    """

    check: str
    what: str
    verdict: GpuVerdict
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    workload: str = ""
    dtype: str = ""
    detail: str = ""

    @property
    def line(self) -> str:
        """The finding as one line of text."""
        number = "" if self.value is None else f" {self.value:.4g} {self.unit}"
        bound = "" if self.limit is None else f" (limit {self.limit:.4g})"
        where = " ".join(filter(None, (self.workload, self.dtype)))
        what = f"{self.what} [{where}]" if where else self.what
        return f"{self.verdict:13}{self.check}: {what}{number}{bound}{f' - {self.detail}' if self.detail else ''}"


@dataclass(frozen=True)
class MeasuredLimit:
    """A quantity that a check measures, with its limit.

    Attributes:
        check: name of the check.
        what: the measured quantity.
        limit: bound on the value, ``None`` where the value is only recorded.
        unit: unit of value and limit.
        workload: name of the batch.
        dtype: dtype of the logits.
        upper: whether the limit is an upper bound; else it is a lower one.
    """

    check: str
    what: str
    limit: float | None
    unit: str
    workload: str = "coco"
    dtype: str = "float16"
    upper: bool = True

    def finding(self, value: float, detail: str = "") -> GpuFinding:
        """Returns the finding for a measured value."""
        if self.limit is None:
            return self._finding("measured", value, detail)
        kept = value <= self.limit if self.upper else value >= self.limit
        return self._finding("passed" if kept else "failed", value, detail)

    def not_measured(self, why: str) -> GpuFinding:
        """Returns the finding where nothing could be measured."""
        return self._finding("not measured", None, why)

    def _finding(self, verdict: GpuVerdict, value: float | None, detail: str) -> GpuFinding:
        return GpuFinding(self.check, self.what, verdict, value, self.limit, self.unit, self.workload, self.dtype, detail)


def holds(check: str, what: str, true: bool, workload: str = "", dtype: str = "", detail: str = "") -> GpuFinding:
    """Returns the finding of a condition that must be true."""
    return GpuFinding(check, what, "passed" if true else "failed", workload=workload, dtype=dtype, detail=detail)


Check = Callable[[], Iterator[GpuFinding]]


def run_check(name: str, check: Check) -> Iterator[GpuFinding]:
    """Yields the findings of a check; an exception that it raises becomes the last one, and the run continues."""
    try:
        yield from check()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        yield GpuFinding(
            name, "ran to its end", "failed", detail=f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"[:600]
        )


def append(path: Path, finding: GpuFinding, common: dict[str, str]) -> None:
    """Append a row to the file at once, so that an interrupted run keeps its findings."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(finding) | common) + "\n")
