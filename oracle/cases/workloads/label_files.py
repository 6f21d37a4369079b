"""Reads a user's label files: a COCO-style ``instances_*.json``, a folder of YOLO label files, or a dataset of them."""

from __future__ import annotations

from pathlib import Path

from oracle.cases.workloads.labelled_images import LabelledImages

_GIVE = "give a COCO-style instances_*.json, a folder of YOLO label files, a dataset's root or its data.yaml"


def load_labels(path: Path) -> LabelledImages:
    """Reads a COCO-style JSON file, a folder of YOLO label files, or a dataset of them: its root, or its ``data.yaml``.

    Raises:
        FileNotFoundError: the path does not exist, or the folder has no label file.
        ValueError: a file is invalid; the message names the file, the line or field, and the remedy.
    """
    from oracle.cases.workloads.coco_json import coco_json  # needs msgspec, which a machine for measurements may lack
    from oracle.cases.workloads.yolo_folder import yolo_dataset, yolo_folder

    try:
        if path.is_dir():
            return yolo_folder(path)
        if not path.exists():
            raise FileNotFoundError(f"no labels at {path.absolute()}; {_GIVE}")
        if path.suffix.lower() in (".yaml", ".yml"):
            return yolo_dataset(path)
        if path.suffix.lower() == ".json":
            return coco_json(path)
    except PermissionError as error:
        raise ValueError(f"{error.filename or path} cannot be read ({error.strerror}); make it readable") from error
    raise ValueError(f"{path} is no label file of a known kind; {_GIVE}")
