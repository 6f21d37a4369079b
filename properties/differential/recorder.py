"""Comparisons become rows as they are made; each worker keeps its own, and the controller joins them."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from hypothesis.database import ExampleDatabase

from oracle.cases.case import Case, Setting
from oracle.comparison.compare import STAGES, Comparison, Said, compare
from oracle.comparison.conduct import STAGE as CONDUCT
from oracle.comparison.explain import localise
from oracle.comparison.registry import TIME_LIMIT, load_candidate, shipped
from oracle.comparison.rows import Run, rows_of
from oracle.contract.assumptions import ASSUMPTIONS, assuming, broken, named
from oracle.contract.contender import Contender
from oracle.contract.verdict import Finding, Verdict, differs, not_compared
from oracle.ladder.contender import contender, of_release
from properties.differential.saved_cases import FOLDER, Replay, Saved, read
from properties.differential.shrink import shrunk, size

SHRINK = 20.0
"""Seconds in which smaller batches are looked for when some of a test's have failed."""

SAMPLE = 30
"""Batches that a candidate raised on, and that it did not, by which the assumption is told that it makes."""

RAISED = ("raises", "call")
"""Quantities of the findings on a call that gave no answer."""

SHOWN = 3
"""Kinds of failure of one test that are shown, each by a batch."""

CONDUCT_SHARE = 8
"""One in so many batches shows how our own contenders behave; of strangers, every batch does."""


class Recorder:
    """Compares cases, keeps the rows, saves the batch that a failing test ends with.

    Args:
        candidates: dotted paths of contenders beside ours.
        profile: name of the run's profile.
        seed: of the run.
        cases: folder that failing batches are written to.
        release: of the reference to compare with instead of the installed one, by its own definition.
        time_limit: seconds that one call of a candidate may take.
        assume: names of what candidates are taken to assume; they are not asked about batches that break it.
    """

    def __init__(
        self,
        candidates: Sequence[str],
        profile: str,
        seed: int,
        cases: Path = FOLDER,
        release: str | None = None,
        time_limit: float = TIME_LIMIT,
        assume: Sequence[str] = (),
    ) -> None:
        assumed = named(assume)
        strangers = {path: assuming(dataclasses.replace(load_candidate(path), time_limit=time_limit), assumed) for path in candidates}
        self.contenders: Mapping[str, Contender] = shipped() | strangers
        self.strangers = frozenset(strangers)
        self.hung: set[str] = set()
        self.note: Path | None = None
        self.database: ExampleDatabase | None = None
        self.shrink = SHRINK
        self.replay = Replay()
        self.saved: list[Path] = []
        self.stood: dict[str, list[tuple[Case, Setting]]] = {name: [] for name in strangers}
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
            self._note_standing(comparison)
        return comparison

    def keep(self, comparison: Comparison, source: str = "generated", *, example: bool = False) -> None:
        """Keep the rows of a comparison; those of an example are shown, and not counted."""
        rows = rows_of(comparison, Run(self.profile, str(self.seed), source, example))
        self.frames.append(pd.DataFrame([vars(row) for row in rows]))

    def _note_standing(self, comparison: Comparison) -> None:
        """Remember some of the batches that strangers answered to: what these break, a stranger does not assume."""
        for said in comparison.said:
            stood = self.stood.get(said.contender.name, [])
            if said.verdict is not Verdict.NOT_COMPARED and not _raised(said) and len(stood) < SAMPLE:
                stood.append((comparison.case, comparison.setting))

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
        comparison = self.save(Comparison(saved.case, saved.setting, [Said(self.contenders[saved.contender], [judgement], 0.0)]))
        self.keep(comparison)
        note.unlink()
        return comparison.report()

    def conclude(self, failed: Sequence[Comparison], asked: int, source: str = "generated") -> str:
        """The report on a test of which some comparisons failed: each kind of failure by the smallest batch that was found to show it.

        These batches are saved, and their rows kept as examples.

        Args:
            failed: the comparisons in which somebody differs.
            asked: how many comparisons there were.
            source: where the boxes come from.
        """
        parts, told = [f"{len(failed)} of {asked} batches differ"], set[tuple[str, ...]]()
        kinds = list(dict.fromkeys(kind for comparison in failed for kind in _kinds(comparison)))
        for kind in kinds:
            if kind in told or len(parts) > SHOWN:
                continue
            like = sorted((one for one in failed if kind in _kinds(one)), key=lambda one: size(one.case))
            example = self._smaller(like[0], kind, self.shrink / min(len(kinds), SHOWN))
            example = self.save(self._located(example, like))
            self.keep(example, source, example=True)
            parts.append(example.report())
            told |= set(_kinds(example))
        left = len([kind for kind in kinds if kind not in told])
        return "\n".join(parts + ([f"{left} more kinds of failure are in the rows"] if left else []))

    def _smaller(self, comparison: Comparison, kind: tuple[str, ...], seconds: float) -> Comparison:
        """A comparison of the same contenders on a smaller batch that fails in the same way."""
        least, names = comparison, [said.contender.name for said in comparison.said]

        def fails(case: Case) -> bool:
            nonlocal least
            try:
                found = self.compare(case, comparison.setting, names, keep=False)
            except ValueError:  # Some smaller batch is none.
                return False
            if kind not in _kinds(found):
                return False
            least = found
            return True

        if not self.hung.intersection(names):  # Whoever hangs is not asked again.
            shrunk(comparison.case, fails, seconds)
        return least

    def _located(self, comparison: Comparison, like: Sequence[Comparison]) -> Comparison:
        """The comparison, with what the pattern of the numbers says after the findings of each contender whose numbers are off."""
        others = [(one.case, one.setting) for one in like if one.case != comparison.case]

        def located(said: Said) -> Said:
            if not said.findings:
                return said
            if _raised(said):
                return _annotated(said, self._assumptions(said.contender.name, like))
            return _annotated(said, localise(comparison.case, comparison.setting, said.contender, said.findings, others))

        return dataclasses.replace(comparison, said=[located(said) for said in comparison.said])

    def _assumptions(self, name: str, raised: Sequence[Comparison]) -> list[tuple[str, str]]:
        """Which assumptions would leave out every batch that a candidate raised on, and none that it answered to."""
        if name not in self.strangers:
            return []
        against = [broken(one.case, one.setting) for one in raised[:SAMPLE]]
        names = set.intersection(*against).difference(*(broken(*one) for one in self.stood[name]))
        options = " or ".join(f'--assume "{one}"' for one in ASSUMPTIONS if one in names)
        return [("left out by", f"{options}, if it is not made for such batches")] if options else []

    def save(self, comparison: Comparison) -> Comparison:
        """The comparison of a failing batch, which is written to its file, with the lines that replay it."""
        failed = next(said for said in comparison.said if said.verdict is Verdict.DIFFER)
        versions = {contender.name: contender.version for contender in (failed.contender, self.contenders["reference"])}
        saved = Saved(comparison.case, comparison.setting, failed.contender.name, "", versions)
        path = saved.write(self.cases)
        comparison = self.replayed(comparison, path.stem)
        dataclasses.replace(saved, found=comparison.report()).write_to(path)
        self.saved.append(path)
        return comparison

    def replayed(self, comparison: Comparison, name: str) -> Comparison:
        """The comparison of a batch that is saved under a name, with the lines that replay it: of ours, one asks the first that differs."""
        ours = next((one.contender.name for one in comparison.said if one.findings and one.contender.name not in self.strangers), None)

        def line(said: Said) -> str:
            who = said.contender.name
            return self.replay.line(name, who) if who in self.strangers else self.replay.line(name) if who == ours else ""

        return dataclasses.replace(comparison, said=[dataclasses.replace(said, replay=line(said)) for said in comparison.said])

    def write(self, path: Path) -> None:
        """Write the rows kept so far, if there are any."""
        if self.frames:
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.concat(self.frames, ignore_index=True).to_parquet(path, index=False)


