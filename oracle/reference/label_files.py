"""The reference's own reader of label files: which images of a folder it keeps, of which size, with which boxes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import oracle.reference.criterion  # noqa: F401 - before anything of the reference itself: it prepares the surroundings


class Labelled(NamedTuple):
    """An image as the reference keeps it: width and height in pixels, and rows (N, 5) of class and box in shares of them."""

    size: tuple[int, int]
    rows: NDArray[np.float32]


def read_images(images: Path, num_classes: int, keypoints: tuple[int, int] | None = None) -> dict[str, Labelled]:
    """The images of a folder, by name without ending, that the reference does not leave out; it writes a cache beside the labels.

    Args:
        images: the folder; its labels are where ``images`` is ``labels``.
        num_classes: C.
        keypoints: K and the numbers for each, of a dataset that has them.
    """
    from ultralytics.data import YOLODataset

    data = {"names": {label: str(label) for label in range(num_classes)}, "nc": num_classes, "channels": 3}
    if keypoints:
        data["kpt_shape"] = list(keypoints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = YOLODataset(img_path=str(images), data=data, task="detect", imgsz=64, augment=False, cache=False, rect=False).labels
    return {
        Path(label["im_file"]).stem: Labelled(
            (int(label["shape"][1]), int(label["shape"][0])), np.concatenate([label["cls"], label["bboxes"]], axis=1)
        )
        for label in kept
    }
