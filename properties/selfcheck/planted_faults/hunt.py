"""Every fault against the plan of the differential run, in small shares taken in turn, until each is caught.

One batch is put to all faults that are still at large, so that the definition and the reference are worked out once for all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, seed, settings

from oracle.cases.case import Case, Setting
from oracle.comparison.compare import Said, compare
from oracle.comparison.registry import shipped
from oracle.contract.contender import Contender
from oracle.contract.verdict import Verdict
from oracle.tools.progress import Notes
from properties.differential import plan
from properties.differential.shrink import shrunk
from properties.selfcheck.planted_faults.fault import Fault
from properties.strategies import PROFILES, cases

STAGES, END_TO_END = "stages", "end to end"

SHARE = 25
"""Batches before it is the turn of the next setting."""

SHRINK = 3.0
"""Seconds to look for a smaller batch that shows a fault."""

SOUND = "the twin itself"
"""Takes part beside the faults: what is found wrong with it is a false alarm, and a batch that gives one catches nobody."""


class PlantingError(RuntimeError):
    """A fault raises instead of computing something wrong: the twin has changed where it was planted."""


@dataclass(frozen=True)
class Catch:
    """How a fault was caught, or that it was not.

    Attributes:
        fault, violates, section: of the catalogue.
        mode: :data:`STAGES` where all stages are seen, :data:`END_TO_END` where the loss is all there is.
        caught: whether it was.
        stage, quantity: what differed first.
        setting, profile, case: where.
        examples: batches that it took.
        seconds: of computing and judging the fault, the definition and the reference apart.
        images, boxes, levels: of the smallest batch that was found to show it.
        detail: the finding as text.
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


@dataclass
class Suspect:
    """A fault at large, and what it has been put to so far."""

    contender: Contender
    catch: Catch

    def heard(self, said: Said, case: Case, setting: Setting, profile: str) -> None:
        """Note one comparison.

        Raises:
            PlantingError: the fault raised.
        """
        self.catch = replace(self.catch, examples=self.catch.examples + 1, seconds=self.catch.seconds + said.seconds)
        if said.verdict is not Verdict.DIFFER:
            return
        first = said.findings[0]
        if first.quantity == "call":
            raise PlantingError(f"the fault {self.catch.fault!r} does not run, plant it anew: {first.what}")
        self.catch = replace(
            self.catch,
            caught=True,
            stage=first.stage,
            quantity=first.quantity,
            setting=setting.name,
            profile=profile,
            case=case.digest,
            detail="\n".join(first.lines()),
        )
        self._extends_over(case)

    def shrink(self, case: Case, setting: Setting, sound: Contender) -> None:
        """Look for a smaller batch that shows the fault, and nothing of the sound twin."""
        reference = shipped()["reference"]

        def fails(smaller: Case) -> bool:
            try:
                faulty, right = compare(smaller, setting, [self.contender, sound], reference).said
            except ValueError:  # Some smaller batch is none.
                return False
            return faulty.verdict is Verdict.DIFFER and faulty.findings[0].quantity != "call" and right.verdict is not Verdict.DIFFER

        self._extends_over(shrunk(case, fails, SHRINK))

    def _extends_over(self, case: Case) -> None:
        self.catch = replace(self.catch, images=case.batch_size, boxes=len(case.boxes), levels=len(case.spec.strides))


def suspects(faults: Sequence[Fault]) -> list[Suspect]:
    """Each fault twice, with its stages and end to end, and the twin itself likewise."""
    sound = Fault(name=SOUND, violates="", section="")
    found = []
    for fault in (*faults, sound):
        for mode, contender in ((STAGES, fault.contender()), (END_TO_END, fault.blind())):
            found.append(Suspect(contender, Catch(fault.name, fault.violates, fault.section, mode, caught=False)))
    return found


def shares(scale: float) -> Iterator[plan.GeneratedShare]:
    """The default run's batches: a few of each setting in turn."""
    whole = [share for share in plan.generated(scale, ["faults"]) if share.setting.device == "cpu"]
    left = {(share.setting, share.profile): 0 for share in whole}
    for share in whole:
        left[share.setting, share.profile] += share.examples
    turn = 0
    while any(left.values()):
        for (setting, profile), count in left.items():
            if count:
                yield plan.GeneratedShare(setting, profile, min(SHARE, count), turn, ())
                left[setting, profile] -= min(SHARE, count)
        turn += 1


def hunt(faults: Sequence[Fault], batches: Iterable[plan.GeneratedShare], run_seed: int = 0, notes: Notes | None = None) -> list[Catch]:
    """What became of each fault, and of the twin itself: that one counts as caught when it was found wrong.

    Args:
        faults: of the catalogue.
        batches: in which order of settings and profiles they are drawn, as :func:`shares` gives them.
        run_seed: draws other batches.
        notes: of each batch and each catch.

    Raises:
        PlantingError: a fault raises.
    """
    everyone = suspects(faults)
    for share in batches:
        if all(suspect.catch.caught or suspect.catch.fault == SOUND for suspect in everyone):
            break
        _put(share, everyone, run_seed, notes)
    return [suspect.catch for suspect in everyone]


def kind(share: plan.GeneratedShare) -> str:
    """Batches of a kind take about as long as each other."""
    return f"{share.setting.name} {share.profile}"


def _put(share: plan.GeneratedShare, everyone: Sequence[Suspect], run_seed: int, notes: Notes | None) -> None:
    reference = shipped()["reference"]
    sound = {suspect.catch.mode: suspect.contender for suspect in everyone if suspect.catch.fault == SOUND}

    @seed(_number(run_seed, share))
    @settings(max_examples=share.examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases(PROFILES[share.profile]))
    def examine(case: Case) -> None:
        large = {suspect.contender.name: suspect for suspect in everyone if suspect.catch.fault == SOUND or not suspect.catch.caught}
        if all(suspect.catch.fault == SOUND for suspect in large.values()):
            return
        said = compare(case, share.setting, [suspect.contender for suspect in large.values()], reference).said
        caught: list[tuple[str, str]] = []
        alarms = {large[one.contender.name].catch.mode for one in said if _is_alarm(large[one.contender.name], one)}
        for one in said:
            suspect = large[one.contender.name]
            if suspect.catch.caught or (suspect.catch.mode in alarms and suspect.catch.fault != SOUND):
                continue
            suspect.heard(one, case, share.setting, share.profile)
            if suspect.catch.caught:
                suspect.shrink(case, share.setting, sound[suspect.catch.mode])
                caught.append((suspect.catch.mode, suspect.catch.stage))
        if notes is not None:
            notes.done(kind(share), caught)

    examine()


def _is_alarm(suspect: Suspect, said: Said) -> bool:
    return suspect.catch.fault == SOUND and said.verdict is Verdict.DIFFER


def _number(run_seed: int, share: plan.GeneratedShare) -> int:
    """The same in every process, which Python's own hash of text is not."""
    return zlib.crc32(f"{run_seed} {share.profile} {share.setting.name} {share.index}".encode())
