"""What is wrong with an input, said so that a person can mend it (spec section 10)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from twinloss.spec import LossSpec

if TYPE_CHECKING:
    from twinloss.assignment.assign import Assignment

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
PLAIN = (Tensor, torch.nn.Parameter)
"""Types of tensors that are no more than numbers in memory."""

MOST_CELLS = 1 << 23
"""Cells along an axis: beyond, float32 cannot hold their centres."""

MOST_ANCHORS = 2**31 - 1
"""Anchors of an image, and rows of a batch, that the kernels can count."""


def check_present(name: str, given: Mapping[str, Any], keys: Sequence[str]) -> None:
    """What is needed is there.

    Raises:
        ValueError: it is not; the message names what is missing.
    """
    if missing := [key for key in keys if key not in given]:
        raise ValueError(f"{name} has no {' and no '.join(map(repr, missing))}; it has {', '.join(map(repr, given)) or 'nothing'}")


def check_readable(name: str, tensor: Any) -> None:
    """A dense tensor, outside of what :mod:`torch.func` transforms.

    Raises:
        TypeError: it is no tensor.
        ValueError: it is none of these; the message says what it is.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}; give a tensor")
    if tensor.layout is not torch.strided:
        raise ValueError(f"{name} has the layout {tensor.layout}; give a dense tensor, such as .to_dense() makes")
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise ValueError(f"{name} comes from torch.func (vmap, grad, ...), which cannot see through the loss; use loss.backward() instead")


def check_feature_maps(feats: Sequence[Any]) -> None:
    """Every map has rows and columns, no more than float32 can tell apart.

    Raises:
        ValueError: one has not; the message names its level.
    """
    for level, features in enumerate(feats):
        shape = tuple(getattr(features, "shape", ()))
        if len(shape) < 2:
            raise ValueError(f"preds['feats'][{level}] has shape {shape}; expected (B, channels, H, W)")
        if max(shape[-2:]) > MOST_CELLS:
            raise ValueError(f"preds['feats'][{level}] has {max(shape[-2:])} cells along one axis; at most {MOST_CELLS} can be told apart")


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
    if num_anchors > MOST_ANCHORS:
        raise ValueError(f"preds['feats'] has {num_anchors} cells in all; at most {MOST_ANCHORS} can be counted")
    for what in ("dtype", "device"):
        ours, theirs = getattr(boxes, what), getattr(scores, what)
        if ours != theirs:
            raise ValueError(f"preds['boxes'] has {what} {ours} and preds['scores'] {theirs}; give both the same")
    if boxes.shape[0] != scores.shape[0]:
        raise ValueError(f"preds['boxes'] has {boxes.shape[0]} images and preds['scores'] {scores.shape[0]}; give both the same")


def check_target_shapes(batch: Mapping[str, Tensor], box_columns: Sequence[str]) -> None:
    """One image index, class and box a row; ``box_columns`` says what the boxes' columns are.

    Raises:
        ValueError: the numbers of rows disagree, the boxes have other columns, or a column is no dense tensor of real numbers.
    """
    for key in ("batch_idx", "cls", "bboxes"):
        check_readable(f"batch[{key!r}]", batch[key])
        if batch[key].dtype not in (*FLOATS, *INTEGERS, torch.bool):
            raise ValueError(f"batch[{key!r}] has dtype {batch[key].dtype}; targets are float16 to float64, or int8 to int64 and uint8")
    index, label, boxes = batch["batch_idx"], batch["cls"], batch["bboxes"]
    columns = len(box_columns)
    if boxes.numel() and (boxes.ndim != 2 or boxes.shape[1] != columns):
        raise ValueError(f"batch['bboxes'] has shape {tuple(boxes.shape)}; expected (N, {columns}): {', '.join(box_columns)}")
    rows = boxes.numel() // columns
    if index.numel() != rows or label.numel() != rows:
        raise ValueError(
            f"batch['batch_idx'] has {index.numel()} rows, batch['cls'] {label.numel()} and batch['bboxes'] {rows}; give one per box"
        )
    if rows > MOST_ANCHORS:
        raise ValueError(f"batch['bboxes'] has {rows} rows; at most {MOST_ANCHORS} can be counted")


