"""Comparisons become rows as they are made; each worker keeps its own, and the controller joins them."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from hypothesis.database import ExampleDatabase

from oracle.cases.case import Box, Case, Setting
from oracle.comparison.compare import STAGES, Comparison, Said, compare
from oracle.comparison.conduct import STAGE as CONDUCT
from oracle.comparison.explain import localise
from oracle.comparison.registry import TIME_LIMIT, load_candidate, shipped
from oracle.comparison.rows import Run, rows_of
from oracle.contract.assumptions import ASSUMPTIONS, assuming, broken, named
from oracle.contract.calls import HANGS
from oracle.contract.contender import Contender
from oracle.contract.time_limit import import_interrupted
from oracle.contract.verdict import Finding, Judgement, Verdict, differs, not_compared
from oracle.ladder.contender import contender, of_release
from oracle.tools.atomic_files import write_frame
from properties.differential.repeat_alone import ENDS, Asked
from properties.differential.run_folder import RunFolder
from properties.differential.saved_cases import FOLDER, Replay, Saved, read
from properties.differential.shrink import shrunk, size
from twinloss import LossSpec

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

FLUSH = 20.0
"""Seconds after which a process writes its rows down, in the middle of a test too."""

UNTRUSTED = "this process, where it was interrupted, is not to be trusted: nothing more is compared here"
ANSWERED = "asked again in a process of its own it answered. Memory may have run out, somebody may have ended it, or it fails now and then."

WARM = Case(LossSpec(num_classes=2, reg_max=4, strides=(8, 16)), (32, 32), 1, (Box(0, 1, 16, 16, 12, 12),))


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
        assumed, self.assume = named(assume), tuple(assume)
        strangers = {path: assuming(dataclasses.replace(load_candidate(path), time_limit=time_limit), assumed) for path in candidates}
        self.contenders: Mapping[str, Contender] = shipped() | strangers
        self.strangers = frozenset(strangers)
        self.hung: dict[str, str] = {}
        self.folder: RunFolder | None = None
        self.database: ExampleDatabase | None = None
        self.shrink = SHRINK
        self.tell: Callable[[Comparison], None] = lambda _: None
        self.replay = Replay()
        self.saved: list[Path] = []
        self.stood: dict[str, list[tuple[Case, Setting]]] = {name: [] for name in strangers}
        if release is not None:
            self.contenders = {**self.contenders, "reference": contender(release)}
        self.release = release
        self.profile, self.seed, self.cases = profile, seed, cases
        self.frames: list[pd.DataFrame] = []
        self._flushed = time.monotonic()
        self._warm: set[Setting] = set()
        self._ended: set[str] = set()

    def warm(self, setting: Setting) -> None:
        """Let everything of ours that is loaded at its first use be loaded before a stranger's time runs: once for a setting."""
        if setting not in self._warm:
            self._warm.add(setting)
            compare(WARM, setting, [self.contenders["twin-torch"]], self.contenders["reference"], ("assign", "loss"))

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
        # Who hung once would hang the run, and who was interrupted may be in a state that is not its own fault.
        left_out = [Said(self.contenders[name], [not_compared(CONDUCT, self.hung[name])], 0.0) for name in names if name in self.hung]
        if self.strangers.intersection(names):
            self.warm(setting)
        with self.folder.turn() if self.folder else contextlib.nullcontext():
            comparison = compare(
                case, setting, asked, self.contenders["reference"], stages, lambda one: self._noted(Saved(case, setting, one.name, "", {}))
            )
        said = [self._confirmed(one, Saved(case, setting, one.contender.name, "", {}), stages) for one in comparison.said]
        comparison = dataclasses.replace(comparison, said=[*said, *left_out])
        if keep:
            self.keep(comparison, source)
            self.tell(comparison)
            self._note_standing(comparison)
        return comparison

    def keep(self, comparison: Comparison, source: str = "generated", *, example: bool = False) -> None:
        """Keep the rows of a comparison; those of an example are shown, and not counted."""
        rows = rows_of(comparison, Run(self.profile, str(self.seed), source, example))
        self.frames.append(pd.DataFrame([vars(row) for row in rows]))
        if self.folder and time.monotonic() - self._flushed > FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write down the rows that were kept since the last time, so that a process that ends loses few."""
        self._flushed = time.monotonic()
        if self.folder and self.frames:
            write_frame(pd.concat(self.frames, ignore_index=True), self.folder.part())
            self.frames.clear()

    def _confirmed(self, said: Said, saved: Saved, stages: Sequence[str]) -> Said:
        """What is said of a contender; of a stranger that seems to hang, what a process of its own says. Here it is not asked again."""
        name = said.contender.name
        hanging = next((finding for finding in said.findings if finding.quantity == HANGS), None)
        if hanging is None or name not in self.strangers:
            return said
        said = dataclasses.replace(said, judgements=self._alone(saved, stages))
        hangs = any(finding.quantity in (HANGS, ENDS) for finding in said.findings)
        self.hung[name] = "it hung before" if hangs else f"{hanging.what}; asked again in a process of its own it answered, but {UNTRUSTED}"
        if import_interrupted():
            self.hung |= dict.fromkeys(self.strangers - self.hung.keys(), f"an import of {name} was interrupted, and {UNTRUSTED}")
        return said

    def _alone(self, saved: Saved, stages: Sequence[str]) -> list[Judgement]:
        with self.folder.alone() if self.folder else contextlib.nullcontext():
            return Asked(saved, stages, self.contenders[saved.contender].time_limit or TIME_LIMIT, self.release, self.assume).judgements()

    def all_left_out(self, names: Sequence[str]) -> str:
        """Why nobody of these can be compared in this process any more, or nothing."""
        return "; ".join(f"{name}: {self.hung[name]}" for name in names) if self.hung.keys() >= set(names) else ""

    def _note_standing(self, comparison: Comparison) -> None:
        """Remember some of the batches that strangers answered to: what these break, a stranger does not assume."""
        for said in comparison.said:
            stood = self.stood.get(said.contender.name, [])
            if said.verdict is not Verdict.NOT_COMPARED and not _raised(said) and len(stood) < SAMPLE:
                stood.append((comparison.case, comparison.setting))

    @contextlib.contextmanager
    def _noted(self, saved: Saved) -> Iterator[None]:
        """Leave a note of the case while a stranger's code runs: who takes the process with it is named by the note that remains."""
        if self.folder is None or saved.contender not in self.strangers:
            yield
            return
        note = self.folder.note
        saved.write_to(note)
        try:
            yield
        finally:  # what Python survives, such as an interruption, is no end of the process
            note.unlink(missing_ok=True)

    def ended(self, note: Path) -> str:
        """What is said of the stranger in whose code a process ended, by the note that it left: what a process of its own says now.

        The rows are kept. Where that process ends too the case is saved, and the finding is the report.
        """
        saved = read(note)
        contender = self.contenders[saved.contender]
        if contender.name in self._ended:
            judgements = [differs(Finding(CONDUCT, ENDS, "ended the process, as it did another"))]
        else:
            judgements = self._alone(saved, (CONDUCT, *STAGES))
        self.hung.setdefault(contender.name, "a process ended in its code")
        comparison = Comparison(saved.case, saved.setting, [Said(contender, judgements, 0.0)])
        if comparison.verdict is not Verdict.DIFFER:
            self.keep(comparison)
            return f"A process ended in {contender.name} on {saved.case.digest} ({saved.setting.name}); {ANSWERED}"
        self._ended |= {contender.name} if judgements[0].quantity == ENDS else set()
        comparison = self.save(comparison)
        self.keep(comparison)
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

        if not self.hung.keys() & names:  # Whoever hangs is not asked again.
            shrunk(comparison.case, fails, seconds)
        return least

    def _located(self, comparison: Comparison, like: Sequence[Comparison]) -> Comparison:
        """The comparison, with what the pattern of the numbers says after the findings of each contender whose numbers are off."""
        others = [(one.case, one.setting) for one in like if one.case != comparison.case]

        def located(said: Said) -> Said:
            if not said.findings or said.contender.name in self.hung:
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


def join(folder: RunFolder, path: Path) -> None:
    """One file of rows from those that the processes of a run left; none where there are none."""
    if parts := folder.parts():
        write_frame(pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True), path)
