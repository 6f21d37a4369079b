"""Labelled images as arrays: the form into which every source of boxes is read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_CLASSES = 16_384
"""With more classes a batch of 4 images at 640 px has over 2 GiB of class logits. The largest public vocabulary of boxes, V3Det's, has
13,204 classes."""

_CHECKOUT = Path(__file__).resolve().parents[3]
_GWHD_SIDE = 1024

Row = tuple[int, float, float, float, float]
"""Class, centre x, centre y, width, height."""

Image = tuple[tuple[int, int], list[Row]]
"""Width and height in pixels, and boxes."""


@dataclass(frozen=True)
class LabelledImages:
    """A set of labelled images.

    Attributes:
        name: name of the workload, such as ``coco`` or ``synthetic-coco``.
        origin: origin of the boxes, as text for reports.
        num_classes: C.
        sizes: (I, 2) width and height of each image in pixels.
        starts: (I + 1,) image i owns rows ``starts[i]:starts[i + 1]``.
        labels: (N,) class index.
        boxes: (N, 4) centre x, centre y, width, height in pixels of the image.
        extras: further ground truth by name, one entry per box, in pixels of the image, as in :class:`~oracle.cases.case.Case`: ``angle``,
            a number; ``keypoints``, x, y and visibility of each point; ``polygons``, rings of x and y in turn, from label files also the
            corners of a box.
        keypoint_shape: K and the count of numbers that a model predicts for each, where it is not 3.
    """

    name: str
    origin: str
    num_classes: int
    sizes: NDArray[np.int64]
    starts: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    extras: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    keypoint_shape: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(I,) boxes of each image."""
        return np.diff(self.starts)

    def rows(self, image: int) -> slice:
        """Returns the image's rows of ``labels`` and ``boxes``."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))


def images_from_labels(source: Path, origin: str, images: Sequence[Image], num_classes: int | None = None) -> LabelledImages:
    """Returns the labelled images of a user's labels.

    Args:
        source: file or folder of the labels.
        origin: the source as text for reports.
        images: size and boxes of each image, in pixels.
        num_classes: C; by default one more than the highest class.

    Raises:
        ValueError: there is no box in any image.
    """
    rows = [row for _, of_image in images for row in of_image]
    if not rows:
        raise ValueError(f"{source}: there is no box in any of its {len(images):,} images; give labels of a part that has some")
    labels = np.array([row[0] for row in rows], dtype=np.int64)
    return LabelledImages(
        name=f"labels:{source.stem if source.suffix else source.name}",
        origin=origin,
        num_classes=num_classes or int(labels.max()) + 1,
        sizes=np.array([size for size, _ in images], dtype=np.int64).reshape(-1, 2),
        starts=np.concatenate([[0], np.cumsum([len(of_image) for _, of_image in images])]).astype(np.int64),
        labels=labels,
        boxes=np.array([row[1:] for row in rows], dtype=np.float64).reshape(-1, 4),
    )


def data_folder() -> Path | None:
    """Returns the folder of real ground truth: ``TWINLOSS_DATA``, else ``../shared/data`` beside the checkout, else ``None``.

    Raises:
        FileNotFoundError: ``TWINLOSS_DATA`` names a folder that does not exist.
    """
    named = os.environ.get("TWINLOSS_DATA")
    if named:
        if not Path(named).is_dir():
            raise FileNotFoundError(f"TWINLOSS_DATA is {named!r}, which is not a folder; correct or unset it")
        return Path(named)
    beside = _CHECKOUT.parent / "shared" / "data"
    return beside if beside.is_dir() else None


def coco(folder: Path) -> LabelledImages:
    """Reads COCO val2017 without its crowd regions: 80 classes, images of many shapes."""
    with np.load(folder / "coco_val2017_boxes.npz") as arrays:
        keep = ~arrays["iscrowd"]
        kept_before = np.concatenate([[0], np.cumsum(keep)])
        return LabelledImages(
            name="coco",
            origin="COCO val2017 ground truth",
            num_classes=len(arrays["names"]),
            sizes=np.stack([arrays["width"], arrays["height"]], axis=1).astype(np.int64),
            starts=kept_before[arrays["ptr"]].astype(np.int64),
            labels=arrays["cls"][keep].astype(np.int64),
            boxes=_centred(arrays["xywh_centipx"][keep] / 100),
        )


def gwhd(folder: Path) -> LabelledImages:
    """Reads the Global Wheat Head Dataset 2021: one class, 45 boxes in the median image."""
    with np.load(folder / "gwhd2021_train_boxes.npz") as arrays:
        corners = arrays["xyxy"].astype(np.float64)
        starts = arrays["ptr"].astype(np.int64)
        return LabelledImages(
            name="gwhd",
            origin="Global Wheat Head Dataset 2021 ground truth",
            num_classes=1,
            sizes=np.full((len(starts) - 1, 2), _GWHD_SIDE, dtype=np.int64),
            starts=starts,
            labels=np.zeros(len(corners), dtype=np.int64),
            boxes=np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1),
        )


def _centred(corner_and_size: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([corner_and_size[:, :2] + corner_and_size[:, 2:] / 2, corner_and_size[:, 2:]], axis=1)