def check_target_values(batch: Mapping[str, Tensor], batch_size: int, num_classes: int, box_columns: int) -> None:
    """Image and class indices are whole and in range, coordinates finite, sizes not negative. Reads values: a synchronisation on a GPU.

    Raises:
        ValueError: they are not; the message names the first offending row and its value.
    """
    _check_index("batch_idx", batch["batch_idx"].reshape(-1), batch_size, "image index", f"a batch of {batch_size} images")
    _check_index("cls", batch["cls"].reshape(-1), num_classes, "class", f"{num_classes} classes")
    boxes = batch["bboxes"].reshape(-1, box_columns)
    # A sum is finite only where all of its numbers are; the converse is for the slower test to say.
    row = None if math.isfinite(boxes.sum()) else first_not(boxes.isfinite())
    if row is not None:
        raise ValueError(f"batch['bboxes'] row {row} is {boxes[row].tolist()}; coordinates must be finite: drop the row or mend the label")
    row = first_not(boxes[:, 2:4] >= 0)
    if row is not None:
        raise ValueError(f"batch['bboxes'] row {row} is {boxes[row].tolist()}; width and height must not be negative: is it x1 y1 x2 y2?")


def check_assignment_shapes(held: Assignment) -> None:
    """One image, anchor, box and weight an entry.

    Raises:
        ValueError: the columns' lengths disagree, or one is no list of numbers of its kind; the message names it.
    """
    columns = {name: getattr(held, name) for name in ("image", "anchor", "box", "weight")}
    for name, column in columns.items():
        check_readable(f"assignment.{name}", column)
        known, kind = (FLOATS, "real") if name == "weight" else (INTEGERS, "whole")
        if column.ndim != 1 or column.dtype not in known:
            raise ValueError(f"assignment.{name} has shape {tuple(column.shape)} and dtype {column.dtype}; expected (H,) {kind} numbers")
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{len(column)} of {name}" for name, column in columns.items())
        raise ValueError(f"the assignment's columns have different lengths ({lengths}); give one of each per held anchor")


def check_assignment_values(held: Assignment, image_of_row: Tensor, images: int, anchors: int) -> None:
    """Entries exist, belong to the image of their box, and are sorted by image, then anchor, each anchor once. Reads values.

    Raises:
        ValueError: one does not; the message names the first.
    """
    inside = (held.image >= 0) & (held.image < images) & (held.anchor >= 0) & (held.anchor < anchors)
    good = inside & (held.box >= 0) & (held.box < len(image_of_row))
    cell = held.image * anchors + held.anchor
    good[1:] &= cell[1:] > cell[:-1]
    if len(image_of_row):
        good &= image_of_row[held.box.clamp(0, len(image_of_row) - 1)] == held.image
    if (entry := first_not(good)) is not None:
        raise ValueError(bad_entry(held, entry, images, anchors, len(image_of_row)))


def bad_entry(held: Assignment, entry: int, images: int, anchors: int, rows: int) -> str:
    """What is wrong with an entry of an assignment."""
    return (
        f"assignment entry {entry} is image {held.image[entry]}, anchor {held.anchor[entry]}, box {held.box[entry]}; entries are sorted by "
        f"image, then anchor, each anchor once, within {images} images, {anchors} anchors and {rows} boxes, each box of that image and of "
        "a class that exists"
    )


def _check_index(key: str, values: Tensor, limit: int, what: str, of: str) -> None:
    if _indices(values, limit):
        return
    whole = values.to(torch.int64)  # in which the limit exists, where it does not in the values' dtype
    row = first_not((whole >= 0) & (whole < limit) & (values == whole))
    if row is not None:
        raise ValueError(
            f"batch[{key!r}] row {row} is {values[row].item()}; the {what} must be a whole number from 0 to {limit - 1} ({of})"
        )


def _indices(values: Tensor, limit: int) -> bool:
    """Whether all values are whole numbers from 0 to ``limit`` - 1, in fewer operations than it takes to find one that is not."""
    if not len(values) or values.dtype not in (torch.float32, torch.float64, torch.int64):
        return not len(values)
    least, most = (value.item() for value in values.aminmax())  # NaN where one is
    return least >= 0 and most < limit and (values.dtype == torch.int64 or torch.equal(values, values.trunc()))


def first_not(good: Tensor) -> int | None:
    """The first row that is not good, or good throughout; ``None`` where all are, which is told at once."""
    if good.all():
        return None
    return int((~good.reshape(len(good), -1)).any(-1).to(torch.uint8).argmax())
