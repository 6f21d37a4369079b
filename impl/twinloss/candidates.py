"""Candidate pairs of box and anchor, enumerated from each box's window per level (spec section 5.1).

The centres of a level form a regular grid, so the anchors strictly inside a box are a window of rows and columns. Nothing here ever has the
size (boxes x anchors).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
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


@dataclass(frozen=True)
class Windows:
    """Cells inside each box on each level: first cell and number of cells, both (n, L, 2) as (x, y)."""

    first: Tensor
    count: Tensor

    @property
    def sizes(self) -> Tensor:
        """(n,) candidate anchors of each box."""
        return self.count.prod(-1).sum(-1)


def lengthen(corners: Tensor, below: float, shortest_side: float) -> Tensor:
    """Corners (n, 4) with every side shorter than ``below`` pixels lengthened to ``shortest_side`` about the centre (spec section 5.1)."""
    low, high = corners[:, :2], corners[:, 2:]
    centre, size = (low + high) / 2, high - low
    half = torch.where(size < below, torch.full_like(size, shortest_side), size) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def windows(corners: Tensor, pyramid: Pyramid, spec: LossSpec) -> Windows:
    """Windows of the anchors whose centres lie strictly inside each box (spec section 5.1).

    Args:
        corners: (n, 4) ground truth in pixels.
        pyramid: the grids.
        spec: says which sides are short, what they become, and ε_a.
    """
    low, high = lengthen(corners, spec.lengthened_below, spec.shortest_side).unsqueeze(1).split(2, dim=-1)  # (n, 1, 2)
    stride = corners.new_tensor(pyramid.strides).unsqueeze(-1)  # (L, 1)
    size = corners.new_tensor(pyramid.grids).flip(-1)  # (L, 2) as (columns, rows)
    zero = torch.zeros_like(size)
    first = (low / stride - 0.5).floor().clamp(zero, size)
    last = (high / stride - 0.5).ceil().clamp(zero - 1, size - 1)
    # The quotient may round across a centre, so the definition's own test decides at both ends; two steps are more than rounding can miss.
    for _ in range(2):
        first = torch.where((first + 0.5) * stride - low > spec.assign_eps, first, first + 1)
        last = torch.where(high - (last + 0.5) * stride > spec.assign_eps, last, last - 1)
    return Windows(first.to(torch.int64), (last - first + 1).clamp(min=0).to(torch.int64))


def pairs_in(windows: Windows, pyramid: Pyramid) -> CandidatePairs:
    """Every pair of the windows. Rows of cells first, then the cells of each row: no division is needed to tell x from y."""
    levels = len(pyramid.grids)
    first, count = windows.first.view(-1, 2), windows.count.view(-1, 2)
    window, y = expand(torch.where(count[:, 0] > 0, count[:, 1], 0))
    grids = count.new_tensor([(columns, offset) for (_, columns), offset in zip(pyramid.grids, pyramid.offsets, strict=True)])
    columns, offset = grids[window % levels].unbind(-1)
    first_anchor = offset + (first[window, 1] + y) * columns + first[window, 0]
    row, x = expand(count[window, 0])
    return CandidatePairs(box=(window // levels).index_select(0, row), anchor=first_anchor.index_select(0, row) + x)


def candidate_pairs(corners: Tensor, pyramid: Pyramid, spec: LossSpec) -> CandidatePairs:
    """Every pair whose anchor's centre lies strictly inside the box of corners (n, 4) in pixels (spec section 5.1)."""
    return pairs_in(windows(corners, pyramid, spec), pyramid)


def in_slices(windows: Windows, pyramid: Pyramid, most_pairs: int) -> Iterator[CandidatePairs]:
    """The pairs of whole boxes in turn, at most ``most_pairs`` at once (more only where a single box has more)."""
    ends = windows.sizes.cumsum(0).tolist()
    start = 0
    while start < len(ends):
        done = ends[start - 1] if start else 0
        end = max(start + 1, bisect_right(ends, done + most_pairs))
        pairs = pairs_in(Windows(windows.first[start:end], windows.count[start:end]), pyramid)
        yield CandidatePairs(pairs.box + start, pairs.anchor)
        start = end
