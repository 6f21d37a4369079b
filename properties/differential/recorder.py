"""Comparisons become rows as they are made; each worker keeps its own, and the controller joins them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from hypothesis.database import ExampleDatabase

from oracle.cases.case import Case, Setting
from oracle.comparison.compare import STAGES, Comparison, Said, compare
from oracle.comparison.conduct import STAGE as CONDUCT
from oracle.comparison.explain import localise
from oracle.comparison.registry import TIME_LIMIT, load_candidate, shipped
from oracle.comparison.rows import Run, rows_of
from oracle.contract.contender import Contender
from oracle.contract.verdict import Finding, Verdict, differs, not_compared
from oracle.ladder.contender import contender, of_release
from properties.differential.saved_cases import FOLDER, Saved, read

SHRINK = 20.0
"""Seconds in which a smaller batch is looked for after one failed."""

CONDUCT_SHARE = 8
"""One in so many batches shows how our own contenders behave; of strangers, every batch does."""


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
        time_limit: seconds that one call of a candidate may take.
    """

    def __init__(
        self,
        candidates: Sequence[str],
        profile: str,
        seed: int,
        cases: Path = FOLDER,
        release: str | None = None,
        time_limit: float = TIME_LIMIT,
    ) -> None:
        strangers = {path: dataclasses.replace(load_candidate(path), time_limit=time_limit) for path in candidates}
        self.contenders: Mapping[str, Contender] = shipped() | strangers
        self.strangers = frozenset(strangers)
        self.hung: set[str] = set()
        self.note: Path | None = None
        self.database: ExampleDatabase | None = None
        self.shrink = SHRINK
        self.tell: Callable[[Comparison], None] = lambda _: None
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
        asked = [self.contenders[name] for name in names if name not in self.hung]
        if self.strangers.intersection(names) or int(case.digest, 16) % CONDUCT_SHARE == 0:
            stages = (CONDUCT, *stages)
        with self._noted(case, setting, asked):
            comparison = compare(case, setting, asked, self.contenders["reference"], stages)
        # Who hung once would hang the run.
        left_out = [
            Said(self.contenders[name], [not_compared(CONDUCT, "it hung before", "all")], 0.0) for name in names if name in self.hung
        ]
        self.hung |= {said.contender.name for said in comparison.said for f in said.findings if (f.stage, f.quantity) == (CONDUCT, "hangs")}
        comparison = dataclasses.replace(comparison, said=[*comparison.said, *left_out])
        if keep:
            self.keep(comparison, source)
            self.tell(comparison)
        return comparison

    def keep(self, comparison: Comparison, source: str = "generated") -> None:
        """Keep the rows of a comparison."""
        rows = rows_of(comparison, Run(self.profile, str(self.seed), source))
        self.frames.append(pd.DataFrame([vars(row) for row in rows]))

    @contextlib.contextmanager
    def _noted(self, case: Case, setting: Setting, asked: Sequence[Contender]) -> Iterator[None]:
        """Leave a note of the case while a stranger's code runs: who takes the process with it is named by the note that remains."""
        strangers = [one for one in asked if one.name in self.strangers]
        if self.note is None or not strangers:
            yield
            return
        Saved(case, setting, strangers[0].name, "", {one.name: one.version for one in strangers}).write_to(self.note)
        yield
        self.note.unlink()

    def ended(self, note: Path) -> str:
        """What a note says that a process left as it ended in a stranger's code; the case is saved, its row kept, the note removed."""
        saved = read(note)
        what = "ended the process: it crashed, or hung in native code beyond what a signal can interrupt"
        judgement = differs(Finding(CONDUCT, "ends the process", what))
        comparison = Comparison(saved.case, saved.setting, [Said(self.contenders[saved.contender], [judgement], 0.0)])
        self.keep(comparison)
        note.unlink()
        return self.save(comparison)

    def save(self, comparison: Comparison) -> str:
        """Write the failing batch to its file, and give the report of what was found."""
        failed = next(said for said in comparison.said if said.verdict is Verdict.DIFFER)
        versions = {contender.name: contender.version for contender in (failed.contender, self.contenders["reference"])}
        found = self._located(comparison, failed)
        Saved(comparison.case, comparison.setting, failed.contender.name, found, versions).write(self.cases)
        return found

    def _located(self, comparison: Comparison, failed: Said) -> str:
        """The report, with what the pattern of the numbers says before the line that replays the case."""
        if all(finding.stage == CONDUCT for finding in failed.findings):
            return comparison.report()
        *found, replay = comparison.report().splitlines()
        return "\n".join([*found, *localise(comparison.case, comparison.setting, failed.contender), replay])

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
