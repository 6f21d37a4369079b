"""What is put into the reference, or listens at it, from outside: a model of ten lines, and two assigners."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from oracle.contract.contender import Batch
from twinloss import Assignment, LossSpec


class StandInModel(nn.Module):
    """What the reference reads of a model, and no more: a parameter, the gains, the head's numbers, class weights."""

    def __init__(self, spec: LossSpec, device: torch.device) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(1, device=device))
        box, cls, dfl = spec.gains
        self.args = SimpleNamespace(box=box, cls=cls, dfl=dfl)
        strides = torch.tensor([float(s) for s in spec.strides], device=device)
        self.model = [SimpleNamespace(stride=strides, nc=spec.num_classes, reg_max=spec.reg_max)]
        if spec.class_weights is not None:
            self.class_weights = torch.tensor(spec.class_weights, device=device)


@dataclass(frozen=True)
class Recording:
    """What the assigner was given in a real call, and what it answered: shapes as in the reference, M boxes an image with padding.

    Attributes:
        scores: (B, A, C) probabilities.
        boxes: (B, A, 4) predicted corners in pixels.
        anchors: (A, 2) centres in pixels.
        labels, corners, valid: (B, M, 1), (B, M, 4), (B, M, 1).
        target_scores, foreground, index: (B, A, C), (B, A), (B, A).
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

    def arguments(self) -> tuple[Tensor, ...]:
        """What the assigner was given, in its order."""
        return self.scores, self.boxes, self.anchors, self.labels, self.corners, self.valid


class RecordingAssigner:
    """The reference's assigner with a memory of its last call."""

    def __init__(self, assigner: Any) -> None:
        self.assigner = assigner
        self.last: Recording | None = None

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The assigner's own answer."""
        answer = cast(tuple[Tensor, ...], self.assigner(*given))
        self.last = Recording(*(t.detach() for t in (*given, *answer[2:])))
        return answer


@dataclass(frozen=True)
class FixedAssigner:
    """Answers a given assignment in place of the reference's assigner; ``slot`` (H,) counts the boxes of each entry's own image."""

    assignment: Assignment
    slot: Tensor

    def __call__(
        self, scores: Tensor, boxes: Tensor, anchors: Tensor, labels: Tensor, corners: Tensor, valid: Tensor
    ) -> tuple[Tensor, ...]:
        """Labels, boxes, scores, foreground and index per anchor, as the reference's assigner answers them."""
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


def rows_by_slot(batch: Batch, images: int, slots: int) -> Tensor:
    """Row of the batch (B, M) at each place of the padded layout, where an image's rows stand in order of arrival; -1 is padding."""
    rows = torch.full((images, slots), -1, dtype=torch.int64)
    index = batch["batch_idx"].reshape(-1).long().cpu()
    for image in range(images):
        arrived = (index == image).nonzero().reshape(-1)
        rows[image, : len(arrived)] = arrived
    return rows.to(batch["batch_idx"].device)


def slot_by_row(batch: Batch) -> Tensor:
    """Place (N,) of each row of the batch within its own image in the padded layout: the arrivals of that image before it."""
    image = batch["batch_idx"].reshape(-1).long()
    return (image[:, None] == image).tril(-1).sum(1)
