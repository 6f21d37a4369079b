"""Task-aligned assignment: which anchor learns from which box, and how much (spec section 5; Feng et al. 2021, arXiv 2108.07755).

Everything is a ragged list of candidate pairs; nothing has the size (boxes x anchors). No gradient flows through any of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.candidates import CandidatePairs, in_slices, windows
from twinloss.gather_anchors import columns_by_image
from twinloss.geometry.upright import ciou, corners_from_distances, expected_distances
from twinloss.ragged import largest, row_maximum
from twinloss.spec import LossSpec
from twinloss.targets import GroundTruth

PAIRS_AT_ONCE = 1 << 20
"""Candidate pairs judged at once, unless the caller says otherwise: about 150 MB of scratch."""

NOBODY = torch.iinfo(torch.int64).max
"""Stands for the index of a box where there is none; above every index, so that a minimum passes it over."""

Ties = Literal["stable", "reference"]
Conflicts = Literal["overlap", "pickers"]


@dataclass(frozen=True)
class Assignment:
    """Anchors held with positive weight, sorted by image, then anchor.

    Attributes:
        image: (H,) image index.
        anchor: (H,) anchor within the image.
        box: (H,) row of the batch that the anchor learns from, as the batch arrived.
        weight: (H,) soft target t > 0.
    """

    image: Tensor
    anchor: Tensor
    box: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.anchor)


@dataclass(frozen=True)
class AlignedPairs:
    """Candidate pairs with what they are judged by: index of the box, anchor, overlap o and alignment metric m, each (P,)."""

    box: Tensor
    anchor: Tensor
    overlap: Tensor
    metric: Tensor

    def __getitem__(self, index: Tensor) -> AlignedPairs:
        return AlignedPairs(*(value.index_select(0, index) for value in (self.box, self.anchor, self.overlap, self.metric)))

    @classmethod
    def joined(cls, parts: Sequence[AlignedPairs], truth: GroundTruth) -> AlignedPairs:
        """All parts, one after the other; ``truth`` gives the dtypes and the device where there is none."""
        if not parts:
            return cls(truth.row[:0], truth.row[:0], truth.corners[:0, 0], truth.corners[:0, 0])
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("box", "anchor", "overlap", "metric")))


@dataclass(frozen=True)
class PairMetrics:
    """Candidate pairs as seen from outside: row of the batch, anchor within its image, overlap and alignment metric, each (P,)."""

    row: Tensor
    anchor: Tensor
    overlap: Tensor
    metric: Tensor


@dataclass(frozen=True)
class Contest:
    """Who would win each anchor (spec section 5.5): the largest overlap of the boxes in the contest, and the lowest of those that have it.

    Attributes:
        overlap: (B·A,) 0 where no box is.
        box: (B·A,) index of the box, ``NOBODY`` where no box is.
    """

    overlap: Tensor
    box: Tensor

    @classmethod
    def over(cls, num_anchors: int, truth: GroundTruth) -> Contest:
        """A contest that nobody has entered."""
        return cls(truth.corners.new_zeros(num_anchors), truth.row.new_full((num_anchors,), NOBODY))

    def enter(self, key: Tensor, pairs: AlignedPairs) -> None:
        """Let pairs enter at the anchors ``key`` (P,). Boxes come in ascending order from call to call, so that the lowest index stays."""
        before = self.overlap.index_select(0, key)
        self.overlap.scatter_reduce_(0, key, pairs.overlap, "amax")
        after = self.overlap.index_select(0, key)
        # An overlap of 0 wins nothing: where all are 0 the anchor goes to box 0 of the image with weight 0 (spec section 9), so to none.
        # The tests are negated so that NaN passes them: it has to show in the loss.
        leads = (~(pairs.overlap < after) & ~(pairs.overlap <= before)).nonzero().squeeze(1)
        key, box = key.index_select(0, leads), pairs.box.index_select(0, leads)
        self.box[key] = NOBODY
        self.box.scatter_reduce_(0, key, box, "amin")


def assign(
    boxes: Tensor,
    scores: Tensor,
    truth: GroundTruth,
    pyramid: Pyramid,
    anchors: tuple[Tensor, Tensor],
    spec: LossSpec,
    *,
    ties: Ties = "stable",
    conflicts: Conflicts = "overlap",
    pairs_at_once: int = PAIRS_AT_ONCE,
) -> Assignment:
    """The whole assignment (spec sections 5.1 to 5.7).

    Args:
        boxes: (B, 4R, A) box logits.
        scores: (B, C, A) class logits.
        truth: n boxes in pixels; its dtype is that of the arithmetic.
        pyramid: the grids.
        anchors: centres (A, 2) in grid units and strides (A,).
        spec: K, α, β, ε_a.
        ties: "stable" picks positive metrics alone, the lowest anchor first among equals; "reference" takes what ``torch.topk`` takes of
            the whole row.
        conflicts: "overlap" gives an anchor to the candidate box of largest overlap, "pickers" to that among the boxes which picked it.
        pairs_at_once: candidate pairs judged at once, which bounds the scratch memory.
    """
    images, _, num_anchors = boxes.shape
    with torch.no_grad():
        contest, predicted = Contest.over(images * num_anchors, truth), PredictedBoxes(boxes, truth.corners.dtype)
        picks, poison = [], truth.corners.new_zeros(())
        for candidates in in_slices(windows(truth.corners, pyramid, spec), pyramid, pairs_at_once):
            pairs = align(predicted, scores, truth, candidates, anchors, spec)
            picked = pairs[pick(pairs, len(truth), spec.topk, num_anchors, ties)]
            picks.append(picked)
            entrants = picked if conflicts == "pickers" else pairs
            contest.enter(truth.image.index_select(0, entrants.box) * num_anchors + entrants.anchor, entrants)
            # 0, or NaN when a metric was: comparisons drop a NaN, but a loss that read one must show it (spec section 10).
            poison = poison + (pairs.metric * 0).sum()
        held = resolve_conflicts(AlignedPairs.joined(picks, truth), contest, scores, truth, spec)
        if spec.second_topk is not None:
            held = held[(held.box * num_anchors + held.anchor).argsort()]
            held = held[pick(held, len(truth), spec.second_topk, num_anchors, ties)]
        return soft_targets(held, truth, spec, num_anchors, poison)


def align(
    predicted: PredictedBoxes,
    scores: Tensor,
    truth: GroundTruth,
    candidates: CandidatePairs,
    anchors: tuple[Tensor, Tensor],
    spec: LossSpec,
) -> AlignedPairs:
    """Overlap and alignment metric of candidate pairs (spec sections 5.2 and 5.3)."""
    box, anchor = candidates.box, candidates.anchor
    key = truth.image.index_select(0, box) * scores.shape[-1] + anchor
    # Coordinates lie in rows of their own, so that the columns that the overlap is computed on are contiguous.
    truth_4P, predicted_4P = truth.corners.T.index_select(1, box), predicted.at(key, anchors, spec)
    overlap = ciou(truth_4P.T, predicted_4P.T, spec.ciou_eps).clamp(min=0)
    return AlignedPairs(box, anchor, overlap, alignment_metric(scores, truth, box, anchor, overlap, spec))


class PredictedBoxes:
    """Predicted corners in pixels of the anchors that are asked for, each decoded once, however many boxes share it (spec section 4).

    So boxes that are the same have the same overlaps to the bit, also where they are judged in two slices: torch may round a number
    otherwise at another place of a tensor.

    Args:
        boxes: (B, 4R, A) box logits.
        dtype: of the arithmetic.
    """

    def __init__(self, boxes: Tensor, dtype: torch.dtype) -> None:
        self.boxes = boxes
        places = boxes.shape[0] * boxes.shape[-1]
        self._corners = torch.empty(4, places, dtype=dtype, device=boxes.device)
        self._known = torch.zeros(places, dtype=torch.bool, device=boxes.device)

    def at(self, key: Tensor, anchors: tuple[Tensor, Tensor], spec: LossSpec) -> Tensor:
        """Corners (4, P) of anchors (P,) given as image · A + anchor."""
        asked = torch.zeros_like(self._known)
        asked[key] = True
        new = (asked & ~self._known).nonzero().squeeze(1)
        self._corners.index_copy_(1, new, _decode_in_pixels(self.boxes, new, anchors, spec))
        self._known |= asked
        return self._corners.index_select(1, key)


def _decode_in_pixels(boxes: Tensor, key: Tensor, anchors: tuple[Tensor, Tensor], spec: LossSpec) -> Tensor:
    """Predicted corners (4, u) in pixels of anchors given as image · A + anchor, ascending (spec section 4)."""
    centres, strides = anchors
    image = key // boxes.shape[-1]
    anchor = key - image * boxes.shape[-1]
    per_image = columns_by_image(boxes, image, anchor)
    distances = [expected_distances(columns.to(centres.dtype).view(-1, 4, spec.reg_max)).T for columns in per_image]
    corners = corners_from_distances(centres.T.index_select(1, anchor), torch.cat([centres.new_empty(4, 0), *distances], dim=1), dim=0)
    return corners * strides.index_select(0, anchor)


def alignment_metric(scores: Tensor, truth: GroundTruth, box: Tensor, anchor: Tensor, overlap: Tensor, spec: LossSpec) -> Tensor:
    """M = p^α · o^β of pairs of box (P,) and anchor (P,), p being the anchor's probability for the box's class (spec section 5.3)."""
    probability = scores[truth.image.index_select(0, box), truth.label.index_select(0, box), anchor].to(overlap.dtype).sigmoid()
    return probability.pow(spec.alpha) * overlap.pow(spec.beta)


def pick(pairs: AlignedPairs, num_boxes: int, topk: int, num_anchors: int, ties: Ties) -> Tensor:
    """Indices of the pairs, sorted by box and anchor, that are among their box's ``topk`` (spec sections 5.4 and 5.6, and 9 for ties)."""
    positive = (~(pairs.metric <= 0)).nonzero().squeeze(1)  # NaN passes, and ranks first: it has to show in the loss
    picked = positive[largest(pairs.metric.index_select(0, positive), pairs.box.index_select(0, positive), num_boxes, topk)]
    return picked if ties == "stable" else _picked_as_reference(picked, pairs, num_boxes, min(topk, num_anchors), num_anchors)


