"""Sweeps that show how the cost grows: one number of a batch varies, the others are constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benches.plan.workloads import Workload
from oracle.cases.case import Case

IMAGES = 4
PAIRS = "candidate pairs"


@dataclass(frozen=True)
class Point:
    """One size of a sweep: the number that varies, its value (of candidate pairs the per cent of the image under boxes), and the batch."""

    sweep: str
    size: int
    workload: Workload


def _anchors(imgsz: int) -> int:
    return sum((imgsz // stride) ** 2 for stride in (8, 16, 32))


def _point(sweep: str, size: int, boxes: int = 16, **changed: Any) -> Point:
    fields = {"batch": IMAGES} | changed
    return Point(sweep, size, Workload(f"{sweep}={size}".replace(" ", "-"), f"scaling: {size:,} {sweep}", boxes=boxes, **fields))


SWEEPS: tuple[Point, ...] = (
    *(_point("boxes per image", boxes, boxes) for boxes in (1, 8, 32, 128, 512, 2048)),
    *(_point(PAIRS, cover, 256, cover=cover) for cover in (20, 80, 320, 1280, 5120)),  # the size is counted when it is measured
    *(_point("anchors", _anchors(side), imgsz=side) for side in (160, 320, 640, 960, 1280)),
    *(_point("classes", classes, num_classes=classes) for classes in (1, 8, 32, 128, 365)),
    *(_point("images", images, batch=images) for images in (1, 2, 4, 8, 16, 32)),
)


def candidate_pairs(case: Case) -> int:
    """Returns how many (box, anchor) pairs the assignment scores: anchors whose centre lies in a box, short sides lengthened (spec 5.1)."""
    boxes = np.array([(box.cx, box.cy, box.w, box.h) for box in case.boxes]).reshape(-1, 4)
    half = np.maximum(boxes[:, 2:], case.spec.shortest_side) / 2
    pairs = 0
    for stride, grid in zip(case.spec.strides, case.grids, strict=True):
        first = np.floor((boxes[:, :2] - half) / stride - 0.5).astype(np.int64) + 1
        last = np.ceil((boxes[:, :2] + half) / stride - 0.5).astype(np.int64) - 1
        inside = np.clip(np.minimum(last, np.array(grid[::-1]) - 1) - np.maximum(first, 0) + 1, 0, None)
        pairs += int(inside.prod(axis=1).sum())
    return pairs
