"""Runs the differential batches on every planted fault, a few batches of each setting in turn, until each fault is caught.

All faults that are not yet caught get the same batch, so that the definition and the reference are computed once for all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, seed, settings

from oracle.cases.case import Case, Setting
from oracle.comparison.compare import ContenderResult, compare
from oracle.comparison.registry import shipped
from oracle.contract.contender import Contender
from oracle.contract.verdict import Finding, Judgement, Verdict
from oracle.tolerance.allowed_assignments import KINDS
from oracle.tools.options import DETECT
from oracle.tools.progress import ProgressFile
from properties.differential import plan
from properties.differential.shrink import shrunk
from properties.selfcheck.planted_faults.fault import Fault
from properties.strategies import PROFILES
from properties.tasks import TASKS

STAGES, END_TO_END = "stages", "end to end"

TURN = 25
"""Batches of one setting before the next setting follows."""

SHRINK_SECONDS = 3.0
"""Seconds spent on shrinking a batch that shows a fault."""

SEPARATOR = "; "
"""Between the properties of a row."""

SOUND = "the twin itself"
"""Name of the sound twin, which is compared too: a difference there is a false alarm, and its batch catches no fault."""


class PlantingError(RuntimeError):
    """A fault raises an error instead of computing a wrong result: the twin has changed where the fault was planted."""


@dataclass(frozen=True)
class FaultResult:
    """How a fault was caught, or that it was not; a row of the report.

    Attributes:
        fault, violates, section: from the catalogue.
        mode: :data:`STAGES` if the fault shows its stages, :data:`END_TO_END` if it shows the loss alone.
        caught: whether it was caught.
        stage, quantity: the first difference.
        setting, profile, case: the batch that caught it.
        examples: number of batches compared.
        seconds: time of the fault's own computation and judgement, without the definition and the reference.
        images, boxes, levels: size of the smallest batch found that shows the fault.
        detail: the finding as text.
        task: from the catalogue.
        found_by: every property, as "stage: quantity", that differs on the batch that caught it, separated by semicolons.
        looked: of the sound twin alone: every property that was looked at on any batch.
    """

    fault: str
    violates: str
    section: str
    mode: str
    caught: bool
    stage: str = ""
    quantity: str = ""
    setting: str = ""
    profile: str = ""
    case: str = ""
    examples: int = 0
    seconds: float = 0.0
    images: int = 0
    boxes: int = 0
    levels: int = 0
    detail: str = ""
    task: str = DETECT
    found_by: str = ""
    looked: str = ""


@dataclass
class FaultUnderTest:
    """A fault as a contender, and its result until now."""

    contender: Contender
    result: FaultResult

    def record(self, result: ContenderResult, case: Case, setting: Setting, profile: str) -> None:
        """Add one comparison to the result.

        Raises:
            PlantingError: the fault raised an error.
        """
        self.result = replace(self.result, examples=self.result.examples + 1, seconds=self.result.seconds + result.seconds)
        if self.result.fault == SOUND:
            looked = [one for one in result.judgements if one.verdict is not Verdict.NOT_COMPARED and not _counts_decisions(one)]
            self.result = replace(self.result, looked=_properties(self.result.looked, looked))
        if result.verdict is not Verdict.DIFFER:
            return
        first = result.findings[0]
        if first.quantity == "call":
            raise PlantingError(f"the fault {self.result.fault!r} does not run, plant it anew: {first.what}")
        self.result = replace(
            self.result,
            caught=True,
            stage=first.stage,
            quantity=first.quantity,
            setting=setting.name,
            profile=profile,
            case=case.digest,
            detail="\n".join(first.lines()),
            found_by=_properties("", result.findings),
        )
        self._note_size(case)

    def shrink(self, case: Case, setting: Setting, sound: Contender) -> None:
        """Look for a smaller batch that shows the fault and no difference of the sound twin."""
        reference = shipped(self.result.task)["reference"]

        def fails(smaller: Case) -> bool:
            try:
                faulty, right = compare(smaller, setting, [self.contender, sound], reference).results
            except ValueError:  # A shrunk batch can be invalid.
                return False
            return faulty.verdict is Verdict.DIFFER and faulty.findings[0].quantity != "call" and right.verdict is not Verdict.DIFFER

        self._note_size(shrunk(case, fails, SHRINK_SECONDS))

    def _note_size(self, case: Case) -> None:
        self.result = replace(self.result, images=case.batch_size, boxes=len(case.boxes), levels=len(case.spec.strides))


def _counts_decisions(judgement: Judgement) -> bool:
    """Whether a judgement counts the open decisions of a kind, such as "kth place", and can find nothing."""
    return judgement.stage == "assign" and judgement.quantity in KINDS


def _properties(known: str, more: Sequence[Finding | Judgement]) -> str:
    """Returns the properties of findings or judgements after those known, each once."""
    return SEPARATOR.join(dict.fromkeys([*filter(None, known.split(SEPARATOR)), *(f"{one.stage}: {one.quantity}" for one in more)]))


def under_test(faults: Sequence[Fault], task: str = DETECT) -> list[FaultUnderTest]:
    """Returns each fault and the sound twin of a task twice: with stages, and with the loss alone."""
    sound = Fault(SOUND, "", "", task=task)
    found = []
    for fault in (*faults, sound):
        for mode, contender in ((STAGES, fault.contender()), (END_TO_END, fault.loss_only())):
            result = FaultResult(fault.name, fault.violates, fault.section, mode, caught=False, task=task)
            found.append(FaultUnderTest(contender, result))
    return found


def shares(scale: float, task: str = DETECT) -> Iterator[plan.GeneratedShare]:
    """Yields the default run's batches of a task, :data:`TURN` of each setting in turn."""
    whole = [share for share in plan.generated(scale, ["faults"], [task]) if share.setting.device == "cpu"]
    left = {(share.setting, share.profile): 0 for share in whole}
    for share in whole:
        left[share.setting, share.profile] += share.examples
    turn = 0
    while any(left.values()):
        for (setting, profile), count in left.items():
            if count:
                yield plan.GeneratedShare(setting, profile, min(TURN, count), turn, (), task)
                left[setting, profile] -= min(TURN, count)
        turn += 1


