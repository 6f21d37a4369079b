"""Ground truth from files that users have: a COCO-style ``instances_*.json``, a folder of YOLO label files, or a dataset of them."""

from __future__ import annotations

from pathlib import Path

from oracle.cases.workloads.labelled_images import Pack

_GIVE = "give a COCO-style instances_*.json, a folder of YOLO label files, a dataset's root or its data.yaml"


def load_labels(path: Path) -> Pack:
    """The pack in a COCO-style JSON file, in a folder of YOLO label files, or in a dataset of them: its root, or its ``data.yaml``.

    Raises:
        FileNotFoundError: there is nothing at the path, or no label file in the folder.
        ValueError: something cannot be used; the message names the file, the line or field, and the remedy.
    """
    from oracle.cases.workloads.coco_json import coco_json  # and with them msgspec, which a machine that only measures may lack
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
        raise ValueError(f"{error.filename or path} cannot be read ({error.strerror}); see that you may read it") from error
    raise ValueError(f"{path} is no kind of labels that is read; {_GIVE}")