def _picked_as_reference(picked: Tensor, pairs: AlignedPairs, num_boxes: int, topk: int, num_anchors: int) -> Tensor:
    """Redo with ``torch.topk``, over the whole row of anchors, the rows in which its choice among equals shows.

    These are rows with fewer than K positive metrics, and rows with a tie across the K-th place.
    """
    chosen = torch.zeros(len(pairs.metric), dtype=torch.bool, device=picked.device)
    chosen[picked] = True
    counts = torch.bincount(pairs.box, minlength=num_boxes)
    starts = counts.cumsum(0) - counts
    for box in _undecided_boxes(chosen, pairs, num_boxes, topk).tolist():
        own = slice(int(starts[box]), int(starts[box] + counts[box]))
        row = pairs.metric.new_zeros(num_anchors)
        row[pairs.anchor[own]] = pairs.metric[own]
        in_topk = torch.zeros(num_anchors, dtype=torch.bool, device=row.device)
        in_topk[row.topk(topk).indices] = True
        chosen[own] = in_topk[pairs.anchor[own]]
    return chosen.nonzero().squeeze(1)


def _undecided_boxes(chosen: Tensor, pairs: AlignedPairs, num_boxes: int, topk: int) -> Tensor:
    """Boxes that have candidates, and either fewer than K positive metrics or a metric left out that equals the least one picked."""
    candidates = torch.bincount(pairs.box, minlength=num_boxes)
    positives = torch.bincount(pairs.box[pairs.metric > 0], minlength=num_boxes)
    least = pairs.metric.new_full((num_boxes,), torch.inf).scatter_reduce(0, pairs.box[chosen], pairs.metric[chosen], "amin")
    tied = torch.zeros(num_boxes, dtype=torch.bool, device=chosen.device)
    tied[pairs.box[~chosen & (pairs.metric == least[pairs.box])]] = True
    return ((candidates > 0) & ((positives < topk) | tied)).nonzero().squeeze(1)


