"""Instance segmentation: masks from a case's polygons, and coefficients, prototypes and semantic logits from its recipe.

The extra column ``polygons`` has the rings of each box (:mod:`oracle.cases.polygons`); without it every box is filled by an octagon. The
options are ``prototypes`` P, and the grids ``proto_height`` × ``proto_width``, ``mask_height`` × ``mask_width`` and, if ``semantic`` is not
0, ``semantic_height`` × ``semantic_width``. :data:`DEFAULTS` has what is left out.

Prototypes near the truth are 1 inside of masks and −1 outside; each instance of an image has the next of the P prototypes, and an anchor
in its box a coefficient for that prototype alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.cases.case import Box, Case, inline_logits
from oracle.cases.logits import Floats, scene_of
from oracle.cases.noise import Noise
from oracle.cases.polygons import Mask, octagon, rasterised
from oracle.cases.tasks.base import CaseTask
from twinloss import SegmentationSpec

Size = tuple[int, int]

DEFAULTS = {"prototypes": 32.0, "semantic": 0.0}
STRIDES = {"proto": 4, "mask": 4, "semantic": 8}
"""Of the shipped heads and the loader: a grid that no option gives is the image's at this stride."""

_COEFFICIENTS, _PROTOTYPES, _SEMANTIC, _BACKGROUND = range(60, 64)  # streams of noise


@dataclass(frozen=True)
class _Formed:
    """Predictions near the truth: the largest coefficient, and deviations of coefficients, prototypes and semantic logits."""

    peak: float
    coefficients: float
    prototypes: float
    semantic: float


# The deviations are multiplied by the recipe's spread.
_FORMED = {
    "near": _Formed(4.0, 0.5, 0.5, 1.0),
    "exact": _Formed(8.0, 0.0, 0.0, 0.0),
    "early": _Formed(1.0, 0.3, 0.6, 1.5),
    "middle": _Formed(3.0, 0.3, 0.4, 1.5),
    "late": _Formed(6.0, 0.3, 0.2, 1.0),
}


