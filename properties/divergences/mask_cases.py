"""Small batches of instance segmentation, from which the register's cases are built."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from oracle.cases.case import Box, Case, Prediction
from properties.divergences.small_cases import box
from twinloss import SegmentationSpec


def mask_case(*boxes: Box, images: int = 1, semantic: bool = False, kind: Any = "near", **numbers: Any) -> Case:
    """Returns a case of 32 px with two classes, two prototypes and one level of stride 8."""
    usual: dict[str, Any] = {"num_classes": 2, "reg_max": 4, "strides": (8,)}
    options = {"prototypes": 2.0} | ({"semantic": 1.0} if semantic else {})
    return Case(
        SegmentationSpec(**usual | numbers), (32, 32), images, boxes, Prediction(kind, 1, 0.25), workload="register", options=options
    )


FIRST, SECOND = box(4, 4, 20, 20), box(12, 12, 28, 28, image=1, label=1)
ONE = mask_case(FIRST)
TWO, INSTANCES = mask_case(FIRST, SECOND, images=2), mask_case(FIRST, SECOND, images=2, overlap_mask=False)
CROWDED = mask_case(FIRST, box(12, 12, 28, 28, label=1))
SEMANTIC = mask_case(FIRST, semantic=True)
EMPTY_IMAGE = mask_case(FIRST, images=2)
NO_AREA = replace(
    mask_case(Box(0, 0, 12, 12, 0, 8), mask_aware=True), extras={"polygons": (((4.0, 4.0, 20.0, 4.0, 20.0, 20.0, 4.0, 20.0),),)}
)
WEIGHTLESS = replace(mask_case(box(2, 2, 22, 22), reg_max=1), prediction=Prediction("random", 1, 1.0))
