"""Coefficients, prototypes, semantic logits and masks of a call, checked (segmentation spec sections 1 and 10).

Masks are read where they lie: they are not copied. Torch and native read them during the call alone, so that a change after it changes
nothing; the Triton kernels read them again in the backward pass, which raises where they were changed in place.

Shape suffixes: B images, N rows of the batch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from twinloss.backends.saved_tensors import in_memory
from twinloss.inputs.checks import PLAIN, check_present
from twinloss.inputs.given import Given, check_like, check_real
from twinloss.masks.sampling import nearest
from twinloss.masks.targets import TrueMasks, comparable, places
from twinloss.spec import LossSpec
from twinloss.task_specs import SegmentationSpec


def admit_masks(given: Given) -> dict[str, Tensor]:
    """The further inputs by key.

    These are ``mask_coefficient``, ``proto``, and with boxes ``masks``; ``semantic`` and ``sem_masks`` where they are given; and for index
    maps ``place``, each row's place within its image.

    Raises:
        TypeError: an input is no tensor.
        ValueError: an input is not what it must be; the message names it and says what was expected.
    """
    found = _predictions(given)
    if given.rows and "masks" not in given.batch:
        check_present("batch", given.batch, ("masks",))
    if "masks" in given.batch:
        found |= _masks(given, found["proto"])
    if "semantic" in found and "sem_masks" in given.batch and "masks" in found:
        found["sem_masks"] = _sem_masks(given, found)
    return found


def _predictions(given: Given) -> dict[str, Tensor]:
    check_present("preds", given.preds, ("mask_coefficient", "proto"))
    proto: Any = given.preds["proto"]
    pair = proto if isinstance(proto, tuple) else (proto,)
    if len(pair) > 2 or isinstance(proto, list):
        kind = f"{type(proto).__name__} of {len(proto)}"
        raise ValueError(f"preds['proto'] is a {kind}; give prototypes, or a tuple of two: prototypes and semantic logits")
    found: dict[str, Tensor] = {}
    classes = given.spec.num_classes
    for key, grid, channels in zip(("proto", "semantic"), pair, (None, classes), strict=False):
        name = f"preds['proto']{'' if len(pair) == 1 else f'[{len(found)}]'}"
        check_like(name, grid, given.boxes)
        expected = f"({given.images}, {channels or 'P'}, height, width)"
        if grid.ndim != 4 or len(grid) != given.images or (channels and grid.shape[1] != channels) or 0 in grid.shape[1:]:
            raise ValueError(f"{name} has shape {tuple(grid.shape)}; expected {expected}, as many images as preds['boxes'] has, not empty")
        found[key] = in_memory(grid)
    return found | {"mask_coefficient": given.logits("mask_coefficient", found["proto"].shape[1])}


def _masks(given: Given, prototypes: Tensor) -> dict[str, Tensor]:
    masks, index_maps = given.batch["masks"], _has_index_maps(given.spec)
    check_real("masks", masks)
    if not given.rows:  # an image without boxes has a zero map, or no mask: nothing is read
        return {}
    if masks.ndim != 3 or 0 in masks.shape[1:]:
        raise ValueError(f"batch['masks'] has shape {tuple(masks.shape)}; expected {'(B, h, w)' if index_maps else '(N, h, w)'}, h, w > 0")
    expected, what = (given.images, "images") if index_maps else (given.rows, "boxes")
    if len(masks) != expected:
        kind = "index maps, one an image" if index_maps else "instance masks, one a box"
        raise ValueError(f"batch['masks'] has {len(masks)} masks for {expected} {what}; overlap_mask={index_maps} takes {kind}")
    if given.reads(masks):
        if index_maps:
            _check_index_maps(given, masks)
        else:
            _check_instance_masks(masks)
    found = {"masks": _on_its_grid(given, _where_it_lies(given, masks), prototypes)}
    return found | ({"place": places(given.targets["batch_idx"].to(found["masks"].device))} if index_maps else {})


def _on_its_grid(given: Given, masks: Tensor, prototypes: Tensor) -> Tensor:
    """Masks on the grid of the definition's mask term: resized by nearest where that is the prototypes' (section 13)."""
    assert isinstance(given.spec, SegmentationSpec)
    if given.spec.mask_grid == "masks" or masks.shape[-2:] == prototypes.shape[-2:]:
        return masks
    rows, columns = (nearest(size, to, masks.device) for size, to in zip(masks.shape[-2:], prototypes.shape[-2:], strict=True))
    return masks.index_select(1, rows).index_select(2, columns)


def _has_index_maps(spec: LossSpec) -> bool:
    assert isinstance(spec, SegmentationSpec)
    return spec.overlap_mask


def _where_it_lies(given: Given, target: Tensor) -> Tensor:
    """A target on the logits' device, copied only if it is elsewhere, or more than numbers in memory."""
    target = target.detach() if type(target) in PLAIN else given.copied(target)
    return in_memory(target).to(given.boxes.device, non_blocking=True)


