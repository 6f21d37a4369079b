"""Compares cases, and keeps the comparisons as rows; each worker writes its own files, which the controller joins."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from hypothesis.database import ExampleDatabase

from oracle.cases.case import Case, Setting
from oracle.comparison.compare import Comparison, ContenderResult, compare
from oracle.comparison.conduct import STAGE as CONDUCT
from oracle.comparison.explain import explain
from oracle.comparison.explanations import Explanation
from oracle.comparison.registry import TIME_LIMIT, load_candidate, load_isolated, shipped
from oracle.comparison.rows import Run, rows_of
from oracle.contract.assumptions import ASSUMPTIONS, broken_assumptions, find_assumptions, with_assumptions
from oracle.contract.calls import HANGS
from oracle.contract.contender import Contender
from oracle.contract.time_limit import import_interrupted
from oracle.contract.verdict import Finding, Judgement, Verdict, differs, not_compared
from oracle.isolated.candidate_process import ENDS
from oracle.ladder.contender import contender, of_release
from oracle.tools.atomic_files import write_frame
from oracle.tools.options import DETECT
from properties.differential.repeat_alone import RepeatedComparison
from properties.differential.run_explanations import AnsweredBatches, RunExplanation, explained
from properties.differential.run_folder import RunFolder
from properties.differential.saved_cases import FOLDER, ReplayCommand, SavedCase, read
from properties.differential.shrink import shrunk, size
from properties.differential.soak import SETTING, Soak, early_batches
from properties.tasks import TASKS, task_of

SHRINK_S = 20.0
"""Seconds of the search for smaller batches after a test with failed batches."""

MOST_REMEMBERED = 30
"""Largest number of batches that a candidate raised on, and of those it answered, from which its assumptions are inferred."""

RAISED = ("raises", "call")
"""Quantities of findings on a call that raised."""

MOST_SHOWN = 3
"""Largest number of kinds of failure that a test shows, each with one batch."""

CONDUCT_SHARE = 8
"""Our own contenders' conduct is checked on one batch in this many, candidates' on every batch."""

FLUSH_S = 20.0
"""Seconds after which a process writes its rows, also within a test."""

UNTRUSTED = "the interrupted process may be in a wrong state: nothing more is compared in it"
ANSWERED = "repeated in a process of its own it answered. Memory may have run out, the process may have been killed, or it fails at times."


class Recorder:
    """Compares cases, keeps the rows, and saves failing batches.

    Args:
        candidates: dotted paths of candidates.
        profile: name of the run's profile.
        seed: seed of the run.
        cases: folder for failing batches.
        release: release of the reference to compare with, by its own definition, instead of the installed one.
        time_limit: time limit of one call of a candidate, in seconds.
        assume: names of assumptions of the candidates; batches that break one are left out.
        isolated: whether each candidate runs in a process of its own, and not in this one.

    Attributes:
        hung: the reason why a contender is no longer called, by name.
        answered: some of the batches that each candidate answered.
        on_compared: called with each comparison that is kept.
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
        *,
        isolated: bool = False,
    ) -> None:
        assumed, self.assume, self.isolated = find_assumptions(assume), tuple(assume), isolated
        loaded = {path: with_assumptions(loaded_candidate(path, time_limit, isolated=isolated), assumed) for path in candidates}
        self._contenders: dict[str, dict[str, Contender]] = {task: shipped(task) | loaded for task in TASKS}
        self.candidates = frozenset(loaded)
        self.hung: dict[str, str] = {}
        self.folder: RunFolder | None = None
        self.database: ExampleDatabase | None = None
        self.shrink = SHRINK_S
        self.on_compared: Callable[[Comparison], None] = lambda _: None
        self.replay = ReplayCommand()
        self.saved: list[Path] = []
        self.answered: dict[str, list[tuple[Case, Setting]]] = {name: [] for name in loaded}
        if release is not None:
            self._contenders[DETECT]["reference"] = contender(release)
        self.release = release
        self.profile, self.seed, self.cases = profile, seed, cases
        self.frames: list[pd.DataFrame] = []
        self._flushed = time.monotonic()
        self._answered = AnsweredBatches(self.candidates)
        self._known: dict[tuple[str, str], list[Explanation]] = {}
        self._warm: set[tuple[str, Setting]] = set()
        self._ended: set[str] = set()

    def contenders(self, task: str = DETECT) -> Mapping[str, Contender]:
        """Returns our contenders for a task, and all candidates, by name."""
        return self._contenders[task]

    def warm(self, case: Case, setting: Setting) -> None:
        """Loads everything of ours that is loaded at first use, so that it is not a candidate's time; once per task and setting."""
        task = task_of(case).name
        if (task, setting) not in self._warm:
            self._warm.add((task, setting))
            ours = self.contenders(task)
            compare(case, setting, [ours["twin-torch"]], ours["reference"], ("assign", "loss"))

    def compare(
        self,
        case: Case,
        setting: Setting,
        names: Sequence[str],
        source: str = "generated",
        *,
        keep: bool = True,
    ) -> Comparison:
        """Compares the contenders of these names on a case, and keeps the rows."""
        case = case if self.release is None else of_release(case, self.release)
        task = task_of(case)
        contenders, stages = self.contenders(task.name), task.stages
        asked = [contenders[name] for name in names if name not in self.hung]
        if self.candidates.intersection(names) or int(case.digest, 16) % CONDUCT_SHARE == 0:
            stages = (CONDUCT, *stages)
        # A contender that hung would hang again, and one that was interrupted may be in a wrong state.
        left_out = [ContenderResult(contenders[name], [not_compared(CONDUCT, self.hung[name])], 0.0) for name in names if name in self.hung]
        if self.candidates.intersection(names):
            self.warm(case, setting)
        with self.folder.turn() if self.folder else contextlib.nullcontext():
            comparison = compare(
                case,
                setting,
                asked,
                contenders["reference"],
                stages,
                lambda one: self._recorded_call(SavedCase(case, setting, one.name, "", {})),
            )
        result = [self._confirm_hang(one, SavedCase(case, setting, one.contender.name, "", {}), stages) for one in comparison.results]
        comparison = dataclasses.replace(comparison, results=[*result, *left_out])
        if keep:
            self.keep(comparison, source)
            self.on_compared(comparison)
            self._remember_answered(comparison)
            self._answered.add(comparison)
        return comparison

    def soak(self, name: str) -> Comparison:
        """Returns the comparison of a candidate's late answers with its early ones, and keeps its rows."""
        contender, start = self.contenders()[name], time.perf_counter()
        soak = Soak(contender)
        case = soak.cases[0] if soak.cases else early_batches()[0]
        with self._recorded_call(SavedCase(case, SETTING, name, "", {})):
            judgements = soak.judgements()
        comparison = Comparison(case, SETTING, [ContenderResult(contender, judgements, time.perf_counter() - start)])
        self.keep(comparison)
        return comparison

    def keep(self, comparison: Comparison, source: str = "generated", *, example: bool = False) -> None:
        """Keeps the rows of a comparison; reports show those of an example, and do not count them."""
        rows = rows_of(comparison, Run(self.profile, str(self.seed), source, example))
        self.frames.append(pd.DataFrame([vars(row) for row in rows]))
        if self.folder and time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Writes the rows kept since the last call, so that few are lost if the process ends."""
        self._flushed = time.monotonic()
        if self.folder:
            self._answered.write(self.folder.batches)
        if self.folder and self.frames:
            write_frame(pd.concat(self.frames, ignore_index=True), self.folder.part())
            self.frames.clear()

    def _confirm_hang(self, result: ContenderResult, saved: SavedCase, stages: Sequence[str]) -> ContenderResult:
        """Returns the result; that of a hanging candidate is replaced by one from a process of its own, and it is not called here again."""
        name = result.contender.name
        hanging = next((finding for finding in result.findings if finding.quantity == HANGS), None)
        if hanging is None or name not in self.candidates:
            return result
        result = dataclasses.replace(result, judgements=self._repeat_alone(saved, stages))
        hangs = any(finding.quantity in (HANGS, ENDS) for finding in result.findings)
        self.hung[name] = "it hung before" if hangs else f"{hanging.what}; repeated in a process of its own it answered, but {UNTRUSTED}"
        if import_interrupted():
            self.hung |= dict.fromkeys(self.candidates - self.hung.keys(), f"an import of {name} was interrupted, and {UNTRUSTED}")
        return result

    def _repeat_alone(self, saved: SavedCase, stages: Sequence[str]) -> list[Judgement]:
        with self.folder.alone() if self.folder else contextlib.nullcontext():
            limit = self.contenders()[saved.contender].time_limit or TIME_LIMIT
            return RepeatedComparison(saved, stages, limit, self.release, self.assume, self.isolated).judgements()

    def explanations(self, say: Callable[[str], object]) -> list[RunExplanation]:
        """Explains the differences of all candidates that still can be called, on the batches of all processes of the run.

        Args:
            say: called with a line of text before each search.
        """
        contenders = {
            task: {name: one for name, one in ones.items() if name in self.candidates and name not in self.hung}
            for task, ones in self._contenders.items()
        }
        return explained(self.folder.all_batches(), contenders, say=say) if self.folder else []

    def all_left_out(self, names: Sequence[str]) -> str:
        """Returns the reasons if none of these contenders can be compared in this process any more, else an empty text."""
        return "; ".join(f"{name}: {self.hung[name]}" for name in names) if self.hung.keys() >= set(names) else ""

    def _remember_answered(self, comparison: Comparison) -> None:
        """Remembers some of the batches that candidates answered: a candidate makes no assumption that these break."""
        for result in comparison.results:
            answered = self.answered.get(result.contender.name, [])
            if result.verdict is not Verdict.NOT_COMPARED and not _raised(result) and len(answered) < MOST_REMEMBERED:
                answered.append((comparison.case, comparison.setting))

    @contextlib.contextmanager
    def _recorded_call(self, saved: SavedCase) -> Iterator[None]:
        """Keeps a file with the case while a candidate's code runs; if the process dies, the remaining file names the candidate."""
        if self.folder is None or saved.contender not in self.candidates:
            yield
            return
        note = self.folder.note
        saved.write_to(note)
        try:
            yield
        finally:  # Python is alive, so the process has not died
            note.unlink(missing_ok=True)

    def ended(self, note: Path) -> str:
        """Repeats a comparison in which a process died, from the file that it left, in a process of its own; returns a report.

        The rows are kept. If that process dies too, the case is saved, and the finding is the report.
        """
        saved = read(note)
        task = task_of(saved.case)
        contender = self.contenders(task.name)[saved.contender]
        if contender.name in self._ended:
            judgements = [differs(Finding(CONDUCT, ENDS, "ended the process, as it ended another one before"))]
        else:
            judgements = self._repeat_alone(saved, (CONDUCT, *task.stages))
        self.hung.setdefault(contender.name, "a process ended in its code")
        comparison = Comparison(saved.case, saved.setting, [ContenderResult(contender, judgements, 0.0)])
        if comparison.verdict is not Verdict.DIFFER:
            self.keep(comparison)
            return f"A process ended in {contender.name} on {saved.case.digest} ({saved.setting.name}); {ANSWERED}"
        self._ended |= {contender.name} if judgements[0].quantity == ENDS else set()
        comparison = self.save(comparison)
        self.keep(comparison)
        return comparison.report()

    def conclude(self, failed: Sequence[Comparison], asked: int, source: str = "generated") -> str:
        """Returns the report on a test with failed comparisons: each kind of failure with the smallest batch found that shows it.

        These batches are saved, and their rows kept as examples.

        Args:
            failed: the comparisons with a difference.
            asked: number of all comparisons.
            source: origin of the boxes.
        """
        parts, shown = [f"{len(failed)} of {asked} batches differ"], set[tuple[str, ...]]()
        kinds = list(dict.fromkeys(kind for comparison in failed for kind in _kinds(comparison)))
        for kind in kinds:
            if kind in shown or len(parts) > MOST_SHOWN:
                continue
            like = sorted((one for one in failed if kind in _kinds(one)), key=lambda one: size(one.case))
            example = self._smaller(like[0], kind, self.shrink / min(len(kinds), MOST_SHOWN))
            example = self.save(self._explained(example, like))
            self.keep(example, source, example=True)
            parts.append(example.report())
            shown |= set(_kinds(example))
        left = len([kind for kind in kinds if kind not in shown])
        return "\n".join(parts + ([f"{left} more kinds of failure are in the rows"] if left else []))

    def _smaller(self, comparison: Comparison, kind: tuple[str, ...], seconds: float) -> Comparison:
        """Returns a comparison of the same contenders on a smaller batch with the same kind of failure."""
        least, names = comparison, [result.contender.name for result in comparison.results]

        def fails(case: Case) -> bool:
            nonlocal least
            try:
                found = self.compare(case, comparison.setting, names, keep=False)
            except ValueError:  # A shrunk batch can be invalid.
                return False
            if kind not in _kinds(found):
                return False
            least = found
            return True

        if not self.hung.keys() & names:  # A contender that hangs is not called again.
            shrunk(comparison.case, fails, seconds)
        return least

    def _explained(self, comparison: Comparison, like: Sequence[Comparison]) -> Comparison:
        """Returns the comparison with an explanation after the findings of each contender whose numbers are wrong."""
        others = [(one.case, one.setting) for one in like if one.case != comparison.case]

        def located(result: ContenderResult) -> ContenderResult:
            if not result.findings or result.contender.name in self.hung:
                return result
            if _raised(result):
                return _with_notes(result, self._assumptions(result.contender.name, like))
            known = self._known.setdefault((result.contender.name, comparison.case.spec.task), [])
            return _with_notes(result, explain(comparison.case, comparison.setting, result.contender, result.findings, others, known))

        return dataclasses.replace(comparison, results=[located(result) for result in comparison.results])

    def _assumptions(self, name: str, raised: Sequence[Comparison]) -> list[tuple[str, str]]:
        """Returns a note on the assumptions that leave out every batch that a candidate raised on, and none that it answered."""
        if name not in self.candidates:
            return []
        against = [broken_assumptions(one.case, one.setting) for one in raised[:MOST_REMEMBERED]]
        names = set.intersection(*against).difference(*(broken_assumptions(*one) for one in self.answered[name]))
        options = " or ".join(f'--assume "{one}"' for one in ASSUMPTIONS if one in names)
        return [("left out by", f"{options}, if it is not made for such batches")] if options else []

    def save(self, comparison: Comparison) -> Comparison:
        """Saves a failing batch; returns the comparison with the commands that replay it."""
        failed = next(result for result in comparison.results if result.verdict is Verdict.DIFFER)
        reference = self.contenders(task_of(comparison.case).name)["reference"]
        versions = {contender.name: contender.version for contender in (failed.contender, reference)}
        saved = SavedCase(comparison.case, comparison.setting, failed.contender.name, "", versions)
        path = saved.write(self.cases)
        comparison = self.with_replay(comparison, path.stem)
        dataclasses.replace(saved, found=comparison.report()).write_to(path)
        self.saved.append(path)
        return comparison

    def with_replay(self, comparison: Comparison, name: str) -> Comparison:
        """Returns the comparison of a saved batch with a replay command for each candidate, and for the first of ours that differs."""
        ours = next((one.contender.name for one in comparison.results if one.findings and one.contender.name not in self.candidates), None)

        def line(result: ContenderResult) -> str:
            contender = result.contender.name
            if contender in self.candidates:
                return self.replay.line(name, contender)
            return self.replay.line(name) if contender == ours else ""

        return dataclasses.replace(comparison, results=[dataclasses.replace(result, replay=line(result)) for result in comparison.results])


