"""The batches that are measured, and batches of a user's label files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache

import numpy as np

from oracle.cases.case import Box, Case, Prediction, PredictionKind
from oracle.cases.noise import Noise
from oracle.cases.workloads import LabelledImages, open_images, real_batches
from twinloss import LossSpec

STAGE: PredictionKind = "middle"  # Predictions of a network midway in training: neither noise nor the ground truth.
COVER = 42  # Per cent of the picture that generated boxes would cover if none overlapped: xView's and GWHD's crowded images.
SPREAD = 0.4  # Deviation of the logarithm of their sides.


@dataclass(frozen=True)
class Workload:
    """A batch to measure.

    Attributes:
        name: name in tables, matched by ``-k``.
        what: description.
        boxes: source of the boxes: a name for :func:`oracle.cases.workloads.real_batches`, or the number of generated boxes in each image.
        batch: number of images.
        imgsz: side of the input in pixels.
        num_classes: C; larger labels are taken modulo C. ``None``: the number of classes of the source.
        reg_max: R, the number of bins.
        cover: per cent of the image that generated boxes would cover if none overlapped.
    """

    name: str
    what: str
    boxes: str | int = "coco"
    batch: int = 16
    imgsz: int = 640
    num_classes: int | None = None
    reg_max: int = 16
    cover: int = COVER

    def case(self) -> Case:
        """Returns the batch as a case; every call returns the same one."""
        if isinstance(self.boxes, int):
            classes = self.num_classes or 80
            spec = LossSpec(num_classes=classes, reg_max=self.reg_max)
            boxes = generated(self.boxes, self.batch, self.imgsz, classes, self.cover)
            case = Case(spec, (self.imgsz, self.imgsz), self.batch, boxes)
        else:
            pack = _pack(self.boxes)
            classes = self.num_classes or pack.num_classes
            spec = LossSpec(num_classes=classes, reg_max=self.reg_max)
            layout = "mosaic" if _source(self.boxes) != self.boxes else "letterbox"
            case = next(iter(real_batches(pack, imgsz=self.imgsz, batch=self.batch, layout=layout, spec=spec)))
            case = dataclasses.replace(case, boxes=tuple(dataclasses.replace(box, label=box.label % classes) for box in case.boxes))
        return dataclasses.replace(case, prediction=Prediction(kind=STAGE, seed=1), workload=self.name, tags=())

    @property
    def origin(self) -> str:
        """Source of the boxes, for reports."""
        return "generated" if isinstance(self.boxes, int) else _pack(self.boxes).origin


@cache
def _pack(source: str) -> LabelledImages:
    return open_images(_source(source))


def _source(boxes: str) -> str:
    """Returns the name of the data set without the layout; a user's path is returned unchanged."""
    return boxes if boxes.startswith("labels:") else boxes.removesuffix("-mosaic")


def generated(count: int, images: int, imgsz: int, num_classes: int, cover: int = COVER) -> tuple[Box, ...]:
    """Returns boxes spread over each image; their sides are log-normal, and shorter the more boxes there are."""
    noise = Noise(count, images)
    total = count * images
    side = imgsz * (cover / 100 / max(count, 1)) ** 0.5
    sides = (side * np.exp(SPREAD * noise.bell(total, 2).astype(np.float64))).clip(2, imgsz)
    centres = sides / 2 + (imgsz - sides) * noise.uniform(total, 2)
    labels = (noise.uniform(total) * num_classes).astype(np.int64)
    rows = zip(labels.tolist(), centres.round(4).tolist(), sides.round(4).tolist(), strict=True)
    return tuple(Box(at // count, label, *centre, *size) for at, (label, centre, size) in enumerate(rows))


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("coco", "COCO, 16 images at 640 px"),
        Workload("coco-mosaic", "COCO mosaics of four, 16 at 640 px", boxes="coco-mosaic"),
        Workload("gwhd", "wheat heads, 16 images at 640 px: crowded, one class", boxes="gwhd"),
        Workload("boxes-300", "16 images of 300 boxes at 640 px", boxes=300),
        Workload("boxes-1000", "4 images of 1,000 boxes at 640 px", boxes=1000, batch=4),
        Workload("xview", "one image of 4,967 boxes at 640 px", boxes=4967, batch=1, num_classes=60),
        Workload("empty", "16 images without a box at 640 px", boxes=0),
        Workload("coco-1280", "COCO, 4 images at 1,280 px", batch=4, imgsz=1280),
        Workload("classes-1", "COCO's boxes as one class, 16 images at 640 px", num_classes=1),
        Workload("classes-365", "COCO's boxes with a head of 365 classes, 16 images at 640 px", num_classes=365),
        Workload("reg-max-1", "COCO, distances instead of distributions, 16 images at 640 px", reg_max=1),
        Workload("batch-1", "COCO, one image at 640 px", batch=1),
        Workload("batch-64", "COCO, 64 images at 640 px", batch=64),
    )
}


def labelled(labels: str, imgsz: int, batch: int) -> Workload:
    """Returns the workload of a user's label files.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: a label file holds a value that cannot be used; the message names file, line and value.
    """
    source = f"labels:{labels}"
    pack = _pack(source)
    return Workload("labels", f"{pack.origin}, {batch} images at {imgsz} px", boxes=source, batch=batch, imgsz=imgsz)
