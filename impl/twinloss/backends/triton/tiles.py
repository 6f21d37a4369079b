"""Elements and warps of one program of each kernel: a fixed table, so that no user's first step waits for a search.

The values follow from counting: 16 bytes per thread and load, registers below the number at which they spill (known from compiling ahead of
time), and enough programs to fill a device. Those of candidates and class logits were measured on an H200 (float16 logits, 130 to 4,800
boxes, 16 to 128 images); there the others were as fast as their neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """Elements, anchors or slots that a program takes, and its warps."""

    size: int
    warps: int


@dataclass(frozen=True)
class GridTile:
    """Rows and columns of pixels that a program takes, and its warps."""

    rows: int
    columns: int
    warps: int


@dataclass(frozen=True)
class CandidatesTile:
    """How the candidates of a row are divided in :mod:`~twinloss.backends.triton.candidates_and_softplus`.

    Attributes:
        candidates: candidates that a program takes at a time.
        parts: programs that share the candidates of a row.
    """

    candidates: int
    parts: int


DECODE = Tile(size=256, warps=4)
DENSE_GRADIENT = Tile(size=4096, warps=8)
REDUCE_TERMS = Tile(size=1024, warps=4)
# Atomics whose result is used need a thread per slot: 32 x warps = size.
RESOLVE = Tile(size=128, warps=4)
SECOND_TOPK = Tile(size=128, warps=4)
# A thread per slot keeps the bins of a side in registers; a single warp needs no barriers.
HELD_TERMS = Tile(size=32, warps=1)
HELD_TERMS_GRADIENT = Tile(size=32, warps=1)

KEYPOINTS = Tile(size=32, warps=1)

HELD_CROPS = Tile(size=128, warps=4)
# A thread keeps all prototypes of its pixels in registers; a row of a tile fills memory sectors, and a tile meets few boxes.
MASK_TERM = GridTile(rows=2, columns=16, warps=1)
MASK_PROTOTYPES_GRADIENT = GridTile(rows=4, columns=16, warps=1)
MASK_PROTOTYPES_GRADIENT_RESIZED = GridTile(rows=2, columns=16, warps=1)  # where masks have another grid
MASK_COEFFICIENTS_GRADIENT = Tile(size=64, warps=4)
PRESELECT = Tile(size=512, warps=8)
TRUE_MASK_SIZES = Tile(size=1024, warps=4)
MASK_OVERLAP = Tile(size=128, warps=4)
CLASS_MAP = Tile(size=256, warps=4)
SEMANTIC_SUMS = Tile(size=512, warps=4)
SEMANTIC_GRADIENT = Tile(size=1024, warps=4)

MERGE_WARPS = 1
# Rounding depends on these two, and rows that pad the batch shall change no bit: they are the same for any number of boxes. A program that
# picks candidates has as many warps as one that sums softplus, and a single one needs no barriers.
SOFTPLUS = Tile(size=2048, warps=1)
# With few boxes the largest one determines the time, so candidates are divided more. With many boxes, most are small.
FEW_BOXES = CandidatesTile(candidates=64, parts=16)
FEW_BOXES_FEW_ANCHORS = CandidatesTile(candidates=64, parts=1)
MANY_BOXES = CandidatesTile(candidates=64, parts=4)
MOST_FEW_BOXES = 512
MOST_FEW_ANCHORS = 2048


def candidates_tile(rows: int, anchors: int) -> CandidatesTile:
    """The sizes for N ``rows`` of ground truth and A ``anchors`` in an image."""
    if rows > MOST_FEW_BOXES:
        return MANY_BOXES
    return FEW_BOXES if anchors > MOST_FEW_ANCHORS else FEW_BOXES_FEW_ANCHORS
