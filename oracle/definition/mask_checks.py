"""Checks of the segmentation definition's inputs; messages name the row, the image or the shapes (section 10 of its specification)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oracle.contract.contender import Batch, Preds


def check_mask_predictions(preds: Preds, num_classes: int) -> None:
    """Checks that coefficients, prototypes and semantic logits agree with the scores and with each other.

    Raises:
        ValueError: they do not; the message gives both shapes.
    """
    coefficients, (proto, semantic) = preds["mask_coefficient"], proto_and_semantic(preds["proto"])
    images, _, anchors = preds["scores"].shape
    if coefficients.ndim != 3 or proto.ndim != 4 or tuple(coefficients.shape) != (images, proto.shape[1], anchors) or len(proto) != images:
        found = f"mask_coefficient {tuple(coefficients.shape)} and proto {tuple(proto.shape)}"
        raise ValueError(f"{found} disagree with each other or with scores {tuple(preds['scores'].shape)}: B, P and A must be the same")
    if semantic is not None and (semantic.ndim != 4 or tuple(semantic.shape[:2]) != (images, num_classes)):
        raise ValueError(f"the semantic logits are {tuple(semantic.shape)}; they must be ({images}, {num_classes}, rows, columns)")


def proto_and_semantic(proto: Any) -> tuple[Tensor, Tensor | None]:
    """[1] Returns prototypes, and the semantic logits where the head sends a tuple of both."""
    return (proto[0], proto[1]) if isinstance(proto, tuple) else (proto, None)


def check_masks(batch: Batch, images: int, overlap_mask: bool) -> None:
    """[10] Checks the masks of a batch with boxes.

    Raises:
        ValueError: they are missing, of another number or form, or hold a value that their encoding does not have.
    """
    rows = batch["batch_idx"].reshape(-1).long()
    if "masks" not in batch:
        raise ValueError(f"batch['masks'] is missing; the batch has {len(rows)} boxes")
    masks = batch["masks"]
    expected, unit = (images, "image") if overlap_mask else (len(rows), "box")
    if masks.ndim != 3 or 0 in masks.shape[1:]:
        raise ValueError(f"masks are {tuple(masks.shape)}; they must be ({expected}, rows, columns), with at least one of each")
    if len(masks) != expected:
        raise ValueError(f"there are {len(masks)} masks; one for each {unit} makes {expected}")
    if overlap_mask:
        _check_index_maps(masks, torch.bincount(rows, minlength=images))
    else:
        _check_instance_masks(masks.double())


def _check_index_maps(maps: Tensor, boxes: Tensor) -> None:
    for image, (one, count) in enumerate(zip(maps, boxes.tolist(), strict=True)):
        if maps.dtype == torch.bool and count > 1:
            raise ValueError(f"the index map of image {image} is bool, which cannot tell its {count} boxes apart; give whole numbers")
        value = one.double()
        if not ((value >= 0) & (value == value.floor())).all():
            raise ValueError(f"the index map of image {image} holds a value that is negative, fractional or NaN; 0 is background")
        if (largest := int(value.max())) > count:
            raise ValueError(f"the index map of image {image} holds index {largest}, and the image has {count} boxes")


def _check_instance_masks(masks: Tensor) -> None:
    sound = ((masks >= 0) & (masks <= 1)).flatten(1).all(1)
    if not sound.all():
        raise ValueError(f"row {int(sound.int().argmin())} of the masks holds a value outside of 0 to 1, or NaN")


def check_semantic_masks(batch: Batch, covered: Tensor, num_classes: int) -> None:
    """[10] Checks the class at each covered pixel (B, h, w).

    Raises:
        ValueError: ``sem_masks`` are missing or of another shape than the masks, or a covered pixel has no class.
    """
    if "sem_masks" not in batch:
        raise ValueError("batch['sem_masks'] is missing; the predictions have semantic logits")
    classes = batch["sem_masks"].double()  # a comparison of bytes with -1 or 300 would wrap around
    if classes.shape != covered.shape:
        raise ValueError(f"sem_masks are {tuple(classes.shape)}; they must be {tuple(covered.shape)}, as the masks and the images")
    wrong = covered & ~((classes > -1) & (classes < num_classes))
    if wrong.any():
        image, row, column = wrong.nonzero()[0].tolist()
        value = float(classes[image, row, column])
        raise ValueError(f"sem_masks hold class {value:g} in image {image}; it must be from 0 to {num_classes - 1} where an instance is")
