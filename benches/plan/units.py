"""The plan of a run: units, each one batch in one setting on one heap, and how many samples of each are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benches.plan.contenders import AUTO_TWIN, NATIVE_TWIN, REFERENCE, TRITON_TWIN, TWIN, BenchContender
from benches.plan.malloc_settings import Heap
from benches.plan.sweeps import SWEEPS, Point
from benches.plan.workloads import WORKLOADS, Workload
from oracle.cases.case import Setting
from oracle.tools.options import DETECT, TASKS

Extent = Literal["quick", "default", "full"]

SINGLE = Setting()
LOW = (Setting("bfloat16"), Setting("bfloat16", "bfloat16"), Setting("float16"), Setting("float16", "float16"))
CROWDED = ("coco", "coco-mosaic", "gwhd", "boxes-300", "boxes-1000", "xview", "batch-1", "masks", "oriented", "people", "people-26-flow")
"""Workloads that a quick run measures too, and that every other run measures on both heaps."""
LOW_OF = {"coco": LOW, "gwhd": LOW[1:2], "masks": LOW[1:2], "oriented": LOW[1:2], "people": LOW[1:2]}
"""Settings of half precision in a default run, by workload."""
STAGED = ("coco", "gwhd", "boxes-300")


@dataclass(frozen=True)
class Sampling:
    """How many samples are taken of a unit.

    Attributes:
        processes: processes for each unit; the interval of a ratio comes from the spread between them.
        seconds: time of sampling for each unit and process.
        min_rounds, max_rounds: bounds on the rounds for each unit and process.
    """

    processes: int
    seconds: float
    min_rounds: int = 5
    max_rounds: int = 40


SAMPLINGS: dict[Extent, Sampling] = {"quick": Sampling(3, 0.5, 3), "default": Sampling(4, 1.5), "full": Sampling(8, 4.0)}


@dataclass(frozen=True)
class Unit:
    """One batch in one setting on one heap, with the contenders that are called on it in turns.

    Attributes:
        stages: whether the stages are timed as well.
        point: the size on a sweep, for the units of sweeps.
    """

    workload: Workload
    setting: Setting
    heap: Heap
    contenders: tuple[BenchContender, ...]
    sampling: Sampling
    stages: bool = False
    point: Point | None = None

    @property
    def name(self) -> str:
        """Name that ``-k`` matches."""
        return "-".join(filter(None, [self.workload.name, self.setting.name, self.heap if self.setting.device == "cpu" else ""]))


def units(
    extent: Extent,
    contenders: Sequence[BenchContender],
    labelled: Sequence[Workload] = (),
    device: str = "cpu",
    tasks: Sequence[str] = TASKS,
) -> Iterator[Unit]:
    """Yields the units of a run in the order in which they are measured.

    Args:
        extent: ``quick`` measures float32 on a steady heap only; ``full`` crosses workloads, settings and heaps.
        contenders: the contenders, including the baseline.
        labelled: a user's workloads, measured in place of all others.
        device: device of the tensors.
        tasks: tasks whose workloads are measured.
    """
    sampling = SAMPLINGS[extent]
    for workload in labelled or [one for one in WORKLOADS.values() if one.task in tasks]:
        name, mine = workload.name, _contenders(workload.task, contenders)
        eager = tuple(contender for contender in mine if not contender.compiled)
        first = mine if labelled or name == "coco" else eager
        unit = Unit(workload, replace(SINGLE, device=device), "steady", first, sampling, stages=bool(labelled) or name in STAGED)
        if extent != "quick" or labelled or name in CROWDED:
            yield unit
            # Compiling takes a minute for each dtype.
            low = replace(unit, stages=False, contenders=first if labelled or extent == "full" else eager)
            yield from (replace(low, setting=replace(setting, device=device)) for setting in _low_settings(extent, name, bool(labelled)))
            if device == "cpu" and extent != "quick" and (labelled or extent == "full" or name in CROWDED):
                yield replace(
                    unit, heap="default", contenders=eager, stages=False, sampling=replace(sampling, processes=min(sampling.processes, 3))
                )
    if not labelled and extent != "quick" and DETECT in tasks:
        ours = tuple(contender for contender in contenders if contender.program in {REFERENCE, TWIN} and not contender.compiled)
        for point in SWEEPS:
            fewer = replace(sampling, processes=3, seconds=0.4, min_rounds=3)
            yield Unit(point.workload, replace(SINGLE, device=device), "steady", ours, fewer, point=point)


def _contenders(task: str, contenders: Sequence[BenchContender]) -> tuple[BenchContender, ...]:
    """Returns the contenders of a task: of tasks that no backend serves whole, the twin's own choice in place of a backend by name."""
    if task == DETECT:
        return tuple(contenders)
    chosen = (AUTO_TWIN if contender in (NATIVE_TWIN, TRITON_TWIN) else contender for contender in contenders)
    return tuple(contender for contender in chosen if not contender.backend.endswith("+graph") and not contender.compiled)


def _low_settings(extent: Extent, name: str, labelled: bool) -> Sequence[Setting]:
    if extent == "quick":
        return ()
    return LOW if labelled or extent == "full" else LOW_OF.get(name, ())
