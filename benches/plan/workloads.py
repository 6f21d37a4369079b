"""The batches that are measured, and batches of a user's label files."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from oracle.cases.case import Box, Case, Prediction, PredictionKind
from oracle.cases.noise import Noise
from oracle.cases.workloads import LabelledImages
from oracle.cases.workloads.batches import split_layout
from oracle.cases.workloads.label_files import source_of
from oracle.cases.workloads.task_batches import OPENERS, task_batches
from twinloss.task_specs import SPECS

STAGE: PredictionKind = "middle"  # Predictions of a network midway in training: neither noise nor the ground truth.
COVER = 42  # Per cent of the picture that generated boxes would cover if none overlapped: xView's and GWHD's crowded images.
SPREAD = 0.4  # Deviation of the logarithm of their sides.


@dataclass(frozen=True)
class Workload:
    """A batch to measure.

    Attributes:
        name: name in tables, matched by ``-k``.
        what: description.
        boxes: source of the boxes: the name of a pack, with the layout after it, or the number of generated boxes in each image.
        batch: number of images.
        imgsz: side of the input in pixels.
        num_classes: C; larger labels are taken modulo C. ``None``: the number of classes of the source.
        reg_max: R, the number of bins.
        cover: per cent of the image that generated boxes would cover if none overlapped.
        task: task of the loss.
        numbers: further fields of the definition that differ from the default.
        semantic: of segmentation, whether there is a semantic term.
    """

    name: str
    what: str
    boxes: str | int = "coco"
    batch: int = 16
    imgsz: int = 640
    num_classes: int | None = None
    reg_max: int = 16
    cover: int = COVER
    task: str = "detect"
    numbers: tuple[tuple[str, Any], ...] = ()
    semantic: bool = False

    def case(self) -> Case:
        """Returns the batch as a case; every call returns the same one."""
        numbers = {"reg_max": self.reg_max, **dict(self.numbers)} | ({"num_classes": self.num_classes} if self.num_classes else {})
        if isinstance(self.boxes, int):
            spec = SPECS[self.task](**{"num_classes": 80} | numbers)
            boxes = generated(self.boxes, self.batch, self.imgsz, spec.num_classes, self.cover)
            case = Case(spec, (self.imgsz, self.imgsz), self.batch, boxes, extras=_extras(self.task, len(boxes)))
        else:
            source, layout = split_layout(self.boxes)
            sizes = {"imgsz": self.imgsz, "batch": self.batch}
            pack = _pack(self.task, source)
            case = next(task_batches(self.task, pack, numbers=numbers, semantic=self.semantic, layout=layout, **sizes))
            boxes = tuple(dataclasses.replace(box, label=box.label % case.spec.num_classes) for box in case.boxes)
            case = dataclasses.replace(case, boxes=boxes)
        return dataclasses.replace(case, prediction=Prediction(kind=STAGE, seed=1), workload=self.name, tags=())

    @property
    def origin(self) -> str:
        """Source of the boxes, for reports."""
        return "generated" if isinstance(self.boxes, int) else _pack(self.task, split_layout(self.boxes)[0]).origin


@cache
def _pack(task: str, source: str) -> LabelledImages:
    return OPENERS[task](source)


def _extras(task: str, count: int) -> dict[str, tuple[float, ...]]:
    """Returns what the task adds to so many generated boxes: an angle in [-π/4, 3π/4) to oriented ones."""
    if task != "oriented" or not count:
        return {}
    return {"angle": tuple((math.pi * (Noise(count, 5).uniform(count).astype(np.float64) - 0.25)).round(6).tolist())}


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


_WITH_FLOW = (("generation", 2), ("flow", True))

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
        Workload("masks", "COCO masks, 16 images at 640 px", task="segment"),
        Workload(
            "masks-26", "the same, mask-aware and with a semantic term", task="segment", numbers=(("mask_aware", True),), semantic=True
        ),
        Workload("masks-nuclei", "8 images of up to 375 nuclei at 640 px", boxes="nuclei-crowded", batch=8, task="segment"),
        Workload("masks-lvis", "LVIS masks in 1,230 classes, 4 images at 640 px", boxes="lvis", batch=4, task="segment"),
        Workload("oriented", "thermal images from the air, 16 at 640 px", boxes="hit-uav", task="oriented"),
        Workload("oriented-nuclei", "16 images of up to 375 rectangles of nuclei at 640 px", boxes="nuclei-crowded", task="oriented"),
        Workload("oriented-2000", "one image of 2,000 oriented boxes at 640 px", boxes=2000, batch=1, num_classes=15, task="oriented"),
        Workload("people", "COCO's people, 16 images at 640 px", task="pose"),
        Workload("people-26", "the same, of the second generation without a flow", task="pose", numbers=(("generation", 2),)),
        Workload("people-26-flow", "the same, with the model's flow", task="pose", numbers=_WITH_FLOW),
        Workload("people-crowded", "COCO's images with the most people, 16 at 640 px", boxes="coco-crowded", task="pose"),
        Workload("people-crowded-26", "the same, second generation with the model's flow", "coco-crowded", task="pose", numbers=_WITH_FLOW),
        Workload("mouse", "mice seen from two sides, 16 images at 640 px", boxes="mouse", task="pose"),
        Workload("mouse-26", "the same, second generation with the model's flow", boxes="mouse", task="pose", numbers=_WITH_FLOW),
    )
}


def labelled(
    labels: str, imgsz: int, batch: int, name: str = "labels", task: str = "detect", keypoints: tuple[int, int] | None = None
) -> Workload:
    """Returns the workload of a user's label files; ``keypoints`` is the shape of theirs, where the user gives it.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: a label file holds a value that cannot be used; the message names file, line and value.
    """
    source = source_of(labels, keypoints)
    pack = _pack(task, source)
    return Workload(name, f"{pack.origin}, {batch} images at {imgsz} px", boxes=source, batch=batch, imgsz=imgsz, task=task)