class SegmentTask(CaseTask):
    """Predictions and targets of instance segmentation."""

    def predictions(self, case: Case) -> dict[str, Floats]:
        """Returns ``boxes``, ``scores``, ``mask_coefficient`` (B, P, A), ``proto`` (B, P, h_p, w_p), and ``semantic`` (B, C, h_s, w_s)."""
        shapes = mask_shapes(case)
        kind, spread = case.prediction.kind, np.float32(case.prediction.spread)
        found = super().predictions(case)
        if kind == "inline":
            return found | inline_logits(case, shapes)
        if kind in _FORMED:
            return found | _formed(case, shapes, _FORMED[kind])
        for stream, (name, shape) in enumerate(shapes.items(), _COEFFICIENTS):
            noise = Noise(case.prediction.seed, stream)
            if kind == "zeros":
                found[name] = np.zeros(shape, np.float32)
            elif kind == "saturated":
                draw = noise.uniform(*shape) * 2 - 1
                found[name] = np.where(draw < 0, draw * 6 - 2, draw * 6 + 2).astype(np.float32) * spread
            else:
                found[name] = noise.bell(*shape) * (spread / 10 if kind == "untrained" else spread)
        return found

    def targets(self, case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
        """Returns ``bboxes``, ``masks`` in the encoding of the definition, uint8 or int32, and ``sem_masks`` where semantic logits are."""
        size = grid(case, "mask")
        found = super().targets(case, dtype)
        boxes = np.array([box.image for box in case.boxes], dtype=np.int64)
        instances = np.stack([np.zeros(size, dtype=np.bool_), *instance_masks(case, size)])[1:]
        assert isinstance(case.spec, SegmentationSpec)
        if case.spec.overlap_mask:
            found["masks"] = torch.from_numpy(_index_maps(case.batch_size, boxes, instances))
        else:
            found["masks"] = torch.from_numpy(instances.astype(np.uint8))
        if "semantic" in mask_shapes(case):
            found["sem_masks"] = torch.from_numpy(_classes(case, instances)).to(dtype)
        return found


def grid(case: Case, name: str) -> Size:
    """Returns rows and columns of the grid of ``proto``, ``mask`` or ``semantic``."""
    height, width = (side // STRIDES[name] for side in case.image_size)
    return int(case.options.get(f"{name}_height", height)), int(case.options.get(f"{name}_width", width))


def mask_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the predictions that the task adds, by name."""
    options = DEFAULTS | dict(case.options)
    images, prototypes = case.batch_size, int(options["prototypes"])
    shapes: dict[str, tuple[int, ...]] = {
        "mask_coefficient": (images, prototypes, case.num_anchors),
        "proto": (images, prototypes, *grid(case, "proto")),
    }
    return shapes | ({"semantic": (images, case.spec.num_classes, *grid(case, "semantic"))} if options["semantic"] else {})


def instance_masks(case: Case, size: Size) -> Iterator[Mask]:
    """Yields the mask of each box, in their order, on a grid."""
    polygons = case.extras.get("polygons") or tuple((octagon(box.cx, box.cy, box.w, box.h),) for box in case.boxes)
    return (rasterised(rings, case.image_size, size) for rings in polygons)


def _stacked(boxes: NDArray[np.int64], instances: Mask) -> Iterator[tuple[int, int]]:
    """Yields image and index of each instance in order of falling area, so that the smallest is on top; equal areas as they arrive."""
    for index in np.argsort(-instances.sum((1, 2), dtype=np.int64), kind="stable").tolist():
        yield int(boxes[index]), index


def _index_maps(images: int, boxes: NDArray[np.int64], instances: Mask) -> NDArray[np.int32] | NDArray[np.uint8]:
    """Returns index maps (B, h, w): place in its image plus 1 of the smallest instance that covers each pixel, 0 for background."""
    place = np.array([int((boxes[:row] == image).sum()) for row, image in enumerate(boxes.tolist())], dtype=np.int32)
    maps = np.zeros((images, *instances.shape[1:]), dtype=np.int32)
    for image, index in _stacked(boxes, instances):
        maps[image, instances[index]] = place[index] + 1
    return maps if maps.max(initial=0) > np.iinfo(np.uint8).max else maps.astype(np.uint8)


def _classes(case: Case, instances: Mask) -> Floats:
    """Returns the class (B, h, w) of the smallest instance at each pixel, and any class where there is none."""
    shape = (case.batch_size, *instances.shape[1:])
    classes = np.floor(Noise(case.prediction.seed, _BACKGROUND).uniform(*shape) * case.spec.num_classes).astype(np.float32)
    for image, index in _stacked(np.array([box.image for box in case.boxes], dtype=np.int64), instances):
        classes[image, instances[index]] = case.boxes[index].label
    return classes


def _formed(case: Case, shapes: dict[str, tuple[int, ...]], recipe: _Formed) -> dict[str, Floats]:
    """Returns predictions from which the masks of the truth can be formed, with noise."""
    seed, spread = case.prediction.seed, np.float32(case.prediction.spread)
    scene = scene_of(case, smallest_on_top=case.prediction.kind not in ("near", "exact"))
    channel = _channels(case.boxes, shapes["proto"][1])
    found = {
        "mask_coefficient": spread * np.float32(recipe.coefficients) * Noise(seed, _COEFFICIENTS).bell(*shapes["mask_coefficient"]),
        "proto": spread * np.float32(recipe.prototypes) * Noise(seed, _PROTOTYPES).bell(*shapes["proto"]) - np.float32(1),
    }
    found["mask_coefficient"][scene.image, channel[scene.box], scene.anchor] += np.float32(recipe.peak)
    covered = np.zeros(shapes["proto"], dtype=np.bool_)
    for index, mask in enumerate(instance_masks(case, grid(case, "proto"))):
        covered[case.boxes[index].image, channel[index]] |= mask
    found["proto"] += np.float32(2) * covered
    if "semantic" in shapes:
        found["semantic"] = spread * np.float32(recipe.semantic) * Noise(seed, _SEMANTIC).bell(*shapes["semantic"]) - np.float32(3)
        for index, mask in enumerate(instance_masks(case, grid(case, "semantic"))):
            found["semantic"][case.boxes[index].image, case.boxes[index].label, mask] += np.float32(6)
    return found


def _channels(boxes: tuple[Box, ...], prototypes: int) -> NDArray[np.int64]:
    """Returns the prototype (N,) that forms each box's mask: the next of its image."""
    image = np.array([box.image for box in boxes], dtype=np.int64)
    return np.array([(image[:row] == image[row]).sum() % prototypes for row in range(len(boxes))], dtype=np.int64)