def _check_index_maps(given: Given, masks: Tensor) -> None:
    """Indices are whole, from 0 to the image's number of boxes."""
    boxes_B = torch.bincount(given.targets["batch_idx"].to(torch.int64), minlength=given.images).to(masks.device)
    if masks.dtype == torch.bool:
        if (image := int(boxes_B.argmax())) >= 0 and boxes_B[image] > 1:
            raise ValueError(
                f"batch['masks'] has dtype torch.bool, and image {image} has {int(boxes_B[image])} boxes; index maps hold the numbers "
                "1, 2, … of the boxes: give an integer dtype, or overlap_mask=False for instance masks"
            )
        return
    largest = math.inf if masks.is_floating_point() else torch.iinfo(masks.dtype).max  # a larger number would be wrapped to the dtype
    for image, (index_map, boxes) in enumerate(zip(masks, boxes_B.tolist(), strict=True)):
        bad = ~((index_map >= 0) & (index_map <= min(boxes, largest)))
        if masks.is_floating_point():
            bad |= index_map != index_map.trunc()
        if bad.any():
            raise ValueError(
                f"batch['masks'] of image {image} has the index {index_map[bad][0].item()}; an index map holds whole numbers from 0 to "
                f"{boxes}, the image's number of boxes: are they instance masks, which overlap_mask=False takes, or of 0 and 255?"
            )


def _check_instance_masks(masks: Tensor) -> None:
    """Values lie from 0 to 1."""
    if masks.dtype == torch.bool:
        return
    flat = masks.flatten(1)
    low_N, high_N = flat.amin(1), flat.amax(1)
    good_N = (low_N >= 0) & (high_N <= 1)  # False for NaN
    if not good_N.all():
        row = int((~good_N).to(torch.uint8).argmax())
        values = [low_N[row].item(), high_N[row].item()]
        raise ValueError(
            f"batch['masks'] row {row} has values from {values[0]} to {values[1]}; instance masks hold 0 and 1, or shares: divide by 255, "
            "or give index maps with overlap_mask=True"
        )


def _sem_masks(given: Given, found: dict[str, Tensor]) -> Tensor:
    sem_masks, masks = given.batch["sem_masks"], given.batch["masks"]
    check_real("sem_masks", sem_masks)
    expected = (given.images, *masks.shape[1:])
    if tuple(sem_masks.shape) != expected:
        raise ValueError(f"batch['sem_masks'] has shape {tuple(sem_masks.shape)} beside masks of {tuple(masks.shape)}; expected {expected}")
    _check_semantic_grid(given.spec, masks, found["masks"])
    if given.reads(sem_masks):
        cover = TrueMasks(masks, found.get("place")).cover(given.targets["batch_idx"], given.images).to(sem_masks.device)
        whole = comparable(sem_masks).trunc()
        bad = cover & ~((whole >= 0) & (whole < given.spec.num_classes))
        if bad.any():
            image = int(bad.flatten(1).any(1).to(torch.uint8).argmax())
            raise ValueError(
                f"batch['sem_masks'] of image {image} has the class {sem_masks[image][bad[image]][0].item()} at a pixel that an instance "
                f"covers; there are {given.spec.num_classes} classes, from 0"
            )
    return _where_it_lies(given, sem_masks)


def _check_semantic_grid(spec: LossSpec, masks: Tensor, read: Tensor) -> None:
    """The semantic term reads the masks on their own grid; older definitions, which resize them, have no semantic term."""
    assert isinstance(spec, SegmentationSpec)
    own, resized = tuple(masks.shape[1:]), tuple(read.shape[1:])
    if spec.semantic_term and own != resized:
        raise ValueError(
            f"mask_grid='prototypes' resizes batch['masks'] from {own} to {resized}, and the semantic term reads them on their own grid: "
            "give SegmentationSpec(semantic_term=False, …), or preds['proto'] without semantic logits"
        )
