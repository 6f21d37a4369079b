"""What a check found: a row with a verdict, a value and its limit."""

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
        check: which check it is of.
        what: what was looked at.
        verdict: "measured" where there is no limit to pass.
        value: the number found, ``None`` where there is none.
        limit: what the value is held against.
        unit: of both.
        workload: the batch.
        dtype: of the logits.
        detail: in words.
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
        """For the terminal."""
        number = "" if self.value is None else f" {self.value:.4g} {self.unit}"
        bound = "" if self.limit is None else f" (limit {self.limit:.4g})"
        where = " ".join(filter(None, (self.workload, self.dtype)))
        what = f"{self.what} [{where}]" if where else self.what
        return f"{self.verdict:13}{self.check}: {what}{number}{bound}{f' - {self.detail}' if self.detail else ''}"


@dataclass(frozen=True)
class MeasuredLimit:
    """Something that a check measures and holds against a limit.

    Attributes:
        check: which check it is of.
        what: what is measured.
        limit: what the value is held against, ``None`` where it is only recorded.
        unit: of both.
        workload: the batch.
        dtype: of the logits.
        most: whether the limit is the most that is allowed, or else the least.
    """

    check: str
    what: str
    limit: float | None
    unit: str
    workload: str = "coco"
    dtype: str = "float16"
    most: bool = True

    def finding(self, value: float, detail: str = "") -> GpuFinding:
        """The finding of a value."""
        if self.limit is None:
            return self._finding("measured", value, detail)
        kept = value <= self.limit if self.most else value >= self.limit
        return self._finding("passed" if kept else "failed", value, detail)

    def not_measured(self, why: str) -> GpuFinding:
        """The finding where nothing could be measured."""
        return self._finding("not measured", None, why)

    def _finding(self, verdict: GpuVerdict, value: float | None, detail: str) -> GpuFinding:
        return GpuFinding(self.check, self.what, verdict, value, self.limit, self.unit, self.workload, self.dtype, detail)


def holds(check: str, what: str, true: bool, workload: str = "", dtype: str = "", detail: str = "") -> GpuFinding:
    """Something that must be so."""
    return GpuFinding(check, what, "passed" if true else "failed", workload=workload, dtype=dtype, detail=detail)


Check = Callable[[], Iterator[GpuFinding]]


def run_check(name: str, check: Check) -> Iterator[GpuFinding]:
    """A check's findings; whatever it raises is its last one, and the run goes on."""
    try:
        yield from check()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        yield GpuFinding(
            name, "ran to its end", "failed", detail=f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"[:600]
        )


def append(path: Path, finding: GpuFinding, common: dict[str, str]) -> None:
    """Write a row at once, so that a run that is cut short leaves what it found."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(finding) | common) + "\n")
