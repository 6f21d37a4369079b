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
    """Ground truth of the batch, in its order: image index, class (each (N,)), boxes in pixels (N, K): corners where they are upright."""

    image: Tensor
    label: Tensor
    corners: Tensor


class Scene(NamedTuple):
    """A batch before its assignment.

    Attributes:
        preds: predictions.
        batch: targets.
        grid: the anchors.
        truth: ground truth.
        predicted: (B, A, K) predicted boxes in pixels.
        probability: (B, A, C) sigmoid of the scores.
    """

    preds: Preds
    batch: Batch
    grid: Grid
    truth: GroundTruth
    predicted: Tensor
    probability: Tensor


class Pairs(NamedTuple):
    """The pairs of the M boxes and A anchors of an image, before any is picked.

    Attributes:
        scene, image, rows: the batch, the image, and the boxes (M,) as rows of the batch.
        candidate: (M, A) bool, the candidate pairs [5.1].
        probability: (M, A) sigmoid of the anchor's score for the box's class.
        overlap, metric: (M, A) of candidate pairs, 0 elsewhere [5.2], [5.3].
        ranked_overlap, ranked_metric: (M, A) numbers that rank as these do.
    """

    scene: Scene
    image: int
    rows: Tensor
    candidate: Tensor
    probability: Tensor
    overlap: Tensor
    metric: Tensor
    ranked_overlap: Tensor
    ranked_metric: Tensor


