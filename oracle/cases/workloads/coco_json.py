"""A COCO-style file of labels: ``images``, ``annotations`` with ``bbox`` in pixels, and ``categories``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from oracle.cases.workloads.labelled_images import MOST_CLASSES, Image, LabelledImages, Row, images_from_labels
from oracle.cases.workloads.yolo_file import SLACK
from oracle.tools.parsing import parse_json, read_text

Id = int | str
Side = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

_REMEDIES = {
    "annotations": "give a COCO-style instances_*.json, with images and annotations",
    "images": "give a COCO-style instances_*.json, with images and annotations",
    "categories": "give a list of objects with id, or leave it out",
    "id": "give each image and category a whole number or a text",
    "image_id": "give the id of one of the images",
    "category_id": "give the id of one of the categories",
    "width": "give the image's width in pixels, a whole number from 1 to 1,000,000",
    "height": "give the image's height in pixels, a whole number from 1 to 1,000,000",
    "bbox": "give [left, top, width, height], four numbers in pixels",
    "iscrowd": "give 0 or 1, without quotes",
}


class _Image(msgspec.Struct):
    id: Id
    width: Side
    height: Side


class _Annotation(msgspec.Struct):
    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]
    iscrowd: int | bool | None = None


class _Category(msgspec.Struct):
    id: Id


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category] | None = None


def coco_json(file: Path) -> LabelledImages:
    """Reads the labels of a file; categories become classes in the order of their ids.

    Like the reference's converter, it leaves out crowd regions and boxes without width or height, and keeps one of equal boxes of the same
    category in an image. It reads ``bbox``, not masks.

    Raises:
        ValueError: the file is invalid; the message names the file, the field with its index from 0, and the remedy.
    """
    record = parse_json(read_text(file), _File, file, _REMEDIES)
    if not record.images:
        raise ValueError(f"{file} lists no image; give a COCO-style instances_*.json")
    listed = _images(file, record.images)
    rows: dict[Id, dict[Row, None]] = {image: {} for image in listed}
    label_of = _classes(file, record)
    for index, annotation in enumerate(record.annotations):
        where = f"{file}: annotations[{index}]"
        if annotation.image_id not in listed:
            raise ValueError(f"{where} has image_id {annotation.image_id!r}; {_unknown(annotation.image_id, listed, 'images')}")
        if annotation.category_id not in label_of:
            raise ValueError(
                f"{where} has category_id {annotation.category_id!r}; {_unknown(annotation.category_id, label_of, 'categories')}"
            )
        if not annotation.iscrowd:
            box = _box(annotation.bbox, listed[annotation.image_id], where)
            if min(box[2:]) > 0:
                rows[annotation.image_id].setdefault((label_of[annotation.category_id], *box))
    images: list[Image] = [((image.width, image.height), list(rows[key])) for key, image in listed.items()]
    fewer = len(record.annotations) - sum(len(boxes) for _, boxes in images)
    left_out = f"; {fewer:,} annotations left out: crowds, without area, or repeated" if fewer else ""
    return images_from_labels(file, f"COCO-style labels in {file.name} ({len(images):,} images{left_out})", images, len(label_of))


def _images(file: Path, images: list[_Image]) -> dict[Id, _Image]:
    listed: dict[Id, _Image] = {}
    for index, image in enumerate(images):
        if image.id in listed:
            raise ValueError(f"{file}: images[{index}] has id {image.id!r} like an earlier image; give each image an id of its own")
        listed[image.id] = image
    return listed


def _classes(file: Path, record: _File) -> dict[Id, int]:
    """Returns the class of each category: the rank of its id; the categories are the annotations' if the file lists none."""
    ids = [category.id for category in record.categories or ()]
    if len(set(ids)) < len(ids):
        twice = next(one for index, one in enumerate(ids) if one in ids[:index])
        raise ValueError(f"{file}: categories has the id {twice!r} twice; give each category an id of its own")
    known = set(ids) or {annotation.category_id for annotation in record.annotations if not annotation.iscrowd}
    kinds = {type(one) for one in known}
    if len(kinds) > 1:
        raise ValueError(f"{file}: some ids of categories are numbers and some texts, such as {_examples(known)}; make all of them numbers")
    if len(known) > MOST_CLASSES:
        raise ValueError(f"{file}: {len(known):,} categories; at most {MOST_CLASSES:,} classes fit into memory")
    return {category: label for label, category in enumerate(sorted(known, key=lambda one: (isinstance(one, str), one)))}


def _examples(ids: set[Id]) -> str:
    return " and ".join(repr(next(one for one in sorted(ids, key=str) if isinstance(one, kind))) for kind in (int, str))


def _unknown(wanted: Id, known: dict[Id, _Image] | dict[Id, int], what: str) -> str:
    other = str(wanted) if isinstance(wanted, int) else int(wanted) if wanted.isdecimal() and len(wanted) < 20 else None
    if other in known:
        return f"the id in {what} is {other!r}: write both as numbers, or both as texts"
    return f"{what} lists no such id: add it, or remove the annotation"


def _box(bbox: tuple[float, float, float, float], image: _Image, where: str) -> tuple[float, float, float, float]:
    left, top, width, height = bbox
    box = left + width / 2, top + height / 2, width, height
    shares = (box[0] / image.width, box[1] / image.height, width / image.width, height / image.height)
    if min(width, height) < 0 or not all(-SLACK <= share <= 1 + SLACK for share in shares):
        size = f"{image.width} × {image.height}"
        raise ValueError(
            f"{where} has bbox {list(bbox)} in an image of {size}; give [left, top, width, height] in pixels, within the image"
        )
    return box
