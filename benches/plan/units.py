"""What a run measures: units, each one batch in one setting on one heap, and how often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from benches.plan.contenders import REFERENCE, TWIN, Entry
from benches.plan.malloc_settings import Heap
from benches.plan.sweeps import SWEEPS, Point
from benches.plan.workloads import WORKLOADS, Workload
from oracle.cases.case import Setting

Extent = Literal["quick", "default", "full"]

SINGLE = Setting()
LOW = (Setting("bfloat16"), Setting("bfloat16", "bfloat16"), Setting("float16"), Setting("float16", "float16"))
CROWDED = ("coco", "coco-mosaic", "gwhd", "boxes-300", "boxes-1000", "xview", "batch-1")
STAGED = ("coco", "gwhd", "boxes-300")


@dataclass(frozen=True)
class Effort:
    """How much a run spends.

    Attributes:
        processes: for each unit; the interval of a ratio comes from the spread between them.
        seconds: of samples for each unit and process.
        least, most: rounds for each unit and process.
    """

    processes: int
    seconds: float
    least: int = 5
    most: int = 40


EFFORTS: dict[Extent, Effort] = {"quick": Effort(3, 0.5, 3), "default": Effort(4, 1.5), "full": Effort(8, 4.0)}


@dataclass(frozen=True)
class Unit:
    """One batch in one setting on one heap, with the contenders that are called on it in turn.

    Attributes:
        stages: whether the stages are timed, too.
        point: the place on a sweep, where the unit is one of a sweep's.
    """

    workload: Workload
    setting: Setting
    heap: Heap
    entries: tuple[Entry, ...]
    effort: Effort
    stages: bool = False
    point: Point | None = None

    @property
    def name(self) -> str:
        """What ``-k`` selects by."""
        return "-".join(filter(None, [self.workload.name, self.setting.name, self.heap if self.setting.device == "cpu" else ""]))


def units(extent: Extent, entries: Sequence[Entry], own: Workload | None = None, device: str = "cpu") -> Iterator[Unit]:
    """The units of a run in the order in which they are measured.

    Args:
        extent: ``quick`` takes float32 on a steady heap alone; ``full`` crosses workloads, settings and heaps.
        entries: the contenders, the baseline among them.
        own: a user's workload; then it is the only one.
        device: where to run.
    """
    effort, eager = EFFORTS[extent], tuple(entry for entry in entries if not entry.compiled)
    workloads = {own.name: own} if own else WORKLOADS
    for name, workload in workloads.items():
        first = tuple(entries) if own or name == "coco" else eager
        unit = Unit(workload, replace(SINGLE, device=device), "steady", first, effort, stages=bool(own) or name in STAGED)
        if extent != "quick" or own or name in CROWDED:
            yield unit
            low = replace(unit, stages=False, entries=first if own or extent == "full" else eager)  # compiling takes a minute for each
            yield from (replace(low, setting=replace(setting, device=device)) for setting in _low_settings(extent, name, own))
            if device == "cpu" and extent != "quick" and (own or extent == "full" or name in CROWDED):
                yield replace(unit, heap="default", entries=eager, stages=False, effort=replace(effort, processes=min(effort.processes, 3)))
    if not own and extent != "quick":
        ours = tuple(entry for entry in eager if entry.contender in {REFERENCE, TWIN})
        for point in SWEEPS:
            fewer = replace(effort, processes=3, seconds=0.4, least=3)
            yield Unit(point.workload, replace(SINGLE, device=device), "steady", ours, fewer, point=point)


def _low_settings(extent: Extent, name: str, own: Workload | None) -> Sequence[Setting]:
    if extent == "quick":
        return ()
    return LOW if own or extent == "full" or name == "coco" else LOW[1:2] if name == "gwhd" else ()
