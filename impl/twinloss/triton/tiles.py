"""How much of the work one program takes, and with how many warps: a table, so that no user's first step waits for a search.

The values follow from counting: 16 bytes a thread and load, registers below the point where they spill (the ahead-of-time compilation shows
that), and enough programs to fill a device. They have not been tuned by measurement on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """Elements, anchors or slots that a program takes, and its warps."""

    size: int
    warps: int


@dataclass(frozen=True)
class ScanTile:
    """The scan has two kinds of program: candidates a step of a box's walk, logits of a softplus program, and the warps of both."""

    candidates: int
    logits: int
    warps: int


DECODE = Tile(size=256, warps=4)
DENSE_GRADIENT = Tile(size=4096, warps=8)
FINISH = Tile(size=1024, warps=4)
# Atomics whose result is used want a thread per slot: 32 x warps = size.
RESOLVE = Tile(size=128, warps=4)
CUT = Tile(size=128, warps=4)
# A thread per slot keeps a side's bins in registers; a warp alone needs no barriers.
HELD = Tile(size=32, warps=1)
HELD_GRADIENT = Tile(size=32, warps=1)

_FEW_BOXES = ScanTile(candidates=512, logits=4096, warps=8)
_MANY_BOXES = ScanTile(candidates=256, logits=2048, warps=4)
# Up to here the largest box decides how long the scan takes, beyond it the number of boxes does, most of them small.
MOST_FEW_BOXES = 2048


def scan_tile(rows: int) -> ScanTile:
    """The scan's tile for so many ground-truth rows."""
    return _FEW_BOXES if rows <= MOST_FEW_BOXES else _MANY_BOXES