def run_catalogue(
    faults: Sequence[Fault], batches: Iterable[plan.GeneratedShare], run_seed: int = 0, notes: ProgressFile | None = None
) -> list[FaultResult]:
    """Returns the result of each fault and of the sound twin, which counts as caught when it differs.

    Args:
        faults: entries of the catalogue, all of one task.
        batches: settings and profiles in the order in which batches are drawn, as :func:`shares` yields them.
        run_seed: seed of the batches.
        notes: file that receives each batch and each caught fault.

    Raises:
        PlantingError: a fault raises an error.
    """
    (task,) = {fault.task for fault in faults} or {DETECT}
    faults_under_test = under_test(faults, task)
    for share in batches:
        if all(fault.result.caught or fault.result.fault == SOUND for fault in faults_under_test):
            break
        _run_share(share, faults_under_test, run_seed, notes)
    return [fault.result for fault in faults_under_test]


def kind_of(share: plan.GeneratedShare) -> str:
    """Returns the kind of batch for the time estimate; batches of one kind take about the same time."""
    return f"{share.task} {share.setting.name} {share.profile}"


def _run_share(share: plan.GeneratedShare, faults_under_test: Sequence[FaultUnderTest], run_seed: int, notes: ProgressFile | None) -> None:
    task, reference = TASKS[share.task], shipped(share.task)["reference"]
    sound = {fault.result.mode: fault.contender for fault in faults_under_test if fault.result.fault == SOUND}

    @seed(_seed_of(run_seed, share))
    @settings(max_examples=share.examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(task.cases(PROFILES[share.profile]))
    def examine(case: Case) -> None:
        open_faults = {fault.contender.name: fault for fault in faults_under_test if fault.result.fault == SOUND or not fault.result.caught}
        if all(fault.result.fault == SOUND for fault in open_faults.values()):
            return
        contenders = [fault.contender for fault in open_faults.values()]
        result = compare(case, share.setting, contenders, reference, task.stages).results
        caught: list[tuple[str, str]] = []
        alarms = {open_faults[one.contender.name].result.mode for one in result if _is_alarm(open_faults[one.contender.name], one)}
        for one in result:
            fault = open_faults[one.contender.name]
            if fault.result.caught or (fault.result.mode in alarms and fault.result.fault != SOUND):
                continue
            fault.record(one, case, share.setting, share.profile)
            if fault.result.caught:
                fault.shrink(case, share.setting, sound[fault.result.mode])
                caught.append((fault.result.mode, fault.result.stage))
        if notes is not None:
            notes.done(kind_of(share), caught)

    examine()


def _is_alarm(fault: FaultUnderTest, result: ContenderResult) -> bool:
    return fault.result.fault == SOUND and result.verdict is Verdict.DIFFER


def _seed_of(run_seed: int, share: plan.GeneratedShare) -> int:
    """Returns a seed that is the same in every process, unlike Python's hash of text."""
    task = "" if share.task == DETECT else f"{share.task} "
    return zlib.crc32(f"{run_seed} {task}{share.profile} {share.setting.name} {share.index}".encode())
