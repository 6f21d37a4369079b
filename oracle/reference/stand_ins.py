"""Stand-ins for parts of the reference: a model of ten lines, a recording assigner and a fixed assigner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from oracle.contract.contender import Batch
from twinloss import Assignment, LossSpec


class StandInModel(nn.Module):
    """A model with only the attributes that the reference reads: a parameter, the gains, the head's numbers, class weights."""

    def __init__(self, spec: LossSpec, device: torch.device) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(1, device=device))
        # The gate measures with the definition of an older revision, which is detection's and has the gains alone.
        terms, gains = getattr(spec, "terms", ("box", "cls", "dfl")), getattr(spec, "term_gains", spec.gains)
        self.args = SimpleNamespace(**dict(zip(terms, gains, strict=True)))
        strides = torch.tensor([float(s) for s in spec.strides], device=device)
        self.model = [SimpleNamespace(stride=strides, nc=spec.num_classes, reg_max=spec.reg_max)]
        if spec.class_weights is not None:
            self.class_weights = torch.tensor(spec.class_weights, device=device)


@dataclass(frozen=True)
class Recording:
    """Arguments and results of the assigner in a call of the loss; M is the number of boxes per image with padding.

    Attributes:
        scores: (B, A, C) probabilities.
        boxes: (B, A, 4) predicted corners in pixels.
        anchors: (A, 2) centres in pixels.
        labels, corners, valid: (B, M, 1), (B, M, 4), (B, M, 1).
        target_scores, foreground, index: (B, A, C), (B, A), (B, A).
        options: further arguments by name.
    """

    scores: Tensor
    boxes: Tensor
    anchors: Tensor
    labels: Tensor
    corners: Tensor
    valid: Tensor
    target_scores: Tensor
    foreground: Tensor
    index: Tensor
    options: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)

    def arguments(self) -> tuple[Tensor, ...]:
        """Returns the arguments of the assigner in its order."""
        return self.scores, self.boxes, self.anchors, self.labels, self.corners, self.valid


class RecordingAssigner:
    """Calls the reference's assigner, and keeps a recording of its last call."""

    def __init__(self, assigner: Any) -> None:
        self.assigner = assigner
        self.last: Recording | None = None

    def __call__(self, *given: Tensor, **options: Tensor) -> tuple[Tensor, ...]:
        """Returns the assigner's result."""
        answer = cast(tuple[Tensor, ...], self.assigner(*given, **options))
        self.last = Recording(*(t.detach() for t in (*given, *answer[2:])), options={name: t.detach() for name, t in options.items()})
        return answer


@dataclass(frozen=True)
class FixedAssigner:
    """Returns a given assignment in place of the reference's assigner; ``slot`` (H,) is the index of each box within its image."""

    assignment: Assignment
    slot: Tensor

    def __call__(
        self, scores: Tensor, boxes: Tensor, anchors: Tensor, labels: Tensor, corners: Tensor, valid: Tensor, **_: Tensor
    ) -> tuple[Tensor, ...]:
        """Returns labels, boxes, scores, foreground and index per anchor, in the form of the reference's assigner."""
        image, anchor, weight = self.assignment.image, self.assignment.anchor, self.assignment.weight
        index = torch.zeros(boxes.shape[:2], dtype=torch.int64, device=boxes.device)
        foreground = torch.zeros_like(index, dtype=torch.bool)
        target_boxes = corners.new_zeros(boxes.shape)
        target_scores = corners.new_zeros(scores.shape)
        target_labels = torch.zeros_like(index)
        index[image, anchor] = self.slot
        foreground[image, anchor] = True
        target_boxes[image, anchor] = corners[image, self.slot]
        target_labels[image, anchor] = labels[image, self.slot, 0].long()
        target_scores[image, anchor, target_labels[image, anchor]] = weight.to(corners.dtype)
        return target_labels, target_boxes, target_scores, foreground, index


def rows_by_slot(batch: Batch, kept: Tensor, images: int, slots: int) -> Tensor:
    """Returns the row of the batch (B, M) at each place of the padded layout, with an image's rows in their order; -1 is padding.

    ``kept`` (N,): whether the reference lays the row out at all.
    """
    rows = torch.full((images, slots), -1, dtype=torch.int64)
    index = batch["batch_idx"].reshape(-1).long().where(kept, -1).cpu()
    for image in range(images):
        arrived = (index == image).nonzero().reshape(-1)
        rows[image, : len(arrived)] = arrived
    return rows.to(batch["batch_idx"].device)


def slot_by_row(batch: Batch, kept: Tensor) -> Tensor:
    """Returns the place (N,) of each row of the batch in the padded layout: the number of earlier rows of the same image that are kept."""
    image = batch["batch_idx"].reshape(-1).long()
    return ((image[:, None] == image) & kept).tril(-1).sum(1)
