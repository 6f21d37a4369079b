"""Task-aligned assignment: which anchor learns from which box, with what weight (spec section 5; Feng et al. 2021, arXiv 2108.07755).

Candidate pairs are ragged lists: no tensor has the size (boxes x anchors). No gradient flows through the assignment.

Example: boxes 0 and 1 both pick anchor 2 of the only image. The overlap of box 1 is larger there, so box 1 wins the anchor, although the
metric of box 0 is larger; then each box divides its metrics by their maximum:

>>> truth = GroundTruth(row=torch.tensor([0, 1]), image=torch.tensor([0, 0]), label=torch.tensor([0, 0]), boxes=torch.zeros(2, 4))
>>> box, anchor = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2, 2, 3])
>>> pairs = AlignedPairs(box, anchor, overlap=torch.tensor([0.8, 0.5, 0.7, 0.6]), metric=torch.tensor([0.4, 0.3, 0.1, 0.2]))
>>> contest = Contest.over(4, truth)
>>> contest.enter(anchor, pairs)
>>> contest.box[1:].tolist()  # winner at anchors 1, 2 and 3
[0, 1, 1]
>>> scores_BCA, spec = torch.zeros(1, 1, 4), LossSpec(num_classes=1)  # probability ½ everywhere
>>> held = resolve_conflicts(pairs, contest, scores_BCA, truth, spec)
>>> result = soft_targets(held, truth, spec, 4, nan_carrier=torch.zeros(()))
>>> result.anchor.tolist(), result.box.tolist(), [round(weight, 2) for weight in result.weight.tolist()]
([1, 2, 3], [0, 1, 1], [0.8, 0.29, 0.7])

Anchor 1 has metric 0.4 and overlap 0.8, both the maxima of box 0: weight 0.4 · 0.8 / 0.4 = 0.8. The metric of anchor 2 is computed again
for its winner, ½^0.5 · 0.7^6 = 0.083, and box 1 has maxima 0.2 and 0.7: weight 0.083 · 0.7 / 0.2 = 0.29.

Shape suffixes: B images, C classes, A anchors, n boxes, P candidate pairs, H held anchors, c contested anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from twinloss.assignment import log_numbers
from twinloss.assignment.candidates import CandidatePairs, candidate_slices
from twinloss.assignment.ground_truth import GroundTruth
from twinloss.assignment.overlaps import Overlap, Scale, Ties
from twinloss.assignment.ragged import in_topk_of_row, largest, row_maximum
from twinloss.assignment.registry import OVERLAPS
from twinloss.assignment.scene import Scene
from twinloss.spec import LossSpec

PAIRS_AT_ONCE = 1 << 20
"""Default number of candidate pairs computed at once: about 150 MB of scratch."""

NOBODY = torch.iinfo(torch.int64).max
"""In place of the index of a box where there is none; above every index, so that a minimum over indices ignores it."""

Conflicts = Literal["overlap", "pickers"]


@dataclass(frozen=True)
class Assignment:
    """Held anchors, sorted by image, then anchor.

    Attributes:
        image: (H,) image index.
        anchor: (H,) anchor within the image.
        box: (H,) row of the batch that the anchor learns from, as the batch arrived.
        weight: (H,) soft target t: above 0 but in tasks whose terms count anchors of weight 0 (:data:`twinloss.assignment.overlaps.Scale`).
    """

    image: Tensor
    anchor: Tensor
    box: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.anchor)


@dataclass(frozen=True)
class AlignedPairs:
    """Candidate pairs with their overlap and alignment metric.

    Attributes:
        box: (P,) index into the ground truth.
        anchor: (P,) anchor within the image.
        overlap: (P,) overlap o.
        metric: (P,) alignment metric m.
        scale: in which numbers both are, and what is held (:data:`twinloss.assignment.overlaps.Scale`).
    """

    box: Tensor
    anchor: Tensor
    overlap: Tensor
    metric: Tensor
    scale: Scale = "plain"

    def __getitem__(self, index: Tensor) -> AlignedPairs:
        box, anchor, overlap, metric = (value.index_select(0, index) for value in (self.box, self.anchor, self.overlap, self.metric))
        return AlignedPairs(box, anchor, overlap, metric, self.scale)

    @classmethod
    def joined(cls, parts: Sequence[AlignedPairs], truth: GroundTruth) -> AlignedPairs:
        """All parts, concatenated; ``truth`` gives the dtypes and the device if there is no part."""
        if not parts:
            return cls(truth.row[:0], truth.row[:0], truth.boxes[:0, 0], truth.boxes[:0, 0])
        names = ("box", "anchor", "overlap", "metric")
        box, anchor, overlap, metric = (torch.cat([getattr(part, name) for part in parts]) for name in names)
        return cls(box, anchor, overlap, metric, parts[0].scale)


@dataclass(frozen=True)
class PairMetrics:
    """Candidate pairs as a user receives them: row of the batch, anchor within its image, overlap and alignment metric, each (P,)."""

    row: Tensor
    anchor: Tensor
    overlap: Tensor
    metric: Tensor


@dataclass(frozen=True)
class Contest:
    """Winner of each anchor (spec section 5.5): the largest overlap among the boxes that entered, and the lowest box that has it.

    Attributes:
        overlap: (B·A,) 0 where no box entered.
        box: (B·A,) index of the box, ``NOBODY`` where no box entered with an overlap.
        first: (B·A,) lowest box that entered, with an overlap or not; ``None`` where it does not matter.
    """

    overlap: Tensor
    box: Tensor
    first: Tensor | None = None

    @classmethod
    def over(cls, num_anchors: int, truth: GroundTruth, dtype: torch.dtype | None = None, *, first: bool = False) -> Contest:
        """A contest at ``num_anchors`` = B·A anchors, which no box has entered; ``dtype`` is that of the overlaps."""
        nobody = truth.row.new_full((num_anchors,), NOBODY)
        return cls(truth.boxes.new_zeros(num_anchors, dtype=dtype), nobody, nobody.clone() if first else None)

    def enter(self, key_P: Tensor, pairs: AlignedPairs) -> None:
        """Enter pairs at the anchors ``key_P``, each image · A + anchor. Boxes ascend from call to call: the lowest of equals stays."""
        if self.first is not None:
            self.first.scatter_reduce_(0, key_P, pairs.box, "amin")
        before_P = self.overlap.index_select(0, key_P)
        self.overlap.scatter_reduce_(0, key_P, pairs.overlap, "amax")
        after_P = self.overlap.index_select(0, key_P)
        # An overlap of 0 is ignored: who wins where all are 0 is settled at the end, if such anchors count (spec section 9).
        # The tests are negated so that NaN passes them: the loss must show it.
        leads = (~(pairs.overlap < after_P) & ~(pairs.overlap <= before_P)).nonzero().squeeze(1)
        key_P, box = key_P.index_select(0, leads), pairs.box.index_select(0, leads)
        self.box[key_P] = NOBODY
        self.box.scatter_reduce_(0, key_P, box, "amin")

    def settled(self, truth: GroundTruth, num_anchors: int, conflicts: Conflicts) -> Contest:
        """The contest with a winner also where all overlaps are 0: the image's first box, or the first that picked (spec section 9)."""
        assert self.first is not None
        first_BA = self.first
        if conflicts == "overlap":  # the image's first, whether it entered or not
            first_B = truth.image.new_full((len(self.box) // num_anchors,), NOBODY)
            first_B.scatter_reduce_(0, truth.image, torch.arange(len(truth), device=first_B.device), "amin")
            first_BA = first_B.repeat_interleave(num_anchors)
        return replace(self, box=torch.where(self.box < NOBODY, self.box, first_BA))


def assign(scene: Scene, *, ties: Ties = "stable", conflicts: Conflicts = "overlap", pairs_at_once: int = PAIRS_AT_ONCE) -> Assignment:
    """Assign anchors to boxes (spec sections 5.1 to 5.7).

    Args:
        scene: predictions and ground truth; K, α, β, ε_a and the overlap are those of its definition.
        ties: "stable" picks positive metrics alone, the lowest anchor first among equals; "reference" picks the anchors that ``torch.topk``
            returns for the whole row.
        conflicts: "overlap" gives an anchor to the candidate box of largest overlap; "pickers" considers only the boxes that picked it.
        pairs_at_once: candidate pairs computed at once, which bounds the scratch memory.

    Returns:
        The anchors held: those of positive metric, and with ``ties="reference"``, in a task in which they count, of metric 0 too.
    """
    scores, truth, spec, num_anchors = scene.scores, scene.truth, scene.spec, scene.num_anchors
    with torch.no_grad():
        overlap = OVERLAPS[spec.overlap](scene, ties)
        # Nobody wins with an overlap of 0 unless such an anchor counts: as one of weight 0, or as one that has a weight since β is 0.
        without_overlap = overlap.scale == "every" or spec.beta == 0
        contest = Contest.over(len(scores) * num_anchors, truth, overlap.dtype, first=without_overlap)
        picks, nan_carrier = [], truth.boxes.new_zeros(())
        anchors = scene.centres, scene.strides
        for candidates in candidate_slices(truth.boxes, scene.pyramid, spec, pairs_at_once, scene.geometry, anchors):
            pairs = align(overlap, candidates)
            picked = pairs[pick(pairs, len(truth), spec.topk, num_anchors, ties)]
            picks.append(picked)
            entrants = picked if conflicts == "pickers" else pairs
            contest.enter(scene.keys(entrants.box, entrants.anchor), entrants)
            # 0, or NaN if a metric is NaN: comparisons drop NaN, and the loss must show it (spec section 10).
            nan_carrier = nan_carrier + (pairs.metric * 0).sum()
        if without_overlap:
            contest = contest.settled(truth, num_anchors, conflicts)
        held = resolve_conflicts(AlignedPairs.joined(picks, truth), contest, scores, truth, spec)
        if spec.second_topk is not None:
            held = held[(held.box * num_anchors + held.anchor).argsort()]
            held = held[pick(held, len(truth), spec.second_topk, num_anchors, ties)]
        return soft_targets(held, truth, spec, num_anchors, nan_carrier)


def align(overlap: Overlap, candidates: CandidatePairs) -> AlignedPairs:
    """Overlap and alignment metric of candidate pairs, those that the overlap's policy admits (spec sections 5.2 and 5.3)."""
    scene, pairs = overlap.scene, overlap.candidates(candidates)
    return _with_metric(pairs.box, pairs.anchor, overlap(pairs), scene.scores, scene.truth, scene.spec, overlap.scale)


def _with_metric(
    box_P: Tensor, anchor_P: Tensor, overlap_P: Tensor, scores: Tensor, truth: GroundTruth, spec: LossSpec, scale: Scale
) -> AlignedPairs:
    if scale == "logarithms":
        score_P = scores[truth.image.index_select(0, box_P), truth.label.index_select(0, box_P), anchor_P]
        metric_P = log_numbers.alignment_metric(score_P, overlap_P, spec)
    else:
        metric_P = alignment_metric(scores, truth, box_P, anchor_P, overlap_P, spec)
    return AlignedPairs(box_P, anchor_P, overlap_P, metric_P, scale)


def alignment_metric(scores: Tensor, truth: GroundTruth, box_P: Tensor, anchor_P: Tensor, overlap_P: Tensor, spec: LossSpec) -> Tensor:
    """Alignment metric p^α · o^β of pairs (P,), with p the anchor's probability of the box's class (spec section 5.3)."""
    probability_P = scores[truth.image.index_select(0, box_P), truth.label.index_select(0, box_P), anchor_P].to(overlap_P.dtype).sigmoid()
    return probability_P.pow(spec.alpha) * overlap_P.pow(spec.beta)


def pick(pairs: AlignedPairs, num_boxes: int, topk: int, num_anchors: int, ties: Ties) -> Tensor:
    """Indices of the pairs, sorted by box and anchor, that are among their box's ``topk`` (spec sections 5.4 and 5.6, and 9 for ties)."""
    positive = (~(pairs.metric <= 0)).nonzero().squeeze(1)  # NaN passes and ranks first, so that the loss shows it
    picked = positive[largest(pairs.metric.index_select(0, positive), pairs.box.index_select(0, positive), num_boxes, topk)]
    return picked if ties == "stable" else _picked_as_reference(picked, pairs, num_boxes, min(topk, num_anchors), num_anchors)


def _picked_as_reference(picked: Tensor, pairs: AlignedPairs, num_boxes: int, topk: int, num_anchors: int) -> Tensor:
    """Pick again with ``torch.topk``, over the whole row of anchors, for the boxes where its choice among equals matters.

    These are boxes with fewer than K positive metrics, and boxes with a tie across the K-th place.
    """
    chosen_P = torch.zeros(len(pairs.metric), dtype=torch.bool, device=picked.device)
    chosen_P[picked] = True
    counts_n = torch.bincount(pairs.box, minlength=num_boxes)
    starts_n = counts_n.cumsum(0) - counts_n
    for box in _undecided_boxes(chosen_P, pairs, num_boxes, topk).tolist():
        own = slice(int(starts_n[box]), int(starts_n[box] + counts_n[box]))
        chosen_P[own] = in_topk_of_row(pairs.metric[own], pairs.anchor[own], topk, num_anchors)
    return chosen_P.nonzero().squeeze(1)


def _undecided_boxes(chosen_P: Tensor, pairs: AlignedPairs, num_boxes: int, topk: int) -> Tensor:
    """Boxes that have candidates, and either fewer than K positive metrics or a metric left out that equals the least one picked."""
    candidates_n = torch.bincount(pairs.box, minlength=num_boxes)
    positives_n = torch.bincount(pairs.box[pairs.metric > 0], minlength=num_boxes)
    least_n = pairs.metric.new_full((num_boxes,), torch.inf).scatter_reduce(0, pairs.box[chosen_P], pairs.metric[chosen_P], "amin")
    tied_n = torch.zeros(num_boxes, dtype=torch.bool, device=chosen_P.device)
    tied_n[pairs.box[~chosen_P & (pairs.metric == least_n[pairs.box])]] = True
    return ((candidates_n > 0) & ((positives_n < topk) | tied_n)).nonzero().squeeze(1)


def resolve_conflicts(picks: AlignedPairs, contest: Contest, scores: Tensor, truth: GroundTruth, spec: LossSpec) -> AlignedPairs:
    """The pairs that remain when each anchor has one box at most (spec section 5.5)."""
    num_anchors = scores.shape[-1]
    key_P = truth.image.index_select(0, picks.box) * num_anchors + picks.anchor
    pickers_BA = torch.zeros(len(contest.box), dtype=torch.int32, device=key_P.device).scatter_add_(
        0, key_P, torch.ones_like(key_P, dtype=torch.int32)
    )
    alone = (pickers_BA.index_select(0, key_P) == 1).nonzero().squeeze(1)
    contested_c = ((pickers_BA > 1) & (contest.box < NOBODY)).nonzero().squeeze(1)
    box_c, overlap_c = contest.box[contested_c], contest.overlap[contested_c]
    anchor_c = contested_c - truth.image[box_c] * num_anchors
    # The winner may not have picked the anchor, so its metric is computed again.
    won = _with_metric(box_c, anchor_c, overlap_c, scores, truth, spec, picks.scale)
    if contest.first is not None:  # the image's first box wins without an overlap even where it is no candidate
        won = replace(won, metric=torch.where((overlap_c != 0) | (contest.first[contested_c] == box_c), won.metric, 0))
    return AlignedPairs.joined([picks[alone], won], truth)


def soft_targets(held: AlignedPairs, truth: GroundTruth, spec: LossSpec, num_anchors: int, nan_carrier: Tensor) -> Assignment:
    """Soft targets of the held anchors (spec section 5.7), without anchors of weight 0 where no sum counts them."""
    largest_metric_n = row_maximum(held.metric, held.box, len(truth))
    largest_overlap_n = row_maximum(held.overlap, held.box, len(truth))
    largest_H = largest_metric_n[held.box], largest_overlap_n[held.box]
    if held.scale == "logarithms":
        weight_H = log_numbers.soft_target(held.metric, *largest_H, spec.assign_eps)
    else:
        weight_H = held.metric * largest_H[1] / (largest_H[0] + spec.assign_eps)
    weight_H = (weight_H + nan_carrier).to(truth.boxes.dtype)
    image_H = truth.image[held.box]
    order_H = (image_H * num_anchors + held.anchor).argsort()
    if held.scale != "every":
        order_H = order_H[~((weight_H if held.scale == "plain" else held.metric) <= 0)[order_H]]
    return Assignment(image=image_H[order_H], anchor=held.anchor[order_H], box=truth.row[held.box[order_H]], weight=weight_H[order_H])
