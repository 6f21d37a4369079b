"""How the cost grows: one number of a batch varies, the others stay."""

from __future__ import annotations

from dataclasses import dataclass

from benches.workloads import Workload

IMAGES = 4


@dataclass(frozen=True)
class Point:
    """One size on a sweep: ``sweep`` says of what, ``size`` how large."""

    sweep: str
    size: int
    workload: Workload


def _anchors(imgsz: int) -> int:
    return sum((imgsz // stride) ** 2 for stride in (8, 16, 32))


def _point(sweep: str, size: int, boxes: int = 16, **changed: int) -> Point:
    fields = {"batch": IMAGES} | changed
    return Point(sweep, size, Workload(f"{sweep}={size}".replace(" ", "-"), f"scaling: {size:,} {sweep}", boxes=boxes, **fields))


SWEEPS: tuple[Point, ...] = (
    *(_point("boxes per image", boxes, boxes) for boxes in (1, 8, 32, 128, 512, 2048)),
    *(_point("anchors", _anchors(side), imgsz=side) for side in (160, 320, 640, 960, 1280)),
    *(_point("classes", classes, num_classes=classes) for classes in (1, 8, 32, 128, 365)),
    *(_point("images", images, batch=images) for images in (1, 2, 4, 8, 16, 32)),
)
