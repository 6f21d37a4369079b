"""Synthetic ground truth with the published statistics of a data set, for machines without its files.

Counts, areas and aspect ratios follow the data set's quantiles. Each box takes the one of a few random places with the least overlap.
The number of places is chosen so that, of the anchors inside boxes, the share inside several is that of the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from oracle.cases.noise import Noise
from oracle.cases.workloads.labelled_images import LabelledImages

Rows = NDArray[np.float64]

QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
_MAKING = 1000  # Images of a generated pack.


@dataclass(frozen=True)
class Statistics:
    """Published statistics of a data set, letterboxed to 640 px.

    Attributes:
        title: name of the data set.
        num_classes: C.
        commonest: share of the boxes of the commonest class; the others follow 1 / rank.
        image_sizes: widths and heights, equally likely.
        boxes_per_image: at the quantiles 0, 1, 5, 10, 25, 50, 75, 90, 95, 99 and 100 %.
        root_area: square root of the boxes' area in pixels, at the same quantiles.
        aspect: longer side divided by the shorter, at the same quantiles.
        upright: share of the boxes that are taller than wide.
        places: number of random places tried for each box.
        crowding: exponent by which boxes shrink with the number of boxes in their image.
    """

    title: str
    num_classes: int
    commonest: float
    image_sizes: tuple[tuple[int, int], ...]
    boxes_per_image: tuple[float, ...]
    root_area: tuple[float, ...]
    aspect: tuple[float, ...]
    upright: float
    places: int
    crowding: float


STATISTICS = {
    "coco": Statistics(
        title="COCO val2017",
        num_classes=80,
        commonest=0.3,
        image_sizes=((640, 480), (640, 426), (480, 640), (640, 427)),
        boxes_per_image=(0, 1, 1, 1, 2, 4, 10, 17, 22, 34, 62),
        root_area=(1.585, 5.533, 10.26, 14.45, 26.97, 58.71, 133.4, 256.5, 346.0, 500.1, 640.0),
        aspect=(1.0, 1.008, 1.044, 1.094, 1.271, 1.668, 2.413, 3.379, 4.226, 7.374, 46.7),
        upright=0.59,
        places=1,
        crowding=0.8,
    ),
    "gwhd": Statistics(
        title="Global Wheat Head Dataset 2021",
        num_classes=1,
        commonest=1.0,
        image_sizes=((640, 640),),
        boxes_per_image=(0, 0, 12, 18, 29, 45, 60, 72, 79, 95, 129),
        root_area=(3.062, 19.12, 25.3, 28.8, 35.34, 43.81, 54.21, 67.31, 78.22, 107.8, 389.3),
        aspect=(1.0, 1.0, 1.028, 1.056, 1.149, 1.364, 1.75, 2.308, 2.769, 3.875, 14.92),
        upright=0.42,
        places=2,
        crowding=0.5,
    ),
    "bccd": Statistics(
        title="BCCD",
        num_classes=3,
        commonest=0.85,
        image_sizes=((640, 480),),
        boxes_per_image=(1, 1, 6, 9, 11, 13.5, 16, 19, 20, 25, 30),
        root_area=(20.9, 32.5, 42.06, 80.92, 93.1, 102.0, 111.0, 122.5, 165.9, 227.3, 291.3),
        aspect=(1.0, 1.0, 1.009, 1.019, 1.047, 1.112, 1.213, 1.378, 1.545, 1.86, 3.0),
        upright=0.39,
        places=8,
        crowding=0.2,
    ),
}


@lru_cache(maxsize=4)
def generate(name: str, images: int = _MAKING, seed: int = 0) -> LabelledImages:
    """Returns labelled images with the statistics of ``coco``, ``gwhd`` or ``bccd``, the same on every call."""
    figures, noise = STATISTICS[name], Noise(seed, 100)
    counts = np.rint(np.interp(noise.uniform(images), QUANTILES, figures.boxes_per_image)).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    sizes = np.array(figures.image_sizes)[(noise.uniform(images) * len(figures.image_sizes)).astype(np.int64)]
    sides = _sides(figures, noise, counts)
    boxes = np.concatenate([np.zeros_like(sides), sides], axis=1)
    for image, (width, height) in enumerate(sizes):
        _place(boxes[starts[image] : starts[image + 1]], np.array([width, height]), figures.places, noise)
    return LabelledImages(
        name=f"synthetic-{name}",
        origin=f"generated on the published figures of {figures.title}",
        num_classes=figures.num_classes,
        sizes=sizes,
        starts=starts,
        labels=_labels(figures, noise, len(boxes)),
        boxes=boxes,
    )


def _sides(figures: Statistics, noise: Noise, counts: NDArray[np.int64]) -> Rows:
    """Returns widths and heights (N, 2); the distribution of areas is kept, and images with many boxes get the smaller ones."""
    total = int(counts.sum())
    areas = np.exp(np.interp(noise.uniform(total), QUANTILES, np.log(figures.root_area)))
    crowd = np.repeat(counts, counts).astype(np.float64)
    appetite = np.log(areas) - figures.crowding * np.log(crowd) + 0.5 * noise.bell(total)
    root_area = np.empty(total)
    root_area[np.argsort(appetite, kind="stable")] = np.sort(areas)
    ratio = np.sqrt(np.exp(np.interp(noise.uniform(total), QUANTILES, np.log(figures.aspect))))
    upright = noise.uniform(total) < figures.upright
    return np.stack([root_area * np.where(upright, 1 / ratio, ratio), root_area * np.where(upright, ratio, 1 / ratio)], axis=1)


def _place(boxes: Rows, size: NDArray[np.int64], places: int, noise: Noise) -> None:
    """Sets the centres of one image's boxes (n, 4), and trims their sides, so that each box lies within the image."""
    boxes[:, 2:] = np.minimum(boxes[:, 2:], size)
    for index, box in enumerate(boxes):
        centres = box[2:] / 2 + (size - box[2:]) * noise.uniform(places, 2)
        box[:2] = centres[_shared_area(centres, box[2:], boxes[:index]).argmin()]


def _shared_area(centres: Rows, sides: Rows, others: Rows) -> Rows:
    """Returns the overlap area (P,) of a box with these sides with other boxes (n, 4), for each possible centre (P, 2)."""
    apart = np.abs(centres[:, None] - others[:, :2])
    least = np.minimum(sides, others[:, 2:])
    shared: Rows = ((sides + others[:, 2:]) / 2 - apart).clip(0, least).prod(axis=2).sum(axis=1)
    return shared


def _labels(figures: Statistics, noise: Noise, count: int) -> NDArray[np.int64]:
    shares = 1 / np.arange(1, figures.num_classes + 1)
    shares[1:] *= (1 - figures.commonest) / max(shares[1:].sum(), 1e-9)
    shares[0] = figures.commonest
    return np.searchsorted(np.cumsum(shares), noise.uniform(count)).clip(max=figures.num_classes - 1).astype(np.int64)
