"""Checks of the definition's inputs; messages name the row or the shapes (spec section 10)."""

from __future__ import annotations

import torch

from oracle.contract.contender import Batch, Preds
from twinloss import LossSpec


def check_predictions(preds: Preds, spec: LossSpec) -> None:
    """Checks that the shapes of the logits agree with each other and with the definition.

    Raises:
        ValueError: they do not; the message gives all shapes.
    """
    boxes, scores, levels = preds["boxes"].shape, preds["scores"].shape, [tuple(f.shape[2:]) for f in preds["feats"]]
    anchors = sum(rows * columns for rows, columns in levels)
    expected = ((boxes[0], 4 * spec.reg_max, anchors), (boxes[0], spec.num_classes, anchors))
    if len(levels) != len(spec.strides) or (tuple(boxes), tuple(scores)) != expected:
        raise ValueError(
            f"boxes {tuple(boxes)} and scores {tuple(scores)} should be {expected[0]} and {expected[1]} "
            f"for levels {levels} and strides {spec.strides}"
        )


def check_targets(batch: Batch, num_images: int, num_classes: int, box_columns: int = 4) -> None:
    """[10] Checks the rows of the targets; a box has ``box_columns`` numbers.

    Raises:
        ValueError: an image index, class or box is invalid; the message names the first such row.
    """
    image, label = batch["batch_idx"].reshape(-1).double(), batch["cls"].reshape(-1).double()
    boxes = batch["bboxes"].reshape(-1, box_columns).double()
    rules = {
        f"batch_idx must be a whole number from 0 to {num_images - 1}": (image >= 0) & (image < num_images) & (image == image.floor()),
        f"cls must be a whole number from 0 to {num_classes - 1}": (label >= 0) & (label < num_classes) & (label == label.floor()),
        "bboxes must be finite": boxes.isfinite().all(1),
        "bboxes must have no negative width or height": ~(boxes[:, 2:4] < 0).any(1),
    }
    for rule, holds in rules.items():
        if not holds.all():
            row = int(holds.int().argmin())
            found = f"batch_idx {image[row]:g}, cls {label[row]:g}, bboxes {boxes[row].tolist()}"
            raise ValueError(f"row {row} of the targets: {rule}; found {found}")


def check_keypoints(batch: Batch, count: int) -> None:
    """[10 of the pose loss] Checks the target keypoints of a batch, of which each box has ``count``.

    Raises:
        ValueError: there are none for the boxes, their shape is wrong, or a flag or a visible keypoint's coordinate is; the message gives
            the shapes, or the first such row.
    """
    boxes = len(batch["bboxes"])
    if "keypoints" not in batch:
        if boxes:
            raise ValueError(f"the batch has {boxes} boxes and no keypoints")
        return
    points = batch["keypoints"].double()
    if points.shape[:2] != (boxes, count) or points.dim() != 3 or points.shape[2] not in (2, 3):
        raise ValueError(f"keypoints have the shape {tuple(points.shape)}; it should be ({boxes}, {count}, 2) or ({boxes}, {count}, 3)")
    flags = points[..., 2] if points.shape[2] == 3 else torch.ones_like(points[..., 0])
    rules = {
        "a visibility must be 0, 1 or 2": (flags == 0) | (flags == 1) | (flags == 2),
        "a visible keypoint must be finite": (flags == 0) | points[..., :2].isfinite().all(-1),
    }
    for rule, holds in rules.items():
        if not holds.all():
            row, keypoint = (~holds).nonzero()[0].tolist()
            raise ValueError(f"row {row} of the keypoints: {rule}; found {points[row, keypoint].tolist()} at keypoint {keypoint}")


def check_angles(preds: Preds) -> None:
    """[10] Checks the shape of predicted angles.

    Raises:
        ValueError: ``angle`` is missing or not (B, 1, A); the message gives both shapes.
    """
    images, _, anchors = preds["boxes"].shape
    angle = preds.get("angle")
    if angle is None or tuple(angle.shape) != (images, 1, anchors):
        raise ValueError(f"angle should be {(images, 1, anchors)}; it is {'missing' if angle is None else tuple(angle.shape)}")


def check_oriented_boxes(batch: Batch) -> None:
    """[10] Checks the shape of oriented boxes.

    Raises:
        ValueError: ``bboxes`` is not (N, 5); the message gives its shape.
    """
    boxes = batch["bboxes"]
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise ValueError(f"bboxes should be (N, 5): x, y, w, h, θ; they are {tuple(boxes.shape)}")


def check_keypoint_predictions(preds: Preds, keypoint_shape: tuple[int, int]) -> None:
    """[10 of the pose loss] Checks the shapes of the raw keypoints and, if there are any, of the raw deviations.

    Raises:
        ValueError: they do not fit the definition and the other predictions; the message gives both shapes.
    """
    images, _, anchors = preds["scores"].shape
    points, numbers = keypoint_shape
    for name, channels in (("kpts", points * numbers), ("kpts_sigma", 2 * points)):
        found, expected = preds.get(name), (images, channels, anchors)
        if name == "kpts_sigma" and found is None:
            continue
        if found is None or tuple(found.shape) != expected:
            raise ValueError(f"{name} should be {expected}; it is {'missing' if found is None else tuple(found.shape)}")