def loaded_candidate(path: str, time_limit: float, *, isolated: bool) -> Contender:
    """Returns the candidate at a dotted path, in a process of its own or in this one."""
    return load_isolated(path, time_limit) if isolated else dataclasses.replace(load_candidate(path), time_limit=time_limit)


def _kinds(comparison: Comparison) -> list[tuple[str, ...]]:
    """Returns the kinds of failure of a comparison: each failure mode of conduct, and the first stage that differs or fails.

    Exceptions are of the same kind if their texts are equal except for numbers; only the first exception of a contender counts.
    """
    kinds: list[tuple[str, ...]] = []
    for result in comparison.results:
        name, findings = result.contender.name, result.findings
        raised = [f"{name} {re.sub(r'[0-9]+', '#', finding.what)[:80]}" for finding in findings if finding.quantity in RAISED]
        kinds += [(name, CONDUCT, finding.quantity) for finding in findings if finding.stage == CONDUCT and finding.quantity not in RAISED]
        computed = [finding for finding in findings if finding.stage != CONDUCT]
        if raised:
            kinds.append((name, "raises", raised[0]))
        elif computed:
            kinds.append((name, computed[0].stage))
    return kinds


def _raised(result: ContenderResult) -> bool:
    """Whether a contender raised instead of answering."""
    return any(finding.quantity in RAISED for finding in result.findings)


def _with_notes(result: ContenderResult, notes: Sequence[tuple[str, str]]) -> ContenderResult:
    """Returns the result with notes after its last finding."""
    judgements = list(result.judgements)
    at = max(n for n, judgement in enumerate(judgements) if judgement.finding is not None)
    finding = judgements[at].finding
    assert finding is not None
    judgements[at] = dataclasses.replace(judgements[at], finding=dataclasses.replace(finding, notes=(*finding.notes, *notes)))
    return dataclasses.replace(result, judgements=judgements)


def join(folder: RunFolder, path: Path) -> None:
    """Joins the rows of all processes of a run into one file; writes none if there are no rows."""
    if parts := folder.parts():
        write_frame(pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True), path)
