"""The plan of a differential run: the shares of generated and real batches of each task of :mod:`properties.tasks`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from oracle.cases.case import Setting
from oracle.cases.workloads.label_files import source_of
from oracle.tools.options import DETECT
from properties.tasks import PLAIN, TASKS, Real, Task, Variant

SHARE = 125
"""Generated batches per test; small enough that all workers finish at about the same time."""

REAL_SHARE = 4
"""Real batches per test."""

DEFINITION = Setting("float64")


@dataclass(frozen=True)
class GeneratedShare:
    """Generated batches of one test: ``examples`` batches of a size profile, the ``index``-th share of their kind."""

    setting: Setting
    profile: str
    examples: int
    index: int
    contenders: tuple[str, ...]
    task: str = DETECT

    @property
    def name(self) -> str:
        """The test's name, from which its batches are seeded."""
        return f"{_named(self.task)}{self.setting.name}-{self.setting.device}-{self.profile}-{self.index}"


@dataclass(frozen=True)
class RealShare:
    """Real batches of one test: ``count`` batches of the sequence that ``seed`` draws, from number ``start`` on."""

    pack: str
    layout: str
    batch: int
    seed: int
    start: int
    count: int
    settings: tuple[Setting, ...]
    contenders: tuple[str, ...]
    task: str = DETECT
    variant: Variant = PLAIN

    @property
    def name(self) -> str:
        """The test's name."""
        dtypes = "+".join(setting.name for setting in self.settings)
        pack = Path(self.pack).name
        if self.pack.startswith("labels") and self.seed:  # folders of labels often have the same name
            pack += f"#{self.seed + 1}"
        pack += f"-{self.variant.name}" if self.variant.name else ""
        return f"{_named(self.task)}{pack}-{self.layout}-{self.batch}x{self.count}-{dtypes}-{self.settings[0].device}-{self.start}"


@dataclass(frozen=True)
class SoakShare:
    """The soak of one candidate (:mod:`properties.differential.soak`)."""

    contender: str

    @property
    def name(self) -> str:
        """The test's name."""
        return self.contender


def _named(task: str) -> str:
    """Returns what a test's name begins with; nothing for detection, whose names and seeds are older than the other tasks."""
    return "" if task == DETECT else f"{task}-"


def devices() -> tuple[str, ...]:
    """Returns the devices to compare on: the CPU, and CUDA if there is a GPU."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def generated(scale: float, candidates: Sequence[str], tasks: Iterable[str] = (DETECT,)) -> list[GeneratedShare]:
    """Returns all generated shares; ``scale`` multiplies the numbers of batches. Candidates replace our own contenders."""
    return [share for task in tasks for device in devices() for share in _generated(TASKS[task], device, scale, tuple(candidates))]


def _generated(task: Task, device: str, scale: float, candidates: tuple[str, ...]) -> list[GeneratedShare]:
    # The reference computes in float64 on the CPU only; on other devices some of its tensors stay float32.
    definition = [(DEFINITION, profile, count, candidates or task.tied) for profile, count in task.definition] if device == "cpu" else []
    arithmetic = [(Setting(s.dtype, s.autocast, device), profile, count, candidates or task.plain) for s, profile, count in task.arithmetic]
    shares = []
    for setting, profile, count, contenders in definition + arithmetic:
        total = max(1, round(count * scale))
        for index, start in enumerate(range(0, total, SHARE)):
            shares.append(GeneratedShare(setting, profile, min(SHARE, total - start), index, contenders, task.name))
    return shares


def soaks(candidates: Sequence[str], tasks: Iterable[str] = (DETECT,)) -> list[SoakShare]:
    """Returns the soak of each candidate, which is made of batches of detection."""
    return [SoakShare(name) for name in candidates if DETECT in tasks]


def real(
    scale: float,
    candidates: Sequence[str],
    labels: Sequence[str] = (),
    tasks: Iterable[str] = (DETECT,),
    keypoints: tuple[int, int] | None = None,
) -> list[RealShare]:
    """Returns the real shares: those of the user's label files if there are any, else those of the tasks.

    ``keypoints`` is the shape of those of the label files, where the user gives it.
    """
    given = [Real(source_of(path, keypoints), "letterbox", 4, 32, (Setting("float32"),)) for path in labels]
    shares = []
    for task in map(TASKS.__getitem__, tasks):
        contenders = tuple(candidates) or task.plain
        for device in devices():
            for seed, (pack, layout, batch, count, settings, variant) in enumerate(given or task.real):
                placed = tuple(Setting(s.dtype, s.autocast, device) for s in settings)
                total = max(1, round(count * scale))
                shares += [
                    RealShare(pack, layout, batch, seed, start, min(REAL_SHARE, total - start), placed, contenders, task.name, variant)
                    for start in range(0, total, REAL_SHARE)
                ]
    return shares
