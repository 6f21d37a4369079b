"""Writes label files and pictures for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def yolo(folder: Path, **files: str) -> Path:
    """Writes YOLO label files by name; returns the folder ``labels``."""
    labels = folder / "labels" / "train"
    labels.mkdir(parents=True)
    for name, text in files.items():
        (labels / f"{name}.txt").write_text(text)
    return folder / "labels"


BOX = b"0 0.5 0.5 0.25 0.5"
POSE = "0 0.5 0.5 0.4 0.4 0.5 0.5 0.5 0.6 0.6 0.6\n"


def described(folder: Path, **files: str) -> Path:
    """A dataset with a description in its root and label files of one part."""
    description = files.pop("description")
    labels = yolo(folder, **files)
    (folder / "data.yaml").write_text(description)
    return labels


def pictured(folder: Path, name: str, **options: Any) -> Path:
    """Writes a picture under ``images``; returns its path."""
    from PIL import Image

    (folder / "images" / "train").mkdir(parents=True, exist_ok=True)
    path = folder / "images" / "train" / name
    mode, size = options.pop("mode", "RGB"), options.pop("size", (200, 100))
    Image.new(mode, size).save(path, **options)
    return path


def coco_file(folder: Path, **changes: Any) -> Path:
    """Writes a COCO-style file with changed fields; returns its path."""
    record: dict[str, Any] = {
        "images": [{"id": 7, "width": 200, "height": 100}, {"id": 3, "width": 50, "height": 50}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 90, "bbox": [10, 10, 20, 30], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 200.5, 100]},
            {"id": 3, "image_id": 7, "category_id": 5, "bbox": [0, 0, 10, 10], "iscrowd": 1},
        ],
        "categories": [{"id": 90, "name": "b"}, {"id": 5, "name": "a"}, {"id": 6, "name": "unused"}],
    }
    record["annotations"][1] |= changes.pop("annotation", {})
    record["images"][0] |= changes.pop("image", {})
    file = folder / "instances_made.json"
    file.write_text(json.dumps({key: value for key, value in (record | changes).items() if value is not None}))
    return file
