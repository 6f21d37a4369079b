"""What is wrong with an input, said so that a person can mend it (spec section 10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from twinloss.spec import LossSpec

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_predictions(preds: Mapping[str, Any], spec: LossSpec, num_anchors: int) -> None:
    """Shapes, dtypes and devices of the logits agree with the definition and with each other.

    Raises:
        ValueError: they do not; the message names both sides of the disagreement.
    """
    boxes, scores = preds["boxes"], preds["scores"]
    for name, logits, channels in (("boxes", boxes, 4 * spec.reg_max), ("scores", scores, spec.num_classes)):
        if logits.dtype not in FLOATS:
            raise ValueError(f"preds[{name!r}] has dtype {logits.dtype}; logits are float16, bfloat16, float32 or float64")
        if logits.ndim != 3 or tuple(logits.shape[1:]) != (channels, num_anchors):
            raise ValueError(
                f"preds[{name!r}] has shape {tuple(logits.shape)}; expected (B, {channels}, {num_anchors}) for reg_max {spec.reg_max}, "
                f"{spec.num_classes} classes and feature maps of {num_anchors} cells in all"
            )
    for what in ("dtype", "device"):
        ours, theirs = getattr(boxes, what), getattr(scores, what)
        if ours != theirs:
            raise ValueError(f"preds['boxes'] has {what} {ours} and preds['scores'] {theirs}; give both the same")
    if boxes.shape[0] != scores.shape[0]:
        raise ValueError(f"preds['boxes'] has {boxes.shape[0]} images and preds['scores'] {scores.shape[0]}; give both the same")


def check_target_shapes(batch: Mapping[str, Tensor]) -> None:
    """One image index, class and box a row.

    Raises:
        ValueError: the numbers of rows disagree, or the boxes are not (N, 4).
    """
    index, label, boxes = batch["batch_idx"], batch["cls"], batch["bboxes"]
    if boxes.numel() and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise ValueError(f"batch['bboxes'] has shape {tuple(boxes.shape)}; expected (N, 4): centre x, centre y, width, height")
    rows = boxes.numel() // 4
    if index.numel() != rows or label.numel() != rows:
        raise ValueError(
            f"batch['batch_idx'] has {index.numel()} rows, batch['cls'] {label.numel()} and batch['bboxes'] {rows}; give one per box"
        )


def check_target_values(batch: Mapping[str, Tensor], batch_size: int, num_classes: int) -> None:
    """Image and class indices are whole and in range, coordinates finite, sizes not negative. Reads values: a synchronisation on a GPU.

    Raises:
        ValueError: they are not; the message names the first offending row and its value.
    """
    _check_index("batch_idx", batch["batch_idx"].reshape(-1), batch_size, "image index", f"a batch of {batch_size} images")
    _check_index("cls", batch["cls"].reshape(-1), num_classes, "class", f"{num_classes} classes")
    boxes = batch["bboxes"].reshape(-1, 4)
    row = _first(~boxes.isfinite().all(-1))
    if row is not None:
        raise ValueError(f"batch['bboxes'] row {row} is {boxes[row].tolist()}; coordinates must be finite: drop the row or mend the label")
    row = _first((boxes[:, 2:] < 0).any(-1))
    if row is not None:
        raise ValueError(f"batch['bboxes'] row {row} is {boxes[row].tolist()}; width and height must not be negative: is it x1 y1 x2 y2?")


def _check_index(key: str, values: Tensor, limit: int, what: str, of: str) -> None:
    row = _first(~((values >= 0) & (values < limit) & (values == values.to(torch.int64))))
    if row is not None:
        raise ValueError(
            f"batch[{key!r}] row {row} is {values[row].item()}; the {what} must be a whole number from 0 to {limit - 1} ({of})"
        )


def _first(bad: Tensor) -> int | None:
    return int(bad.to(torch.uint8).argmax()) if bad.any() else None
