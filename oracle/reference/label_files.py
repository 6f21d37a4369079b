"""The reference's reader of label files: the images of a folder that it keeps, their sizes and boxes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import oracle.reference.criterion  # noqa: F401 - first, since it handles the reference's import


class Labelled(NamedTuple):
    """An image that the reference keeps: its sides in pixels, rows (N, 5) of class and box in shares of them, keypoints (N, K, 3)."""

    size: tuple[int, int]
    rows: NDArray[np.float32]
    keypoints: NDArray[np.float32] | None = None


def read_images(images: Path, num_classes: int, keypoints: tuple[int, int] | None = None, *, posed: bool = False) -> dict[str, Labelled]:
    """Returns the images of a folder that the reference keeps, by name without suffix; it writes a cache beside the labels.

    Args:
        images: the folder; its labels are under ``labels`` instead of ``images``.
        num_classes: C.
        keypoints: K and the count of numbers for each, if the dataset has keypoints.
        posed: whether the reader is that of pose, which reads them.
    """
    from ultralytics.data import YOLODataset

    data = {"names": {label: str(label) for label in range(num_classes)}, "nc": num_classes, "channels": 3}
    if keypoints:
        data["kpt_shape"] = list(keypoints)
    task = "pose" if posed else "detect"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = YOLODataset(img_path=str(images), data=data, task=task, imgsz=64, augment=False, cache=False, rect=False).labels
    return {
        Path(label["im_file"]).stem: Labelled(
            (int(label["shape"][1]), int(label["shape"][0])),
            np.concatenate([label["cls"], label["bboxes"]], axis=1),
            label["keypoints"] if posed else None,
        )
        for label in kept
    }
