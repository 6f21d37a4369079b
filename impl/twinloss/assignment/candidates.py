"""Candidate pairs of box and anchor, enumerated from each box's window per level (spec section 5.1).

The centres of a level form a regular grid, so the anchors strictly inside an upright box are a window of rows and columns. Of other kinds
of boxes the window is an enclosing one, and each of its pairs is tested. No tensor has the size (boxes x anchors).

Example: an image of 32 x 32 pixels has a 4 x 4 grid at stride 8 and a 2 x 2 grid at stride 16. The box with x from 5 to 21 and y from 9 to
30 contains, at stride 8, the centres 12 and 20 of columns 1 and 2, and the centres 12, 20 and 28 of rows 1 to 3: a window of 2 x 3 cells.
At stride 16 it contains the centre 8 of column 0 and the centre 24 of row 1: a window of 1 x 1.

>>> pyramid = Pyramid(grids=((4, 4), (2, 2)), strides=(8, 16))
>>> found = UPRIGHT.windows(torch.tensor([[5.0, 9.0, 21.0, 30.0]]), pyramid, LossSpec(num_classes=1, strides=(8, 16)))
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

from twinloss.anchors import Pyramid, make_anchors
from twinloss.assignment.ragged import expand
from twinloss.geometry.base import Geometry, Windows
from twinloss.geometry.upright import UPRIGHT
from twinloss.spec import LossSpec

Anchors = tuple[Tensor, Tensor]
"""Centres (A, 2) in grid units and strides (A,) in pixels."""


@dataclass(frozen=True)
class CandidatePairs:
    """Pairs of box (P,), an index into the ground truth, ascending, and anchor (P,), a column of its image, ascending within a box."""

    box: Tensor
    anchor: Tensor

    def __getitem__(self, index: Tensor) -> CandidatePairs:
        return CandidatePairs(self.box.index_select(0, index), self.anchor.index_select(0, index))


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


def candidate_pairs(
    boxes: Tensor, pyramid: Pyramid, spec: LossSpec, geometry: Geometry = UPRIGHT, anchors: Anchors | None = None
) -> CandidatePairs:
    """Every pair of a box and an anchor whose centre lies inside the box: of upright boxes strictly (spec section 5.1).

    Args:
        boxes: (n, D) ground truth in pixels; upright ones are corners (n, 4).
        pyramid: the grids.
        spec: the length below which sides are lengthened, the length that they get, and ε_a.
        geometry: kind of the boxes.
        anchors: of the pyramid, where they are at hand.

    Returns:
        The pairs, sorted by box, then anchor.

    Example:
        A box of 16 x 16 pixels in the corner of an image of 32 x 32 contains four centres of the grid at stride 8:

        >>> pyramid = Pyramid(grids=((4, 4),), strides=(8,))
        >>> pairs = candidate_pairs(torch.tensor([[0.0, 0.0, 16.0, 16.0]]), pyramid, LossSpec(num_classes=1, strides=(8,)))
        >>> pairs.box.tolist(), pairs.anchor.tolist()
        ([0, 0, 0, 0], [0, 1, 4, 5])
    """
    return _inside(pairs_in(geometry.windows(boxes, pyramid, spec), pyramid), boxes, pyramid, spec, geometry, anchors)


def candidate_slices(
    boxes: Tensor, pyramid: Pyramid, spec: LossSpec, most_pairs: int, geometry: Geometry = UPRIGHT, anchors: Anchors | None = None
) -> Iterator[CandidatePairs]:
    """The candidate pairs in slices of whole boxes, of at most ``most_pairs`` pairs in windows each unless a single box has more."""
    windows = geometry.windows(boxes, pyramid, spec)
    ends = windows.sizes.cumsum(0).tolist()
    start = 0
    while start < len(ends):
        done = ends[start - 1] if start else 0
        end = max(start + 1, bisect_right(ends, done + most_pairs))
        pairs = pairs_in(Windows(windows.first[start:end], windows.count[start:end]), pyramid)
        yield _inside(CandidatePairs(pairs.box + start, pairs.anchor), boxes, pyramid, spec, geometry, anchors)
        start = end


def _inside(
    pairs: CandidatePairs, boxes: Tensor, pyramid: Pyramid, spec: LossSpec, geometry: Geometry, anchors: Anchors | None
) -> CandidatePairs:
    """The pairs in windows whose anchor lies inside the box."""
    if geometry.exact_windows:
        return pairs
    centres_A2, strides_A = anchors or make_anchors(pyramid.grids, pyramid.strides, dtype=boxes.dtype, device=boxes.device)
    centres_P2 = (centres_A2 * strides_A[:, None]).index_select(0, pairs.anchor)
    return pairs[geometry.inside(boxes.index_select(0, pairs.box), centres_P2, spec).nonzero().squeeze(1)]
