"""The definition in float64, written to be read against the specification sentence by sentence.

Numbers in brackets are sections of the specification. Nothing here is shared with the implementation under test but the records
:class:`~twinloss.LossSpec` and :class:`~twinloss.Assignment`. Images are handled one by one; within an image, every quantity of a pair
(box, anchor) is a dense (M, A) matrix, so that each sentence of the specification is one expression.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from twinloss import Assignment, LossSpec

from oracle.contender import Batch, LossAndItems, Metrics, Preds, Targets

NOBODY = -1


@dataclass(frozen=True)
class ImageDetail:
    """Everything that was decided in one image, in float64: M valid boxes in order of arrival, A anchors.

    Attributes:
        image: index of the image in the batch.
        arrived: (n,) rows of the batch that belong to the image, valid or not, in order of arrival.
        corner_sum: (n,) sum of the four corner coordinates in pixels of each; the row is valid when it is > 0 [3].
        rows: (M,) rows of the batch that are valid; index j below counts these.
        labels: (M,) their classes.
        corners: (M, 4) their corners in pixels.
        border: (M, A) smallest distance in pixels from the anchor's centre to a side of the (possibly lengthened) box, less the
            assigner's epsilon: positive strictly inside, negative outside [5.1].
        candidate: (M, A) bool, ``border > 0``.
        probability: (M, A) sigmoid of the anchor's score for the box's class [5].
        overlap: (M, A) CIoU clamped at 0 for candidate pairs, 0 elsewhere [5.2].
        metric: (M, A) alignment metric for candidate pairs, 0 elsewhere [5.3].
        picked: (M, A) bool, the anchors that each box picks before conflicts, under the criterion's rule for ties [5.4].
        before_cut: (A,) index j of the box that holds the anchor after conflicts, or ``NOBODY`` [5.5].
        holder: (A,) the same after the second cut, when there is one [5.6]; includes anchors held with zero weight.
        weight: (A,) soft target t of the anchor, 0 where nobody holds it [5.7].
    """

    image: int
    arrived: Tensor
    corner_sum: Tensor
    rows: Tensor
    labels: Tensor
    corners: Tensor
    border: Tensor
    candidate: Tensor
    probability: Tensor
    overlap: Tensor
    metric: Tensor
    picked: Tensor
    before_cut: Tensor
    holder: Tensor
    weight: Tensor


class Grid(NamedTuple):
    """What the shapes of ``feats`` say: centres (A, 2) in grid units, strides (A,) in pixels, image size in pixels."""

    centres: Tensor
    strides: Tensor
    height: int
    width: int


class Truth(NamedTuple):
    """Ground truth as it arrived: image index, class (each (N,)), corners in pixels (N, 4)."""

    image: Tensor
    label: Tensor
    corners: Tensor


class ExactCriterion:
    """The loss as it is defined, in float64 on the CPU or wherever its inputs live.

    Args:
        spec: the numbers of the definition.
        ties: ``"stable"`` picks positive metrics alone, lowest anchor index first on equal ones [11.2]; ``"reference"`` applies
            ``torch.topk`` to whole rows, zeros included, as the reference does [9].
        conflicts: ``"overlap"`` gives a contested anchor to the largest overlap among all boxes it is a candidate of,
            ``"pickers"`` to the largest among those that picked it [5.5].
    """

    leaf_dtype = torch.float64

    def __init__(
        self,
        spec: LossSpec,
        ties: Literal["stable", "reference"] = "stable",
        conflicts: Literal["overlap", "pickers"] = "overlap",
    ) -> None:
        self.spec, self.ties, self.conflicts = spec, ties, conflicts

    def __call__(self, preds: Preds, batch: Batch) -> LossAndItems:
        """Loss (3,) in float64, times the number of images, and the logged items."""
        return self.loss_given(preds, batch, self.assign(preds, batch))

    def grid(self, preds: Preds) -> Grid:
        """[2] One anchor per cell, at its centre, x running fastest, then y, then the level; [0] image size from the first level."""
        device = preds["boxes"].device
        shapes = [tuple(level.shape[2:]) for level in preds["feats"]]
        centres = [(x + 0.5, y + 0.5) for rows, columns in shapes for y in range(rows) for x in range(columns)]
        strides = [stride for (rows, columns), stride in zip(shapes, self.spec.strides, strict=True) for _ in range(rows * columns)]
        finest = self.spec.strides[0]
        return Grid(
            torch.tensor(centres, dtype=torch.float64, device=device).reshape(-1, 2),
            torch.tensor(strides, dtype=torch.float64, device=device),
            height=shapes[0][0] * finest,
            width=shapes[0][1] * finest,
        )

    def anchors(self, preds: Preds) -> tuple[Tensor, Tensor]:
        """Centres (A, 2) in grid units and strides (A,) in pixels."""
        grid = self.grid(preds)
        return grid.centres, grid.strides

    def truth(self, preds: Preds, batch: Batch) -> Truth:
        """[3] Centre and size become pixel corners, from values that are float32 unless logits and targets are both float64."""
        check_targets(batch, num_images=preds["boxes"].shape[0], num_classes=self.spec.num_classes)
        grid = self.grid(preds)
        kept = torch.float64 if preds["boxes"].dtype == torch.float64 else torch.float32
        cx, cy, w, h = batch["bboxes"].to(grid.centres.device, kept).double().reshape(-1, 4).unbind(1)
        cx, w, cy, h = cx * grid.width, w * grid.width, cy * grid.height, h * grid.height
        corners = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=1)
        return Truth(batch["batch_idx"].reshape(-1).to(corners.device).long(), batch["cls"].reshape(-1).to(corners.device).long(), corners)

    def targets(self, preds: Preds, batch: Batch) -> Targets:
        """[3] Boxes that are valid, in order of image, then of arrival."""
        truth = self.truth(preds, batch)
        rows = truth.image.argsort(stable=True)
        rows = rows[truth.corners[rows].sum(1) > 0]
        return Targets(rows, truth.image[rows], truth.label[rows], truth.corners[rows])

    def decode(self, preds: Preds) -> Tensor:
        """[4] Predicted corners (B, A, 4) in grid units."""
        return corners_of(distances(preds["boxes"].double().transpose(1, 2), self.spec.reg_max), self.grid(preds).centres)

    def metrics(self, preds: Preds, batch: Batch) -> Metrics:
        """[5.1-5.3] Every candidate pair of a valid box and an anchor of its image, with overlap and alignment metric."""
        details = self.examine(preds, batch)
        pairs = [(d, *d.candidate.nonzero(as_tuple=True)) for d in details]
        return Metrics(
            torch.cat([d.rows[j] for d, j, _ in pairs]),
            torch.cat([i for _, _, i in pairs]),
            torch.cat([d.overlap[j, i] for d, j, i in pairs]),
            torch.cat([d.metric[j, i] for d, j, i in pairs]),
        )

    def assign(self, preds: Preds, batch: Batch) -> Assignment:
        """[5] Anchors held with positive weight; a weight that is not a number counts, so that it reaches the loss [10]."""
        details = self.examine(preds, batch)
        held = [((d.weight > 0) | d.weight.isnan()).nonzero().reshape(-1) for d in details]
        return Assignment(
            image=torch.cat([torch.full_like(i, d.image) for d, i in zip(details, held, strict=True)]),
            anchor=torch.cat(held),
            box=torch.cat([d.rows[d.holder[i]] for d, i in zip(details, held, strict=True)]),
            weight=torch.cat([d.weight[i] for d, i in zip(details, held, strict=True)]),
        )

    @torch.no_grad()
    def examine(self, preds: Preds, batch: Batch) -> list[ImageDetail]:
        """[5] Assignment with every intermediate quantity, one record per image; no gradient."""
        grid, truth = self.grid(preds), self.truth(preds, batch)
        predicted = self.decode(preds) * grid.strides[:, None]
        probability = preds["scores"].double().sigmoid().transpose(1, 2)
        return [self._examine_image(b, grid, truth, predicted[b], probability[b]) for b in range(len(predicted))]

    def _examine_image(self, image: int, grid: Grid, truth: Truth, predicted: Tensor, probability: Tensor) -> ImageDetail:
        spec = self.spec
        arrived = (truth.image == image).nonzero().reshape(-1)
        # [3] A row is valid when the sum of its four corner coordinates is > 0.
        corner_sum = truth.corners[arrived].sum(1)
        rows = arrived[corner_sum > 0]
        labels, corners = truth.label[rows], truth.corners[rows]
        border = border_distance(corners, grid.centres * grid.strides[:, None], spec.shortest_side) - spec.assign_eps
        candidate = border > 0
        own_class = probability[:, labels].T
        # [5.2], [5.3] Overlap and metric for candidate pairs, 0 elsewhere.
        box, anchor = candidate.nonzero(as_tuple=True)
        overlap = torch.zeros_like(border)
        overlap[box, anchor] = ciou(corners[box], predicted[anchor], spec.ciou_eps).clamp(min=0)
        metric = torch.where(candidate, own_class**spec.alpha * overlap**spec.beta, 0.0)
        # [5.4] The K anchors of largest metric over the whole row; those that are not candidate pairs are then dropped.
        picked = torch.zeros_like(candidate)
        for j, row in enumerate(metric):
            picked[j, self._largest(row, spec.topk)] = True
        picked &= candidate
        before_cut = self._settle_conflicts(picked, overlap)
        holder = self._second_cut(before_cut, metric)
        weight = self._soft_targets(holder, metric, overlap)
        return ImageDetail(
            image, arrived, corner_sum, rows, labels, corners, border, candidate, own_class, overlap, metric, picked, before_cut, holder, weight
        )  # fmt: skip

    def _largest(self, row: Tensor, count: int) -> Tensor:
        """[5.4], [9], [11.2] Anchors of the `count` largest metrics in a row (A,), all of them where the row is shorter [10]."""
        count = min(count, len(row))
        if self.ties == "reference":
            return row.topk(count).indices
        first = row.sort(descending=True, stable=True).indices[:count]
        return first[(row[first] > 0) | row[first].isnan()]

    def _settle_conflicts(self, picked: Tensor, overlap: Tensor) -> Tensor:
        """[5.5] Index of the box that holds each anchor (A,): its only picker or, if contested, the largest overlap, lowest index first."""
        if len(picked) == 0:
            return torch.full((picked.shape[1],), NOBODY, device=picked.device)
        rivals = overlap if self.conflicts == "overlap" else overlap.where(picked, -1.0)
        pickers = picked.sum(0)
        # argmax answers the first of equal maxima, and so index 0 of the image when all overlaps are 0 [9].
        holder = torch.where(pickers > 1, rivals.argmax(0), picked.int().argmax(0))
        return holder.where(pickers > 0, NOBODY)

    def _second_cut(self, before_cut: Tensor, metric: Tensor) -> Tensor:
        """[5.6] Of what each box still holds, only its topk2 anchors of largest metric remain, when topk2 differs from topk."""
        topk2 = self.spec.topk2
        if topk2 is None or topk2 == self.spec.topk:
            return before_cut
        holder = torch.full_like(before_cut, NOBODY)
        for j, row in enumerate(metric):
            held = before_cut == j
            first = self._largest(row.where(held, 0.0), topk2)
            holder[first[held[first]]] = j
        return holder

    def _soft_targets(self, holder: Tensor, metric: Tensor, overlap: Tensor) -> Tensor:
        """[5.7] t (A,) = m O / (M + eps), with M and O the box's largest metric and overlap over the anchors that it holds in the end."""
        weight = torch.zeros_like(metric[0]) if len(metric) else torch.zeros(len(holder), dtype=torch.float64, device=holder.device)
        for j in range(len(metric)):
            held = holder == j
            if held.any():
                m, o = metric[j, held], overlap[j, held]
                weight[held] = m * o.max() / (m.max() + self.spec.assign_eps)
        return weight

    def loss_given(self, preds: Preds, batch: Batch, assignment: Assignment) -> LossAndItems:
        """[7] Loss (3,) in float64, times gains and the number of images, and the logged items, on a given assignment."""
        spec, grid, truth = self.spec, self.grid(preds), self.truth(preds, batch)
        device = grid.centres.device
        image, anchor, row = (index.to(device) for index in (assignment.image, assignment.anchor, assignment.box))
        weight = assignment.weight.to(device).double()
        normaliser = weight.sum().clamp(min=1)  # [7] S
        # Only held anchors are read: whatever stands at the others, their gradient is zero, and it is never missing [7], [10].
        logits = preds["boxes"].double().transpose(1, 2)[image, anchor]
        centres, strides = grid.centres[anchor], grid.strides[anchor]
        predicted = distances(logits, spec.reg_max)
        corners = truth.corners[row] / strides[:, None]
        overlap = ciou(corners_of(predicted, centres), corners, spec.ciou_eps)
        target = torch.cat([centres - corners[:, :2], corners[:, 2:] - centres], dim=1)
        third = distribution_term(logits, target, spec) if spec.reg_max > 1 else distance_term(predicted, target, strides, grid)
        classification = classification_sum(preds["scores"].double(), image, truth.label[row], anchor, weight, spec)
        terms = torch.stack([((1 - overlap) * weight).sum(), classification, (third * weight).sum()]) / normaliser
        gained = terms * torch.tensor(spec.gains, dtype=torch.float64, device=device)
        names = ("box_loss", "cls_loss", spec.third_term)
        return gained * len(preds["boxes"]), dict(zip(names, gained.detach().unbind(), strict=True))


