"""The definition in float64, written to be read against the specification sentence by sentence.

Numbers in brackets are sections of the specification. Nothing here is shared with the implementation under test but the records
:class:`~twinloss.LossSpec` and :class:`~twinloss.Assignment`. Images are handled one by one; within an image, every quantity of a pair
(box, anchor) is a dense (M, A) matrix, so that each sentence of the specification is one expression.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from oracle.contract.contender import Batch, LossAndItems, Metrics, Preds, Targets
from oracle.definition.assignment_trace import UNASSIGNED, ImageTrace
from oracle.definition.formulas import (
    border_distance,
    ciou,
    classification_sum,
    corners_of,
    distance_term,
    distances,
    distribution_term,
    lengthened,
)
from oracle.definition.input_checks import check_predictions, check_targets
from twinloss import Assignment, LossSpec

__all__ = ["UNASSIGNED", "ExactCriterion", "Grid", "GroundTruth", "ImageTrace", "border_distance", "ciou", "distances"]


class Grid(NamedTuple):
    """The anchors by the shapes of ``feats``: centres (A, 2) in grid units, strides (A,) in pixels, image size in pixels."""

    centres: Tensor
    strides: Tensor
    height: int
    width: int


class GroundTruth(NamedTuple):
    """Ground truth of the batch, in its order: image index, class (each (N,)), corners in pixels (N, 4)."""

    image: Tensor
    label: Tensor
    corners: Tensor


class ExactCriterion:
    """The loss by its definition, in float64, on the device of its inputs.

    Args:
        spec: the numbers of the definition.
        ties: ``"stable"`` picks positive metrics alone, lowest anchor index first on equal ones [11.2]; ``"reference"`` applies
            ``torch.topk`` to whole rows, zeros included, as the reference does [9].
        conflicts: ``"overlap"`` gives a contested anchor to the largest overlap among all boxes it is a candidate of,
            ``"pickers"`` to the largest among those that picked it [5.5].
    """

    leaf_dtype = torch.float64

    def __init__(
        self, spec: LossSpec, ties: Literal["stable", "reference"] = "stable", conflicts: Literal["overlap", "pickers"] = "overlap"
    ) -> None:
        self.spec, self.ties, self.conflicts = spec, ties, conflicts

    def __call__(self, preds: Preds, batch: Batch) -> LossAndItems:
        """Returns the loss (T,) in float64, times the number of images, and the logged items."""
        return self.loss_given(preds, batch, self.assign(preds, batch))

    def grid(self, preds: Preds) -> Grid:
        """[2] One anchor per cell, at its centre, x running fastest, then y, then the level; [0] image size from the first level."""
        check_predictions(preds, self.spec)
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
        """Returns centres (A, 2) in grid units and strides (A,) in pixels."""
        grid = self.grid(preds)
        return grid.centres, grid.strides

    def truth(self, preds: Preds, batch: Batch) -> GroundTruth:
        """[3] Centre and size become pixel corners.

        Ground truth is float32, unless logits and targets are both float64, and so are the corners: whether an anchor lies inside a box
        whose side runs through its centre depends on the last bit of that side, which the definition fixes.
        """
        check_targets(batch, num_images=preds["boxes"].shape[0], num_classes=self.spec.num_classes)
        grid = self.grid(preds)
        both_double = preds["boxes"].dtype == batch["bboxes"].dtype == torch.float64
        kept = torch.float64 if both_double else torch.float32
        cx, cy, w, h = batch["bboxes"].to(grid.centres.device, kept).reshape(-1, 4).unbind(1)
        cx, w, cy, h = cx * grid.width, w * grid.width, cy * grid.height, h * grid.height
        corners = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=1)
        return GroundTruth(
            batch["batch_idx"].reshape(-1).to(corners.device).long(), batch["cls"].reshape(-1).to(corners.device).long(), corners
        )

    def targets(self, preds: Preds, batch: Batch) -> Targets:
        """[3] Boxes that are valid, in order of image, then of arrival."""
        truth = self.truth(preds, batch)
        rows = truth.image.argsort(stable=True)
        rows = rows[truth.corners[rows].sum(1) > 0]
        return Targets(rows, truth.image[rows], truth.label[rows], truth.corners[rows].double())

    def decode(self, preds: Preds) -> Tensor:
        """[4] Predicted corners (B, A, 4) in grid units."""
        return corners_of(distances(preds["boxes"].double().transpose(1, 2), self.spec.reg_max), self.grid(preds).centres)

    def metrics(self, preds: Preds, batch: Batch) -> Metrics:
        """[5.1-5.3] Every candidate pair of a valid box and an anchor of its image, with overlap and alignment metric."""
        traces = self.trace(preds, batch)
        pairs = [d.candidate.nonzero(as_tuple=True) for d in traces]
        return Metrics(
            row=torch.cat([d.rows[box] for d, (box, _) in zip(traces, pairs, strict=True)]),
            anchor=torch.cat([anchor for _, anchor in pairs]),
            overlap=torch.cat([d.overlap[pair] for d, pair in zip(traces, pairs, strict=True)]),
            metric=torch.cat([d.metric[pair] for d, pair in zip(traces, pairs, strict=True)]),
        )

    def assign(self, preds: Preds, batch: Batch) -> Assignment:
        """[5] Anchors held with positive weight; a weight that is not-a-number is included, and so reaches the loss [10]."""
        traces = self.trace(preds, batch)
        held = [((d.weight > 0) | d.weight.isnan()).nonzero().reshape(-1) for d in traces]
        return Assignment(
            image=torch.cat([torch.full_like(i, d.image) for d, i in zip(traces, held, strict=True)]),
            anchor=torch.cat(held),
            box=torch.cat([d.rows[d.holder[i]] for d, i in zip(traces, held, strict=True)]),
            weight=torch.cat([d.weight[i] for d, i in zip(traces, held, strict=True)]),
        )

    @torch.no_grad()
    def trace(self, preds: Preds, batch: Batch) -> list[ImageTrace]:
        """[5] Returns the assignment with every intermediate quantity, one record per image; no gradient."""
        grid, truth = self.grid(preds), self.truth(preds, batch)
        predicted = self.decode(preds) * grid.strides[:, None]
        probability = preds["scores"].double().sigmoid().transpose(1, 2)
        return [self._trace_image(b, grid, truth, predicted[b], probability[b]) for b in range(len(predicted))]

    def _trace_image(self, image: int, grid: Grid, truth: GroundTruth, predicted: Tensor, probability: Tensor) -> ImageTrace:
        spec = self.spec
        arrived = (truth.image == image).nonzero().reshape(-1)
        # [3] A row is valid when the sum of its four corner coordinates is > 0.
        corner_sum = truth.corners[arrived].sum(1)
        rows = arrived[corner_sum > 0]
        labels, corners = truth.label[rows], truth.corners[rows].double()
        window = lengthened(truth.corners[rows], spec.shortest_side, spec.lengthened_below).double()
        border = border_distance(window, grid.centres * grid.strides[:, None]) - spec.assign_eps
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
        return ImageTrace(
            image=image,
            arrived=arrived,
            corner_sum=corner_sum,
            rows=rows,
            labels=labels,
            corners=corners,
            border=border,
            candidate=candidate,
            probability=own_class,
            overlap=overlap,
            metric=metric,
            picked=picked,
            before_cut=before_cut,
            holder=holder,
            weight=self._soft_targets(holder, metric, overlap),
        )

    def _largest(self, row: Tensor, count: int) -> Tensor:
        """[5.4], [9], [11.2] Anchors of the `count` largest metrics in a row (A,), all of them where the row is shorter [10]."""
        count = min(count, len(row))
        if self.ties == "reference":
            return row.topk(count).indices
        positive = ((row > 0) | row.isnan()).nonzero().reshape(-1)
        return positive[row[positive].sort(descending=True, stable=True).indices[:count]]

    def _settle_conflicts(self, picked: Tensor, overlap: Tensor) -> Tensor:
        """[5.5] Index of the box that holds each anchor (A,): its only picker or, if contested, the largest overlap, lowest index first."""
        if len(picked) == 0:
            return torch.full((picked.shape[1],), UNASSIGNED, device=picked.device)
        rivals = overlap if self.conflicts == "overlap" else overlap.where(picked, -1.0)
        pickers = picked.sum(0)
        # argmax returns the first of equal maxima, and so index 0 of the image where all overlaps are 0 [9].
        holder = torch.where(pickers > 1, rivals.argmax(0), picked.int().argmax(0))
        return holder.where(pickers > 0, UNASSIGNED)

    def _second_cut(self, before_cut: Tensor, metric: Tensor) -> Tensor:
        """[5.6] Of what each box still holds, only its topk2 anchors of largest metric remain, when topk2 differs from topk."""
        topk2 = self.spec.topk2
        if topk2 is None or topk2 == self.spec.topk:
            return before_cut
        holder = torch.full_like(before_cut, UNASSIGNED)
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
        """[7] Returns the loss (T,) in float64, times gains and the number of images, and the logged items, on a given assignment."""
        spec, grid, truth = self.spec, self.grid(preds), self.truth(preds, batch)
        device = grid.centres.device
        image, anchor, row = (index.to(device) for index in (assignment.image, assignment.anchor, assignment.box))
        weight = assignment.weight.to(device).double()
        normaliser = weight.sum().clamp(min=1)  # [7] S
        # Factor of an anchor in the box and third terms: its own t; in one older definition the sum of all.
        share = weight if spec.anchor_weights == "own" else torch.ones_like(weight) * weight.sum()
        # Only held anchors are read: the gradient at the others is zero, whatever their logits, and never missing [7], [10].
        logits = preds["boxes"].double().transpose(1, 2)[image, anchor]
        centres, strides = grid.centres[anchor], grid.strides[anchor]
        predicted = distances(logits, spec.reg_max)
        corners = truth.corners[row].double() / strides[:, None]
        overlap = ciou(corners_of(predicted, centres), corners, spec.ciou_eps)
        target = torch.cat([centres - corners[:, :2], corners[:, 2:] - centres], dim=1)
        third = (
            distribution_term(logits, target, spec)
            if spec.reg_max > 1
            else distance_term(predicted, target, strides, (grid.height, grid.width)) * spec.distance_term
        )
        classification = classification_sum(preds["scores"].double(), image, truth.label[row], anchor, weight, spec)
        terms = torch.stack([((1 - overlap) * share).sum(), classification, (third * share).sum()]) / normaliser
        gained = terms * torch.tensor(spec.gains, dtype=torch.float64, device=device)
        return gained * len(preds["boxes"]), dict(zip(spec.term_names, gained.detach().unbind(), strict=True))
