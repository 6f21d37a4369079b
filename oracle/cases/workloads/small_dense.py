"""Small batches with many conflicts, for slow runs such as those in the PTX interpreter."""

from __future__ import annotations

import dataclasses
from typing import Any

from oracle.cases.case import Box, Case, Prediction, PredictionKind
from oracle.cases.noise import Noise
from twinloss import LossSpec, SegmentationSpec


def small_dense(
    boxes: int = 8,
    *,
    size: tuple[int, int] = (64, 96),
    images: int = 2,
    seed: int = 0,
    kind: PredictionKind = "near",
    **numbers: Any,
) -> Case:
    """Returns a case of overlapping boxes of all sizes, the first of them twice with different classes.

    Args:
        boxes: number of boxes in all images; the copy of the first is added to it.
        size: height and width in pixels.
        images: B.
        seed: seed of the boxes and the predictions.
        kind: kind of the predictions.
        numbers: fields of the :class:`twinloss.LossSpec`; by default three classes and four bins.
    """
    spec = LossSpec(**{"num_classes": 3, "reg_max": 4} | numbers)
    noise = Noise(seed, boxes)
    places = noise.uniform(max(boxes, 1), 4).astype(float)
    drawn = [
        Box(at % images, at % spec.num_classes, x * size[1], y * size[0], 4 + w * 0.7 * size[1], 4 + h * 0.7 * size[0])
        for at, (x, y, w, h) in enumerate(places[:boxes].tolist())
    ]
    twins = [dataclasses.replace(drawn[0], label=(drawn[0].label + 1) % spec.num_classes)] if drawn else []
    return Case(spec, size, images, tuple(drawn + twins), Prediction(kind, seed=seed))


def small_dense_masks(
    boxes: int = 8,
    *,
    size: tuple[int, int] = (64, 96),
    images: int = 2,
    seed: int = 0,
    grid: tuple[int, int] | None = None,
    **numbers: Any,
) -> Case:
    """Returns the same with masks of octagons and semantic logits.

    Args:
        boxes: as above, and so ``size``, ``images`` and ``seed``.
        grid: rows and columns of the true masks, those of the prototypes when left out.
        numbers: fields of the :class:`twinloss.SegmentationSpec`.
    """
    case = small_dense(boxes, size=size, images=images, seed=seed)
    sides = {} if grid is None else dict(zip(("mask_height", "mask_width"), map(float, grid), strict=True))
    spec = SegmentationSpec(**{"num_classes": 3, "reg_max": 4} | numbers)
    return dataclasses.replace(case, spec=spec, options={"prototypes": 5.0, "semantic": 1.0, **sides})