def border_distance(corners: Tensor, centres: Tensor, shortest_side: float) -> Tensor:
    """[5.1] Smallest of the four distances (M, A) in pixels from centres (A, 2) to the sides of boxes (M, 4), short sides lengthened."""
    x1, y1, x2, y2 = corners[:, :, None].unbind(1)
    grow_x = (shortest_side - (x2 - x1)).clamp(min=0) / 2
    grow_y = (shortest_side - (y2 - y1)).clamp(min=0) / 2
    x, y = centres.unbind(1)
    return torch.stack([x - (x1 - grow_x), y - (y1 - grow_y), (x2 + grow_x) - x, (y2 + grow_y) - y]).amin(0)


def distances(logits: Tensor, reg_max: int) -> Tensor:
    """[4] Left, top, right, bottom (..., 4) in grid units from logits (..., 4R); with R = 1 they are the logits themselves [7]."""
    if reg_max == 1:
        return logits
    bins = torch.arange(reg_max, dtype=torch.float64, device=logits.device)
    return (logits.unflatten(-1, (4, reg_max)).softmax(-1) * bins).sum(-1)


def corners_of(sides: Tensor, centres: Tensor) -> Tensor:
    """[4] Box (a_x - l, a_y - t, a_x + r, a_y + b)."""
    return torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], dim=-1)


