"""Candidate pairs of box and anchor, enumerated from each box's window per level (spec section 5.1).

The centres of a level form a regular grid, so the anchors strictly inside a box are a window of rows and columns. Nothing here ever has the
size (boxes x anchors).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.ragged import expand
from twinloss.spec import LossSpec


@dataclass(frozen=True)
class CandidatePairs:
    """Pairs of box (P,), an index into the ground truth, ascending, and anchor (P,), a column of its image, ascending within a box."""

    box: Tensor
    anchor: Tensor


def lengthen(corners: Tensor, shortest_side: float) -> Tensor:
    """Corners (n, 4) with every side shorter than ``shortest_side`` pixels lengthened to it about the centre (spec section 5.1)."""
    low, high = corners[:, :2], corners[:, 2:]
    centre, size = (low + high) / 2, high - low
    half = torch.where(size < shortest_side, torch.full_like(size, shortest_side), size) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def candidate_pairs(corners: Tensor, pyramid: Pyramid, spec: LossSpec) -> CandidatePairs:
    """Every pair whose anchor's centre lies strictly inside the box (spec section 5.1).

    Args:
        corners: (n, 4) ground truth in pixels.
        pyramid: the grids.
        spec: gives the shortest side and ε_a.
    """
    window = lengthen(corners, spec.shortest_side)
    firsts, counts = zip(*(_level_window(window, pyramid, level, spec.assign_eps) for level in range(len(pyramid.grids))), strict=True)
    levels = len(pyramid.grids)
    first, count = torch.stack(firsts, 1).view(-1, 2), torch.stack(counts, 1).view(-1, 2)  # (n·levels, 2) as (x, y)

    # Rows of cells first, then the cells of each row: no division by the width is needed to tell x from y.
    window_of_row, y = expand(torch.where(count[:, 0] > 0, count[:, 1], 0))
    level_of_row = window_of_row % levels
    columns = corners.new_tensor([c for _, c in pyramid.grids]).to(torch.int64)
    offsets = corners.new_tensor(pyramid.offsets, dtype=torch.int64)
    first_anchor = offsets[level_of_row] + (first[window_of_row, 1] + y) * columns[level_of_row] + first[window_of_row, 0]
    row, x = expand(count[window_of_row, 0])
    return CandidatePairs(box=window_of_row[row] // levels, anchor=first_anchor[row] + x)


def _level_window(corners: Tensor, pyramid: Pyramid, level: int, eps: float) -> tuple[Tensor, Tensor]:
    """First cell (n, 2) and number of cells (n, 2) per axis of the centres strictly inside, on one level."""
    rows, columns = pyramid.grids[level]
    stride = pyramid.strides[level]
    size = corners.new_tensor([columns, rows])
    low, high = corners[:, :2], corners[:, 2:]
    first = (low / stride - 0.5).floor().clamp(corners.new_zeros(2), size)
    last = (high / stride - 0.5).ceil().clamp(corners.new_tensor([-1, -1]), size - 1)
    # The quotient may round across a centre, so the definition's own test decides at both ends; two steps are more than rounding can miss.
    for _ in range(2):
        first = torch.where((first + 0.5) * stride - low > eps, first, first + 1)
        last = torch.where(high - (last + 0.5) * stride > eps, last, last - 1)
    return first.to(torch.int64), (last - first + 1).clamp(min=0).to(torch.int64)
