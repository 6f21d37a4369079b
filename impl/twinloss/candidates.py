"""Candidate pairs of box and anchor, enumerated from each box's window per level (spec section 5.1).

The centres of a level form a regular grid, so the anchors strictly inside a box are a window of rows and columns. No tensor has the size
(boxes x anchors).

Example: an image of 32 x 32 pixels has a 4 x 4 grid at stride 8 and a 2 x 2 grid at stride 16. The box with x from 5 to 21 and y from 9 to
30 contains, at stride 8, the centres 12 and 20 of columns 1 and 2, and the centres 12, 20 and 28 of rows 1 to 3: a window of 2 x 3 cells.
At stride 16 it contains the centre 8 of column 0 and the centre 24 of row 1: a window of 1 x 1.

>>> pyramid = Pyramid(grids=((4, 4), (2, 2)), strides=(8, 16))
>>> found = windows(torch.tensor([[5.0, 9.0, 21.0, 30.0]]), pyramid, LossSpec(num_classes=1, strides=(8, 16)))
>>> found.first.tolist(), found.count.tolist()  # as (x, y), one pair for each level
([[[1, 1], [0, 1]]], [[[2, 3], [1, 1]]])
>>> pairs_in(found, pyramid).anchor.tolist()  # row · 4 + column at stride 8, 16 + row · 2 + column at stride 16
[5, 6, 9, 10, 13, 14, 18]

Shape suffixes: n boxes, L levels, W = n·L windows, r rows of cells in all windows, P candidate pairs; 2 is (x, y).
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
    low_n2, high_n2 = corners[:, :2], corners[:, 2:]
    centre_n2, size_n2 = (low_n2 + high_n2) / 2, high_n2 - low_n2
    half_n2 = torch.where(size_n2 < below, torch.full_like(size_n2, shortest_side), size_n2) / 2
    return torch.cat([centre_n2 - half_n2, centre_n2 + half_n2], dim=-1)


def windows(corners: Tensor, pyramid: Pyramid, spec: LossSpec) -> Windows:
    """Windows of the anchors whose centres lie strictly inside each box (spec section 5.1).

    Args:
        corners: (n, 4) ground truth in pixels.
        pyramid: the grids.
        spec: the length below which sides are lengthened, the length that they get, and ε_a.
    """
    low_n12, high_n12 = lengthen(corners, spec.lengthened_below, spec.shortest_side).unsqueeze(1).split(2, dim=-1)
    stride_L1 = corners.new_tensor(pyramid.strides).unsqueeze(-1)
    size_L2 = corners.new_tensor(pyramid.grids).flip(-1)  # (columns, rows)
    zero_L2 = torch.zeros_like(size_L2)
    first_nL2 = (low_n12 / stride_L1 - 0.5).floor().clamp(zero_L2, size_L2)
    last_nL2 = (high_n12 / stride_L1 - 0.5).ceil().clamp(zero_L2 - 1, size_L2 - 1)
    # Rounding the quotient can be wrong by a cell, so the definition's own test decides at both ends; two steps correct more than that.
    for _ in range(2):
        first_nL2 = torch.where((first_nL2 + 0.5) * stride_L1 - low_n12 > spec.assign_eps, first_nL2, first_nL2 + 1)
        last_nL2 = torch.where(high_n12 - (last_nL2 + 0.5) * stride_L1 > spec.assign_eps, last_nL2, last_nL2 - 1)
    return Windows(first_nL2.to(torch.int64), (last_nL2 - first_nL2 + 1).clamp(min=0).to(torch.int64))


def pairs_in(windows: Windows, pyramid: Pyramid) -> CandidatePairs:
    """Every pair in the windows, listed by rows of cells and then by cells, which needs no division to find x and y."""
    levels = len(pyramid.grids)
    first_W2, count_W2 = windows.first.view(-1, 2), windows.count.view(-1, 2)
    window_r, y_r = expand(torch.where(count_W2[:, 0] > 0, count_W2[:, 1], 0))
    grids_L2 = count_W2.new_tensor([(columns, offset) for (_, columns), offset in zip(pyramid.grids, pyramid.offsets, strict=True)])
    columns_r, offset_r = grids_L2[window_r % levels].unbind(-1)
    first_anchor_r = offset_r + (first_W2[window_r, 1] + y_r) * columns_r + first_W2[window_r, 0]
    row_P, x_P = expand(count_W2[window_r, 0])
    return CandidatePairs(box=(window_r // levels).index_select(0, row_P), anchor=first_anchor_r.index_select(0, row_P) + x_P)


def candidate_pairs(corners: Tensor, pyramid: Pyramid, spec: LossSpec) -> CandidatePairs:
    """Every pair of a box and an anchor whose centre lies strictly inside the box (spec section 5.1).

    Args:
        corners: (n, 4) ground truth in pixels.
        pyramid: the grids.
        spec: the length below which sides are lengthened, the length that they get, and ε_a.

    Returns:
        The pairs, sorted by box, then anchor.

    Example:
        A box of 16 x 16 pixels in the corner of an image of 32 x 32 contains four centres of the grid at stride 8:

        >>> pyramid = Pyramid(grids=((4, 4),), strides=(8,))
        >>> pairs = candidate_pairs(torch.tensor([[0.0, 0.0, 16.0, 16.0]]), pyramid, LossSpec(num_classes=1, strides=(8,)))
        >>> pairs.box.tolist(), pairs.anchor.tolist()
        ([0, 0, 0, 0], [0, 1, 4, 5])
    """
    return pairs_in(windows(corners, pyramid, spec), pyramid)


def in_slices(windows: Windows, pyramid: Pyramid, most_pairs: int) -> Iterator[CandidatePairs]:
    """The pairs in slices of whole boxes, of at most ``most_pairs`` pairs each unless a single box has more."""
    ends = windows.sizes.cumsum(0).tolist()
    start = 0
    while start < len(ends):
        done = ends[start - 1] if start else 0
        end = max(start + 1, bisect_right(ends, done + most_pairs))
        pairs = pairs_in(Windows(windows.first[start:end], windows.count[start:end]), pyramid)
        yield CandidatePairs(pairs.box + start, pairs.anchor)
        start = end