def ciou(a: Tensor, b: Tensor, eps: float) -> Tensor:
    """[6] CIoU (n,) of boxes a and b (n, 4); half of a gradient goes to each side of a tie between two coordinates [8]."""
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    aw, ah, bw, bh = ax2 - ax1, ay2 - ay1 + eps, bx2 - bx1, by2 - by1 + eps
    intersection = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0) * (
        torch.minimum(ay2, by2) - torch.maximum(ay1, by1)
    ).clamp(min=0)
    iou = intersection / (aw * ah + bw * bh - intersection + eps)
    enclosing_w = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    enclosing_h = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    diagonal = enclosing_w**2 + enclosing_h**2 + eps
    centre_distance = ((bx1 + bx2 - ax1 - ax2) ** 2 + (by1 + by2 - ay1 - ay2) ** 2) / 4
    v = 4 / math.pi**2 * (torch.atan(bw / bh) - torch.atan(aw / ah)) ** 2
    alpha = (v / (1 - iou + v + eps)).detach()
    return iou - (centre_distance / diagonal + alpha * v)


def distribution_term(logits: Tensor, target: Tensor, spec: LossSpec) -> Tensor:
    """[7] Cross-entropy with the two bins around each clamped target distance, mean over the four sides (n,)."""
    clamped = target.clamp(0, spec.reg_max - 1 - spec.clamp_margin)
    lower = clamped.floor()
    surprise = -logits.unflatten(-1, (4, spec.reg_max)).log_softmax(-1)
    at_lower = surprise.gather(-1, lower.long()[..., None])[..., 0]
    at_upper = surprise.gather(-1, lower.long()[..., None] + 1)[..., 0]
    return (at_lower * (lower + 1 - clamped) + at_upper * (clamped - lower)).mean(-1)


