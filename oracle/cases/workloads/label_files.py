"""Ground truth from files that users have: a COCO-style ``instances_*.json``, or a folder of YOLO label files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from oracle.cases.workloads.labelled_images import Pack

_SLACK = 0.01  # Label tools round, so that a box may stick out of its image by a pixel.
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_NOT_LABELS = ("classes.txt", "notes.txt")
_SQUARE = (640, 640)

Row = tuple[int, float, float, float, float]
Image = tuple[tuple[int, int], list[Row]]


def load_labels(path: Path) -> Pack:
    """The pack in a COCO-style JSON file or in a folder of YOLO label files.

    Raises:
        FileNotFoundError: there is nothing at the path, or no label file in the folder.
        ValueError: a value cannot be used; the message names the file, the line or annotation, and the value.
    """
    if path.is_dir():
        return yolo_folder(path)
    if path.is_file():
        return coco_json(path)
    raise FileNotFoundError(f"no labels at {path}; give a COCO-style instances_*.json or a folder of YOLO label files")


def yolo_folder(folder: Path) -> Pack:
    """Every ``*.txt`` below the folder, an image each: lines of class, centre x, centre y, width, height, or of class and a polygon.

    Coordinates are shares of the image's sides. A picture of the same name beside the file, or under ``images`` where the file is under
    ``labels``, tells the image's size; without one the image counts as square.
    """
    files = sorted(file for file in folder.rglob("*.txt") if file.name not in _NOT_LABELS)
    if not files:
        raise FileNotFoundError(f"no *.txt label file in {folder}; give the folder that holds them")
    images = []
    for file in files:
        width, height = size = _picture_size(file)
        rows = [(label, x * width, y * height, w * width, h * height) for label, x, y, w, h in _yolo_rows(file)]
        images.append((size, rows))
    return _pack(folder.name, f"YOLO labels in {folder.name} ({len(files):,} files)", images)


def coco_json(file: Path) -> Pack:
    """A COCO-style instances file: ``images``, ``annotations`` with ``bbox`` in pixels, ``categories``; crowd regions are left out."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: not JSON ({error}); give an instances_*.json or a folder of YOLO label files") from error
    if not isinstance(record, dict) or not {"images", "annotations"} <= record.keys():
        raise ValueError(f"{file}: not a COCO-style file; it has no 'images' and 'annotations'")
    if not record["images"]:
        raise ValueError(f"{file}: it lists no image")
    images = {_field(image, "id", file, "an image"): (_size(image, file), _no_rows()) for image in record["images"]}
    annotations: Sequence[Mapping[str, Any]] = [a for a in record["annotations"] if not a.get("iscrowd")]
    categories = {_field(c, "id", file, "a category") for c in record.get("categories", ())}
    categories = categories or {_field(a, "category_id", file, "an annotation") for a in annotations}
    label_of = {category: label for label, category in enumerate(sorted(categories))}
    for annotation in annotations:
        where = f"annotation {annotation.get('id')}"
        image, category = (_field(annotation, key, file, where) for key in ("image_id", "category_id"))
        if image not in images or category not in label_of:
            raise ValueError(f"{file}: {where} has image_id {image} and category_id {category}; the file lists no such image or category")
        images[image][1].append((label_of[category], *_coco_box(_field(annotation, "bbox", file, where), file, where)))
    return _pack(file.stem, f"COCO-style labels in {file.name} ({len(images):,} images)", list(images.values()), len(label_of))


def _no_rows() -> list[Row]:
    return []


def _pack(name: str, origin: str, images: Sequence[Image], num_classes: int | None = None) -> Pack:
    rows = [row for _, of_image in images for row in of_image]
    labels = np.array([row[0] for row in rows], dtype=np.int64)
    return Pack(
        name=f"labels:{name}",
        origin=origin,
        num_classes=num_classes or int(labels.max(initial=0)) + 1,
        sizes=np.array([size for size, _ in images], dtype=np.int64).reshape(-1, 2),
        starts=np.concatenate([[0], np.cumsum([len(of_image) for _, of_image in images])]).astype(np.int64),
        labels=labels,
        boxes=np.array([row[1:] for row in rows], dtype=np.float64).reshape(-1, 4),
    )


def _yolo_rows(file: Path) -> Iterator[Row]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                yield _yolo_row([float(word) for word in line.split()])
            except ValueError as error:
                raise ValueError(f"{file}, line {number}, {line.strip()[:80]!r}: {error}") from error


def _yolo_row(values: Sequence[float]) -> Row:
    label, *places = values or [math.nan]
    if not (label >= 0 and label == int(label)):
        raise ValueError(f"class {label:g} is not a whole number from 0")
    if len(places) != 4 and (len(places) < 6 or len(places) % 2):
        raise ValueError(f"{len(values)} values; expected class, centre x, centre y, width, height, or a class and a polygon's x and y")
    for value in places:
        if not -_SLACK <= value <= 1 + _SLACK:
            raise ValueError(f"coordinate {value:g} is not between 0 and 1; divide by the image's width and height")
    if len(places) == 4:
        x, y, w, h = places
        return int(label), x, y, max(w, 0.0), max(h, 0.0)
    left, right, top, bottom = min(places[::2]), max(places[::2]), min(places[1::2]), max(places[1::2])
    return int(label), (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _picture_size(file: Path) -> tuple[int, int]:
    swapped = ["images" if part == "labels" else part for part in file.parts]
    for base in {file, Path(*swapped)}:
        for picture in (base.with_suffix(ending) for ending in _IMAGE_ENDINGS):
            if picture.is_file():
                return _header_size(picture)
    return _SQUARE


def _header_size(picture: Path) -> tuple[int, int]:
    from PIL import Image as Pictures  # Reads the header alone.

    with Pictures.open(picture) as opened:
        return opened.size


def _size(image: Mapping[str, Any], file: Path) -> tuple[int, int]:
    where = f"image {image.get('id')}"
    width, height = (_field(image, key, file, where) for key in ("width", "height"))
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise ValueError(f"{file}: {where} has width {width!r} and height {height!r}; both must be whole and positive")
    return width, height


def _field(record: Mapping[str, Any], key: str, file: Path, where: str) -> Any:
    if key not in record:
        raise ValueError(f"{file}: {where} has no {key!r}")
    return record[key]


def _coco_box(bbox: Any, file: Path, where: str) -> tuple[float, float, float, float]:
    numbers = isinstance(bbox, list) and len(bbox) == 4 and all(isinstance(v, int | float) and math.isfinite(v) for v in bbox)
    if not numbers or min(bbox[2:]) < 0:
        raise ValueError(f"{file}: {where} has bbox {bbox!r}; expected [left, top, width, height] in pixels, sizes not negative")
    left, top, width, height = map(float, bbox)
    return left + width / 2, top + height / 2, width, height
