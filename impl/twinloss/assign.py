"""Task-aligned assignment: which anchor learns from which box, and how much (spec section 5; Feng et al. 2021, arXiv 2108.07755).

Everything is a ragged list of candidate pairs; nothing has the size (boxes x anchors). No gradient flows through any of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.boxes import ciou, corners_from_distances, expected_distances
from twinloss.candidates import CandidatePairs, candidate_pairs
from twinloss.ragged import rank_descending, row_maximum
from twinloss.spec import LossSpec
from twinloss.targets import GroundTruth

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
        return AlignedPairs(self.box[index], self.anchor[index], self.overlap[index], self.metric[index])


@dataclass(frozen=True)
class PairMetrics:
    """Candidate pairs as seen from outside: row of the batch, anchor within its image, overlap and alignment metric, each (P,)."""

    row: Tensor
    anchor: Tensor
    overlap: Tensor
    metric: Tensor


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
) -> Assignment:
    """The whole assignment (spec sections 5.1 to 5.7).

    Args:
        boxes: (B, 4R, A) box logits.
        scores: (B, C, A) class logits.
        truth: n boxes in pixels; its dtype is that of the arithmetic.
        pyramid: the grids.
        anchors: centres (A, 2) in grid units and strides (A,).
        spec: K, α, β, ε_a.
        ties: "stable" picks positive metrics alone, the lowest anchor first among equals; "reference" reproduces ``torch.topk`` over the whole row.
        conflicts: "overlap" gives an anchor to the candidate box of largest overlap, "pickers" to that among the boxes which picked it.
    """
    with torch.no_grad():
        pairs = align(boxes, scores, truth, candidate_pairs(truth.corners, pyramid, spec), anchors, spec)
        picked = pick(pairs, len(truth), spec.topk, boxes.shape[-1], ties)
        held = resolve_conflicts(pairs, picked, truth, boxes.shape, conflicts)
        if spec.topk2 is not None and spec.topk2 != spec.topk:
            held = held[rank_descending(held.metric, held.box, len(truth)) < spec.topk2]
        return soft_targets(held, truth, spec, poison=(pairs.metric * 0).sum())


def align(
    boxes: Tensor, scores: Tensor, truth: GroundTruth, candidates: CandidatePairs, anchors: tuple[Tensor, Tensor], spec: LossSpec
) -> AlignedPairs:
    """Overlap and alignment metric of candidate pairs (spec sections 5.2 and 5.3)."""
    centres, strides = anchors
    dtype = truth.corners.dtype
    image = truth.image[candidates.box]
    # Many boxes share an anchor: each is decoded once.
    key = image * boxes.shape[-1] + candidates.anchor
    seen = torch.zeros(boxes.shape[0] * boxes.shape[-1], dtype=torch.bool, device=boxes.device)
    seen[key] = True
    slot = seen.cumsum(0) - 1
    unique = seen.nonzero().squeeze(1)
    anchor = unique % boxes.shape[-1]
    logits = boxes[unique // boxes.shape[-1], :, anchor].to(dtype).view(-1, 4, spec.reg_max)
    predicted = corners_from_distances(centres[anchor], expected_distances(logits)) * strides[anchor, None]
    overlap = ciou(truth.corners[candidates.box], predicted[slot[key]], spec.ciou_eps).clamp(min=0)
    probability = scores[image, truth.label[candidates.box], candidates.anchor].to(dtype).sigmoid()
    return AlignedPairs(candidates.box, candidates.anchor, overlap, probability.pow(spec.alpha) * overlap.pow(spec.beta))


def pick(pairs: AlignedPairs, num_boxes: int, topk: int, num_anchors: int, ties: Ties) -> Tensor:
    """Which pairs (P,) are among their box's ``topk`` (spec section 5.4, and section 9 for ties)."""
    positive = (~(pairs.metric <= 0)).nonzero().squeeze(1)  # NaN ranks first and so is picked: it has to show in the loss
    box, metric = pairs.box[positive], pairs.metric[positive]
    picked = torch.zeros(len(pairs.metric), dtype=torch.bool, device=metric.device)
    rank = rank_descending(metric, box, num_boxes)
    picked[positive[rank < topk]] = True
    if ties == "reference":
        _pick_as_reference(picked, pairs, num_boxes, min(topk, num_anchors), num_anchors)
    return picked


