"""Reads a user's label files: a COCO-style ``instances_*.json``, a folder of YOLO label files, or a dataset of them."""

from __future__ import annotations

import re
from pathlib import Path

from oracle.cases.workloads.labelled_images import LabelledImages

_GIVE = "give a COCO-style instances_*.json, a folder of YOLO label files, a dataset's root or its data.yaml"
_SOURCE = re.compile(r"labels(?:\[(\d+),(\d)\])?:(.+)", re.DOTALL)


def source_of(path: str, keypoints: tuple[int, int] | None = None) -> str:
    """Returns the name by which :func:`labels_of` finds label files, with the shape of their keypoints where the user gives it.

    >>> source_of("mice", (7, 3))
    'labels[7,3]:mice'
    """
    shape = f"[{keypoints[0]},{keypoints[1]}]" if keypoints else ""
    return f"labels{shape}:{path}"


def labels_of(name: str, *, posed: bool = False) -> LabelledImages | None:
    """Reads the label files of a name that :func:`source_of` made; returns ``None`` for any other name.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_labels`.
    """
    if not (named := _SOURCE.fullmatch(name)):
        return None
    count, numbers, path = named.groups()
    return load_labels(Path(path), (int(count), int(numbers)) if count else None, posed=posed)


def load_labels(path: Path, keypoints: tuple[int, int] | None = None, *, posed: bool = False) -> LabelledImages:
    """Reads a COCO-style JSON file, a folder of YOLO label files, or a dataset of them: its root, or its ``data.yaml``.

    Args:
        path: the file or folder.
        keypoints: K and the count of numbers for each, of YOLO label files that no ``data.yaml`` describes.
        posed: whether keypoints are wanted, which YOLO label files alone have.

    Raises:
        FileNotFoundError: the path does not exist, or the folder has no label file.
        ValueError: a file is invalid, or lacks keypoints that are wanted; the message names the file, the line or field, and the remedy.
    """
    from oracle.cases.workloads.coco_json import coco_json  # needs msgspec, which a machine for measurements may lack
    from oracle.cases.workloads.yolo_folder import yolo_dataset, yolo_folder

    try:
        if path.is_dir():
            return yolo_folder(path, keypoints, posed=posed)
        if not path.exists():
            raise FileNotFoundError(f"no labels at {path.absolute()}; {_GIVE}")
        if path.suffix.lower() in (".yaml", ".yml"):
            return yolo_dataset(path, keypoints, posed=posed)
        if path.suffix.lower() == ".json":
            if posed:
                raise ValueError(
                    f"{path} is read for its boxes; keypoints are read from YOLO label files: convert it, or leave out --task pose"
                )
            return coco_json(path)
    except PermissionError as error:
        raise ValueError(f"{error.filename or path} cannot be read ({error.strerror}); make it readable") from error
    raise ValueError(f"{path} is no label file of a known kind; {_GIVE}")
