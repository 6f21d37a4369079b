"""Comparisons become rows as they are made; each worker keeps its own, and the controller joins them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from oracle.case import Case, Setting
from oracle.compare import STAGES, Comparison, compare
from oracle.contender import Contender
from oracle.finding import Verdict
from oracle.ladder.contender import contender, of_release
from oracle.registry import load_candidate, shipped
from oracle.rows import Run, rows_of
from properties.saved import FOLDER, Saved


class Difference(AssertionError):  # noqa: N818 - it is a finding, not an error
    """A contender differs from the definition; the message is the whole finding."""


class Recorder:
    """Compares cases, keeps the rows, saves the batch that a failing test ends with.

    Args:
        candidates: dotted paths of contenders beside ours.
        profile: name of the run's profile.
        seed: of the run.
        cases: folder that failing batches are written to.
        release: of the reference to compare with instead of the installed one, by its own definition.
    """

    def __init__(self, candidates: Sequence[str], profile: str, seed: int, cases: Path = FOLDER, release: str | None = None) -> None:
        self.contenders: Mapping[str, Contender] = shipped() | {path: load_candidate(path) for path in candidates}
        if release is not None:
            self.contenders = {**self.contenders, "reference": contender(release)}
        self.release = release
        self.profile, self.seed, self.cases = profile, seed, cases
        self.frames: list[pd.DataFrame] = []

    def compare(
        self,
        case: Case,
        setting: Setting,
        names: Sequence[str],
        source: str = "generated",
        stages: Sequence[str] = STAGES,
        *,
        keep: bool = True,
    ) -> Comparison:
        """Judge the contenders of these names on a case, and keep the rows."""
        case = case if self.release is None else of_release(case, self.release)
        comparison = compare(case, setting, [self.contenders[name] for name in names], self.contenders["reference"], stages)
        if keep:
            rows = rows_of(comparison, Run(self.profile, str(self.seed), source))
            self.frames.append(pd.DataFrame([vars(row) for row in rows]))
        return comparison

    def save(self, comparison: Comparison) -> str:
        """Write the failing batch to its file, and give the report of what was found."""
        failed = next(said for said in comparison.said if said.verdict is Verdict.DIFFER)
        versions = {contender.name: contender.version for contender in (failed.contender, self.contenders["reference"])}
        Saved(comparison.case, comparison.setting, failed.contender.name, comparison.report(), versions).write(self.cases)
        return comparison.report()

    def write(self, path: Path) -> None:
        """Write the rows kept so far, if there are any."""
        if self.frames:
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.concat(self.frames, ignore_index=True).to_parquet(path, index=False)


def join(parts: Sequence[Path], path: Path) -> None:
    """One file of rows from those of the workers, which go."""
    if not parts:
        return
    frame = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    unfinished = path.with_suffix(".unfinished")
    frame.to_parquet(unfinished, index=False)
    unfinished.replace(path)
    for part in parts:
        part.unlink()