def _kinds(comparison: Comparison) -> list[tuple[str, ...]]:
    """In what ways contenders differ: each fault of conduct and, of what is computed, the first stage that differs or fails.

    What was raised is told apart by its text, numbers apart; who raises in the first call is not told again to have raised in a later one.
    """
    kinds: list[tuple[str, ...]] = []
    for said in comparison.said:
        name, findings = said.contender.name, said.findings
        raised = [f"{name} {re.sub(r'[0-9]+', '#', finding.what)[:80]}" for finding in findings if finding.quantity in RAISED]
        kinds += [(name, CONDUCT, finding.quantity) for finding in findings if finding.stage == CONDUCT and finding.quantity not in RAISED]
        computed = [finding for finding in findings if finding.stage != CONDUCT]
        if raised:
            kinds.append((name, "raises", raised[0]))
        elif computed:
            kinds.append((name, computed[0].stage))
    return kinds


def _raised(said: Said) -> bool:
    """Whether a contender raised instead of answering."""
    return any(finding.quantity in RAISED for finding in said.findings)


def _annotated(said: Said, notes: Sequence[tuple[str, str]]) -> Said:
    """What was said, with notes after the last finding."""
    judgements = list(said.judgements)
    at = max(n for n, judgement in enumerate(judgements) if judgement.finding is not None)
    finding = judgements[at].finding
    assert finding is not None
    judgements[at] = dataclasses.replace(judgements[at], finding=dataclasses.replace(finding, notes=(*finding.notes, *notes)))
    return dataclasses.replace(said, judgements=judgements)


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