def resolve_conflicts(picks: AlignedPairs, contest: Contest, scores: Tensor, truth: GroundTruth, spec: LossSpec) -> AlignedPairs:
    """The pairs that remain when every anchor is held by one box at most (spec section 5.5)."""
    num_anchors = scores.shape[-1]
    key = truth.image.index_select(0, picks.box) * num_anchors + picks.anchor
    pickers = torch.zeros(len(contest.box), dtype=torch.int32, device=key.device).scatter_add_(
        0, key, torch.ones_like(key, dtype=torch.int32)
    )
    alone = (pickers.index_select(0, key) == 1).nonzero().squeeze(1)
    contested = ((pickers > 1) & (contest.box < NOBODY)).nonzero().squeeze(1)
    box, overlap = contest.box[contested], contest.overlap[contested]
    anchor = contested - truth.image[box] * num_anchors
    # The winner need not have picked the anchor, so its metric is computed again.
    won = AlignedPairs(box, anchor, overlap, alignment_metric(scores, truth, box, anchor, overlap, spec))
    return AlignedPairs.joined([picks[alone], won], truth)


def soft_targets(held: AlignedPairs, truth: GroundTruth, spec: LossSpec, num_anchors: int, poison: Tensor) -> Assignment:
    """Target scores of the held anchors (spec section 5.7); those of weight 0 are left out, for they count nowhere."""
    largest_metric = row_maximum(held.metric, held.box, len(truth))
    largest_overlap = row_maximum(held.overlap, held.box, len(truth))
    weight = held.metric * largest_overlap[held.box] / (largest_metric[held.box] + spec.assign_eps) + poison
    image = truth.image[held.box]
    order = (image * num_anchors + held.anchor).argsort()
    order = order[~(weight <= 0)[order]]
    return Assignment(image=image[order], anchor=held.anchor[order], box=truth.row[held.box[order]], weight=weight[order])