def distance_term(predicted: Tensor, target: Tensor, strides: Tensor, grid: Grid) -> Tensor:
    """[7] R = 1: L1 between distances in pixels, divided by the image's width or height, mean over the four sides (n,)."""
    size = torch.tensor([grid.width, grid.height, grid.width, grid.height], dtype=torch.float64, device=target.device)
    return ((predicted - target).abs() * strides[:, None] / size).mean(-1)


def classification_sum(scores: Tensor, image: Tensor, label: Tensor, anchor: Tensor, weight: Tensor, spec: LossSpec) -> Tensor:
    """[7], [13] Sum over all B, C, A of BCE-with-logits, times the class's weight; a score of -inf contributes its limit, 0 [10]."""
    entropy = -logsigmoid(-scores)
    held = scores[image, label, anchor]
    entropy[image, label, anchor] = -(weight * logsigmoid(held) + (1 - weight) * logsigmoid(-held))
    factors = torch.ones(spec.num_classes) if spec.class_weights is None else torch.tensor(spec.class_weights)
    return (entropy * factors.to(scores)[:, None]).sum()


def check_targets(batch: Batch, num_images: int, num_classes: int) -> None:
    """[10] Refuse rows that have no meaning.

    Raises:
        ValueError: an image index, class or box is not one; the message names the first such row.
    """
    image, label = batch["batch_idx"].reshape(-1).double(), batch["cls"].reshape(-1).double()
    boxes = batch["bboxes"].reshape(-1, 4).double()
    rules = {
        f"batch_idx must be a whole number from 0 to {num_images - 1}": (image >= 0) & (image < num_images) & (image == image.floor()),
        f"cls must be a whole number from 0 to {num_classes - 1}": (label >= 0) & (label < num_classes) & (label == label.floor()),
        "bboxes must be finite": boxes.isfinite().all(1),
        "bboxes must have no negative width or height": ~(boxes[:, 2:] < 0).any(1),
    }
    for rule, holds in rules.items():
        if not holds.all():
            row = int(holds.int().argmin())
            found = f"batch_idx {image[row]:g}, cls {label[row]:g}, bboxes {boxes[row].tolist()}"
            raise ValueError(f"row {row} of the targets: {rule}; found {found}")
