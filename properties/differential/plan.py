"""The plan of a differential run: number and kind of batches, dtypes and contenders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from oracle.cases.case import Setting
from oracle.comparison.compare import STAGES

SHARE = 125
"""Generated batches per test; small enough that all workers finish at about the same time."""

REAL_SHARE = 4
"""Real batches per test."""

OURS = ("twin", "twin-torch", "reference")
"""Contenders in the working dtypes. On a CPU "twin" runs the native kernels and "twin-torch" the torch backend."""

DEFINITION = Setting("float64")
ARITHMETIC = (
    (Setting("float32"), "tiny", 500),
    (Setting("float32"), "medium", 125),
    (Setting("float16"), "tiny", 200),
    (Setting("bfloat16"), "tiny", 200),
    (Setting("float32", autocast="bfloat16"), "tiny", 125),
    (Setting("bfloat16", autocast="bfloat16"), "tiny", 50),
    (Setting("float16", autocast="float16"), "tiny", 50),
)
"""Setting, size profile and number of batches in the working dtypes, which check the arithmetic."""

DEFINITION_BATCHES = (("tiny", 1000), ("medium", 250))
"""Size profile and number of batches in float64, which check the definition; 5,000 batches with ``--scale 4``."""

REAL: tuple[tuple[str, str, int, int, tuple[Setting, ...]], ...] = (
    ("coco", "letterbox", 4, 64, (Setting("float32"),)),
    ("coco", "letterbox", 16, 8, (Setting("float32"), Setting("float16"))),
    ("coco", "letterbox", 4, 16, (Setting("bfloat16"), Setting("float32", autocast="bfloat16"))),
    ("coco", "mosaic", 4, 32, (Setting("float32"),)),
    ("coco", "rect", 4, 16, (Setting("float32"),)),
    ("gwhd", "letterbox", 4, 32, (Setting("float32"),)),
    ("gwhd", "crowded", 4, 8, (Setting("float32"), Setting("float16"))),
    ("bccd", "letterbox", 4, 32, (Setting("float32"),)),
)
"""Real boxes: workload, layout, images per batch, number of batches, settings."""


@dataclass(frozen=True)
class GeneratedShare:
    """Generated batches of one test: ``examples`` batches of a size profile, the ``index``-th share of their kind."""

    setting: Setting
    profile: str
    examples: int
    index: int
    contenders: tuple[str, ...]
    stages: tuple[str, ...] = STAGES

    @property
    def name(self) -> str:
        """The test's name."""
        return f"{self.setting.name}-{self.setting.device}-{self.profile}-{self.index}"


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

    @property
    def name(self) -> str:
        """The test's name."""
        dtypes = "+".join(setting.name for setting in self.settings)
        pack = Path(self.pack).name
        if self.pack.startswith("labels:") and self.seed:  # folders of labels often have the same name
            pack += f"#{self.seed + 1}"
        return f"{pack}-{self.layout}-{self.batch}x{self.count}-{dtypes}-{self.settings[0].device}-{self.start}"


def devices() -> tuple[str, ...]:
    """Returns the devices to compare on: the CPU, and CUDA if there is a GPU."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def generated(scale: float, candidates: Sequence[str]) -> list[GeneratedShare]:
    """Returns all generated shares; ``scale`` multiplies the numbers of batches. Candidates replace our own contenders."""
    tied = tuple(candidates) or ("twin", "twin-reference-ties", "reference")
    plain = tuple(candidates) or OURS
    shares = []
    for device in devices():
        # The reference computes in float64 on the CPU only; on other devices some of its tensors stay float32.
        definition = [(DEFINITION, profile, count, tied) for profile, count in DEFINITION_BATCHES] if device == "cpu" else []
        arithmetic = [(Setting(s.dtype, s.autocast, device), profile, count, plain) for s, profile, count in ARITHMETIC]
        for setting, profile, count, contenders in definition + arithmetic:
            shares += _split(setting, profile, max(1, round(count * scale)), contenders)
    return shares


def _split(setting: Setting, profile: str, count: int, contenders: tuple[str, ...]) -> list[GeneratedShare]:
    return [
        GeneratedShare(setting, profile, min(SHARE, count - start), index, contenders) for index, start in enumerate(range(0, count, SHARE))
    ]


def real(scale: float, candidates: Sequence[str], labels: Sequence[str] = ()) -> list[RealShare]:
    """Returns the real shares: those of the user's label files if there are any, else those of :data:`REAL`."""
    contenders = tuple(candidates) or OURS
    rows: list[tuple[str, str, int, int, tuple[Setting, ...]]] = [
        (f"labels:{path}", "letterbox", 4, 32, (Setting("float32"),)) for path in labels
    ] or list(REAL)
    shares = []
    for device in devices():
        for seed, (pack, layout, batch, count, settings) in enumerate(rows):
            placed = tuple(Setting(s.dtype, s.autocast, device) for s in settings)
            total = max(1, round(count * scale))
            shares += [
                RealShare(pack, layout, batch, seed, start, min(REAL_SHARE, total - start), placed, contenders)
                for start in range(0, total, REAL_SHARE)
            ]
    return shares