class Held(NamedTuple):
    """The H entries of an assignment, in float64.

    Attributes:
        image, anchor, row: (H,) image, anchor within it, row of the batch.
        weight: (H,) soft targets t.
        share: (H,) factor of the box and distribution terms: t; in one older definition the sum of all.
        normaliser: S [7].
        logits: (H, 4R) box logits.
        centres, strides: (H, 2) in grid units, (H,) in pixels.
        corners: (H, K) the ground truth in pixels.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    weight: Tensor
    share: Tensor
    normaliser: Tensor
    logits: Tensor
    centres: Tensor
    strides: Tensor
    corners: Tensor


class ExactCriterion:
    """The loss by its definition, in float64, on the device of its inputs.

    This is the detection loss. A task derives from it and replaces the steps that its specification changes: the geometry of boxes
    (:meth:`boxes_in_pixels`, :meth:`validity`, :meth:`border`, :meth:`decode`, :meth:`predicted_in_pixels`, :meth:`overlap`,
    :meth:`box_terms`), the candidates and overlaps of an image (:meth:`candidates`, :meth:`pair_overlap`), which anchors of metric 0 count
    as held (:meth:`counts`), and the terms that it adds (:meth:`extra_terms`). A wrong definition replaces steps likewise
    (:mod:`oracle.definition.variant`).

    Args:
        spec: the numbers of the definition.
        ties: ``"stable"`` picks positive metrics alone, lowest anchor index first on equal ones [11.2]; ``"reference"`` applies
            ``torch.topk`` to whole rows, zeros included, as the reference does [9].
        conflicts: ``"overlap"`` gives a contested anchor to the largest overlap among all boxes it is a candidate of,
            ``"pickers"`` to the largest among those that picked it [5.5].
    """

    leaf_dtype = torch.float64
    counts_weightless = False  # Whether a term counts held anchors of weight 0, so that with ``ties="reference"`` they are assigned.
    box_numbers: tuple[str, ...] = ("x1", "y1", "x2", "y2")  # Of prepared and predicted boxes.
    box_columns = 4  # Of the targets.

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
        check_targets(batch, preds["boxes"].shape[0], self.spec.num_classes, self.box_columns)
        grid = self.grid(preds)
        both_double = preds["boxes"].dtype == batch["bboxes"].dtype == torch.float64
        boxes = self.boxes_in_pixels(batch["bboxes"].to(grid.centres.device, torch.float64 if both_double else torch.float32), grid)
        image, label = (batch[name].reshape(-1).to(boxes.device).long() for name in ("batch_idx", "cls"))
        return GroundTruth(image, label, boxes)

    def boxes_in_pixels(self, shares: Tensor, grid: Grid) -> Tensor:
        """[3] Pixel corners (N, 4) from centre and size (N, 4) as shares of the image, in their dtype."""
        cx, cy, w, h = shares.reshape(-1, 4).unbind(1)
        cx, w, cy, h = cx * grid.width, w * grid.width, cy * grid.height, h * grid.height
        return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=1)

    def validity(self, boxes: Tensor) -> Tensor:
        """[3] A row is valid when this number (n,), the sum of its four corner coordinates, is > 0."""
        return boxes.sum(1)

    def targets(self, preds: Preds, batch: Batch) -> Targets:
        """[3] Boxes that are valid, in order of image, then of arrival."""
        truth = self.truth(preds, batch)
        rows = truth.image.argsort(stable=True)
        rows = rows[self.validity(truth.corners[rows]) > 0]
        return Targets(rows, truth.image[rows], truth.label[rows], truth.corners[rows].double())

    def decode(self, preds: Preds) -> Tensor:
        """[4] Predicted corners (B, A, 4) in grid units."""
        return corners_of(self.distances(preds["boxes"].double().transpose(1, 2)), self.grid(preds).centres)

    def distances(self, logits: Tensor) -> Tensor:
        """[4] Left, top, right, bottom (..., 4) in grid units from logits (..., 4R)."""
        return distances(logits, self.spec.reg_max)

    def predicted_in_pixels(self, predicted: Tensor, strides: Tensor) -> Tensor:
        """[5] Predicted boxes (..., A, K) in pixels: corners times the stride of the anchor's level."""
        return predicted * strides[:, None]

    def border(self, boxes: Tensor, grid: Grid) -> Tensor:
        """[5.1] Distance (M, A) in pixels from each anchor's centre to the nearest side of each box, > 0 for a candidate."""
        return border_distance(self.windows(boxes).double(), grid.centres * grid.strides[:, None]) - self.spec.assign_eps

    def windows(self, boxes: Tensor) -> Tensor:
        """[5.1] The boxes (M, 4) with their short sides lengthened, in the dtype of the boxes."""
        return lengthened(boxes, self.spec.shortest_side, self.spec.lengthened_below)

    def candidates(self, scene: Scene, image: int, rows: Tensor, border: Tensor) -> Tensor:
        """[5.1] Whether each anchor of the image is a candidate of each of the boxes ``rows`` (M, A)."""
        return border > 0

    def overlap(self, boxes: Tensor, predicted: Tensor) -> Tensor:
        """[5.2] Overlap (n,) of ground truth (n, K) and predicted boxes (n, K) in pixels, at least 0."""
        return ciou(boxes, predicted, self.spec.ciou_eps).clamp(min=0)

    def pair_overlap(self, scene: Scene, image: int, rows: Tensor, candidate: Tensor) -> Tensor:
        """[5.2] Overlap (M, A) of candidate pairs, 0 elsewhere."""
        box, anchor = candidate.nonzero(as_tuple=True)
        overlap = torch.zeros(candidate.shape, dtype=torch.float64, device=candidate.device)
        overlap[box, anchor] = self.overlap(scene.truth.corners[rows].double()[box], scene.predicted[image][anchor])
        return overlap

    @property
    def assigns_weightless(self) -> bool:
        """Whether held anchors of weight 0 are part of the assignment."""
        return self.counts_weightless and self.ties == "reference"

    def counts(self, trace: ImageTrace) -> Tensor:
        """[5.7] Whether each anchor (A,) is assigned: its weight is positive, or not-a-number, and so reaches the loss [10]."""
        weightless = (trace.holder != UNASSIGNED) & self.assigns_weightless
        return (trace.weight > 0) | trace.weight.isnan() | weightless

    def ranks(self, scene: Scene, image: int, rows: Tensor, candidate: Tensor, overlap: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
        """[5.4], [5.5] Numbers (M, A) that rank as overlap and metric do, 0 where those are 0: here the same."""
        return overlap, metric

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
        """[5] The held anchors that count, with their soft targets."""
        traces = self.trace(preds, batch)
        held = [self.counts(trace).nonzero().reshape(-1) for trace in traces]
        return Assignment(
            image=torch.cat([torch.full_like(i, d.image) for d, i in zip(traces, held, strict=True)]),
            anchor=torch.cat(held),
            box=torch.cat([d.rows[d.holder[i]] for d, i in zip(traces, held, strict=True)]),
            weight=torch.cat([d.weight[i] for d, i in zip(traces, held, strict=True)]),
        )

    @torch.no_grad()
    def trace(self, preds: Preds, batch: Batch) -> list[ImageTrace]:
        """[5] Returns the assignment with every intermediate quantity, one record per image; no gradient."""
        scene = self.scene(preds, batch)
        return [self._trace_image(image, scene) for image in range(len(scene.predicted))]

    def scene(self, preds: Preds, batch: Batch) -> Scene:
        """Returns anchors, ground truth and predictions of a batch."""
        grid = self.grid(preds)
        predicted = self.predicted_in_pixels(self.decode(preds), grid.strides)
        return Scene(preds, batch, grid, self.truth(preds, batch), predicted, preds["scores"].double().sigmoid().transpose(1, 2))

    def _trace_image(self, image: int, scene: Scene) -> ImageTrace:
        truth = scene.truth
        arrived = (truth.image == image).nonzero().reshape(-1)
        # [3] A row is valid when the sum of its four corner coordinates is > 0.
        corner_sum = self.validity(truth.corners[arrived])
        valid = corner_sum > 0
        # [9] A row that is not valid has no candidate, but an image's first may hold anchors of which every overlap is 0.
        rows = arrived if self.assigns_weightless else arrived[valid]
        labels, corners = truth.label[rows], truth.corners[rows].double()
        border = self.border(truth.corners[rows], scene.grid)
        candidate = self.candidates(scene, image, rows, border)
        candidate &= valid[:, None] if self.assigns_weightless else candidate
        pairs = self.pairs(scene, image, rows, candidate)
        picked = self.picks(pairs)
        before_cut = self.winners(pairs, picked)
        holder = self._second_cut(before_cut, pairs.ranked_metric)
        return ImageTrace(
            image=image,
            arrived=arrived,
            corner_sum=corner_sum,
            rows=rows,
            labels=labels,
            corners=corners,
            border=border,
            candidate=pairs.candidate,
            probability=pairs.probability,
            overlap=pairs.overlap,
            metric=pairs.metric,
            picked=picked,
            before_cut=before_cut,
            holder=holder,
            weight=self.soft_targets(pairs, holder),
        )

    def pairs(self, scene: Scene, image: int, rows: Tensor, candidate: Tensor) -> Pairs:
        """[5.2], [5.3] Overlap and metric for candidate pairs (M, A), 0 elsewhere."""
        own_class = scene.probability[image][:, scene.truth.label[rows]].T
        overlap = self.pair_overlap(scene, image, rows, candidate)
        metric = torch.where(candidate, self.metric(own_class, overlap), 0.0)
        ranked = self.ranks(scene, image, rows, candidate, overlap, metric)
        return Pairs(scene, image, rows, candidate, own_class, overlap, metric, *ranked)

    def metric(self, probability: Tensor, overlap: Tensor) -> Tensor:
        """[5.3] p^α · o^β (M, A)."""
        return probability**self.spec.alpha * overlap**self.spec.beta

    def picks(self, pairs: Pairs) -> Tensor:
        """[5.4] The K anchors (M, A) of largest metric over the whole row; those that are not candidate pairs are then dropped."""
        picked = torch.zeros_like(pairs.candidate)
        for j, row in enumerate(pairs.ranked_metric):
            picked[j, self._largest(row, self.spec.topk)] = True
        return picked & pairs.candidate

    def winners(self, pairs: Pairs, picked: Tensor) -> Tensor:
        """[5.5] Index of the box that holds each anchor (A,) after conflicts, or ``UNASSIGNED``."""
        return self._settle_conflicts(picked, pairs.ranked_overlap)

    def soft_targets(self, pairs: Pairs, holder: Tensor) -> Tensor:
        """[5.7] t (A,) of each held anchor, 0 elsewhere."""
        return self._soft_targets(holder, pairs.metric, pairs.overlap)

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
        held = self.held(preds, grid, truth, assignment)
        terms = {"cls": self.classification(preds, truth, held) / held.normaliser, **self.box_terms(preds, grid, held)}
        terms |= self.extra_terms(preds, batch, grid, truth, held)
        gained = torch.stack([terms[name] * gain for name, gain in zip(spec.terms, spec.term_gains, strict=True)])
        return gained * len(preds["boxes"]), dict(zip(spec.term_names, gained.detach().unbind(), strict=True))

    def held(self, preds: Preds, grid: Grid, truth: GroundTruth, assignment: Assignment) -> Held:
        """Returns the entries of an assignment with what the terms read of each."""
        device = grid.centres.device
        image, anchor, row = (index.to(device) for index in (assignment.image, assignment.anchor, assignment.box))
        weight = assignment.weight.to(device).double()
        return Held(
            image,
            anchor,
            row,
            weight,
            share=weight if self.spec.anchor_weights == "own" else torch.ones_like(weight) * weight.sum(),
            normaliser=weight.sum().clamp(min=1),
            # Only held anchors are read: the gradient at the others is zero, whatever their logits, and never missing [7], [10].
            logits=preds["boxes"].double().transpose(1, 2)[image, anchor],
            centres=grid.centres[anchor],
            strides=grid.strides[anchor],
            corners=truth.corners[row].double(),
        )

    def classification(self, preds: Preds, truth: GroundTruth, held: Held) -> Tensor:
        """[7], [13] The classification term before it is normalised."""
        return classification_sum(preds["scores"].double(), held.image, truth.label[held.row], held.anchor, held.weight, self.spec)

    def box_terms(self, preds: Preds, grid: Grid, held: Held) -> dict[str, Tensor]:
        """[7] The box term and the distribution (R = 1: distance) term."""
        predicted, corners = self.distances(held.logits), held.corners / held.strides[:, None]
        overlap = self.term_overlap(corners_of(predicted, held.centres), corners)
        target = torch.cat([held.centres - corners[:, :2], corners[:, 2:] - held.centres], dim=1)
        third = self.distance_or_distribution(predicted, target, grid, held)
        return {"box": ((1 - overlap) * held.share).sum() / held.normaliser, "dfl": (third * held.share).sum() / held.normaliser}

    def term_overlap(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        """[7] Overlap (H,) of predicted boxes (H, K) and ground truth (H, K) in grid units, of which the box term is made."""
        return ciou(predicted, boxes, self.spec.ciou_eps)

    def distance_or_distribution(self, predicted: Tensor, target: Tensor, grid: Grid, held: Held) -> Tensor:
        """[7] Distribution term (H,) of each held anchor; for R = 1 its distance term."""
        if self.spec.reg_max > 1:
            return distribution_term(held.logits, target, self.spec)
        return distance_term(predicted, target, held.strides, (grid.height, grid.width)) * self.spec.distance_term

    def extra_terms(self, preds: Preds, batch: Batch, grid: Grid, truth: GroundTruth, held: Held) -> dict[str, Tensor]:
        """Returns the terms that a task adds, by name, without gain and number of images: none here."""
        return {}