def _pick_as_reference(picked: Tensor, pairs: AlignedPairs, num_boxes: int, topk: int, num_anchors: int) -> None:
    """Redo, with ``torch.topk`` over the whole row of anchors, the rows in which its choice among equals shows: those with fewer than K positive
    metrics, and those with a tie across the K-th place."""
    counts = torch.bincount(pairs.box, minlength=num_boxes)
    starts = counts.cumsum(0) - counts
    for box in _undecided_boxes(picked, pairs, num_boxes, topk).tolist():
        own = slice(int(starts[box]), int(starts[box] + counts[box]))
        row = pairs.metric.new_zeros(num_anchors)
        row[pairs.anchor[own]] = pairs.metric[own]
        chosen = torch.zeros(num_anchors, dtype=torch.bool, device=row.device)
        chosen[row.topk(topk).indices] = True
        picked[own] = chosen[pairs.anchor[own]]


def _undecided_boxes(picked: Tensor, pairs: AlignedPairs, num_boxes: int, topk: int) -> Tensor:
    """Boxes that have candidates, and either fewer than K positive metrics or an unpicked metric equal to the least picked one."""
    candidates = torch.bincount(pairs.box, minlength=num_boxes)
    positives = torch.bincount(pairs.box[pairs.metric > 0], minlength=num_boxes)
    least = pairs.metric.new_full((num_boxes,), torch.inf).scatter_reduce(0, pairs.box[picked], pairs.metric[picked], "amin")
    tied = torch.zeros(num_boxes, dtype=torch.bool, device=picked.device)
    tied[pairs.box[~picked & (pairs.metric == least[pairs.box])]] = True
    return ((candidates > 0) & ((positives < topk) | tied)).nonzero().squeeze(1)


def resolve_conflicts(pairs: AlignedPairs, picked: Tensor, truth: GroundTruth, shape: torch.Size, conflicts: Conflicts) -> AlignedPairs:
    """The pairs that remain when every anchor is held by one box at most (spec section 5.5), sorted by box, then anchor."""
    images, _, anchors = shape
    key = truth.image[pairs.box] * anchors + pairs.anchor
    pickers = torch.bincount(key[picked], minlength=images * anchors)
    contested = (pickers > 1)[key]
    rivals = (contested & picked if conflicts == "pickers" else contested).nonzero().squeeze(1)
    rival_key, overlap = key[rivals], pairs.overlap[rivals]
    best = row_maximum(overlap, rival_key, images * anchors)
    # An overlap of 0 wins nothing: a conflict in which all are 0 goes to box 0 of the image with weight 0 (spec section 9), that is to none.
    # The tests are negated so that NaN passes them: it has to show in the loss.
    largest = ~(overlap < best[rival_key]) & ~(overlap <= 0)
    rivals, rival_key = rivals[largest], rival_key[largest]
    lowest = torch.full_like(pickers, len(truth)).scatter_reduce(0, rival_key, pairs.box[rivals], "amin")
    kept = picked & ~contested
    kept[rivals[pairs.box[rivals] == lowest[rival_key]]] = True
    return pairs[kept.nonzero().squeeze(1)]


def soft_targets(held: AlignedPairs, truth: GroundTruth, spec: LossSpec, poison: Tensor) -> Assignment:
    """Target scores of the held anchors (spec section 5.7); those of weight 0 are left out, for they count nowhere.

    ``poison`` is 0, or NaN when a metric was NaN: comparisons drop a NaN, but a loss that read one must show it (spec section 10).
    """
    largest_metric = row_maximum(held.metric, held.box, len(truth))
    largest_overlap = row_maximum(held.overlap, held.box, len(truth))
    weight = held.metric * largest_overlap[held.box] / (largest_metric[held.box] + spec.assign_eps) + poison
    keep = (~(weight <= 0)).nonzero().squeeze(1)
    image, anchor = truth.image[held.box[keep]], held.anchor[keep]
    order = (image * (int(anchor.max()) + 1 if len(anchor) else 1) + anchor).argsort()
    box = truth.row[held.box[keep]]
    return Assignment(image=image[order], anchor=anchor[order], box=box[order], weight=weight[keep][order])
