"""Packs of public ground truth with masks, oriented boxes and keypoints: labelled images by name, generated ones without the pack.

========= =================================================================================================
masks     ``coco``, ``lvis``, ``taco``, ``uavvaste``, ``nuclei`` (crowded: up to 375 in an image)
oriented  ``hit-uav`` (thermal images from the air), ``nuclei`` and ``taco`` (rectangles of least area)
keypoints ``coco`` (17 points of people), ``mouse`` (7 points, two classes)
========= =================================================================================================
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle.cases.workloads.label_files import labels_of
from oracle.cases.workloads.labelled_images import LabelledImages, data_folder
from oracle.cases.workloads.rectangles import oriented_labels
from oracle.cases.workloads.task_synthetic import with_angles, with_keypoints, with_polygons

Arrays = Mapping[str, NDArray[Any]]

MASKS = {
    "coco": ("masks_coco2017_159", "COCO 2017 masks"),
    "lvis": ("masks_lvis_v05_val97", "LVIS v0.5 masks"),
    "taco": ("masks_taco", "TACO masks of litter"),
    "uavvaste": ("masks_uavvaste", "UAVVaste masks of litter from the air"),
    "nuclei": ("masks_dsb2018_nuclei", "Data Science Bowl 2018 masks of nuclei"),
}
ORIENTED = {
    "hit-uav": ("oriented_hit_uav", "HIT-UAV thermal images, oriented boxes"),
    "nuclei": ("oriented_dsb2018_minrect", "rectangles of least area of the Data Science Bowl 2018 nuclei"),
    "taco": ("oriented_taco_minrect", "rectangles of least area of TACO's litter"),
}
KEYPOINTS = {
    "coco": ("keypoints_coco_val2017_person17", "COCO val2017 keypoints of people"),
    "mouse": ("keypoints_mirror_mouse7", "mirror-mouse keypoints"),
}


def mask_images(name: str) -> LabelledImages:
    """Returns the images of a pack of masks, or of ``labels:PATH``; a line without polygon has its box's corners for one.

    Their ``extras`` have ``polygons``; even-odd fill of a polygon's rings makes the mask. A COCO-style file is read for its boxes, whose
    masks are octagons.

    Raises:
        ValueError: the name is unknown, or a label file is invalid.
        FileNotFoundError: the path does not exist.
    """
    return labels_of(name) or _opened(name, "masks", MASKS, _masks, with_polygons)


def oriented_images(name: str) -> LabelledImages:
    """Returns the images of a pack of oriented boxes, or of ``labels:PATH``.

    Their ``extras`` have ``angle`` in radians, of the box's width.

    Raises:
        ValueError: the name is unknown, or a label file is invalid.
        FileNotFoundError: the path does not exist.
    """
    labels = labels_of(name)
    return oriented_labels(labels) if labels else _opened(name, "oriented", ORIENTED, _oriented, with_angles)


def keypoint_images(name: str) -> LabelledImages:
    """Returns the images of a pack of keypoints, or of ``labels:PATH``; raises likewise.

    Their ``extras`` have ``keypoints``: x, y, visibility (0, 1, 2) each.
    """
    return labels_of(name, posed=True) or _opened(name, "keypoints", KEYPOINTS, _keypoints, with_keypoints)


def _opened(
    name: str,
    kind: str,
    packs: Mapping[str, tuple[str, str]],
    read: Callable[[Arrays], LabelledImages],
    generated: Callable[[str], LabelledImages],
) -> LabelledImages:
    if name not in packs:
        raise ValueError(f"pack {name!r} is unknown; choose one of {', '.join(packs)}")
    file, origin = packs[name]
    folder = data_folder()
    path = Path(folder or ".", f"{file}.npz")
    if folder is None or not path.exists():
        return dataclasses.replace(generated(name), name=f"synthetic-{name}-{kind}")
    with np.load(path) as arrays:
        return dataclasses.replace(read(arrays), name=f"{name}-{kind}", origin=f"{origin}, ground truth")


def _images(arrays: Arrays, boxes: NDArray[np.float64], **extras: tuple[Any, ...]) -> LabelledImages:
    return LabelledImages(
        name="",
        origin="",
        num_classes=len(arrays["names"]),
        sizes=np.stack([arrays["width"], arrays["height"]], axis=1).astype(np.int64),
        starts=arrays["img_ptr"].astype(np.int64),
        labels=arrays["cls"].astype(np.int64),
        boxes=boxes,
        extras=extras,
    )


def _size_of_each(arrays: Arrays) -> NDArray[np.float64]:
    """(N, 2) width and height of each instance's image."""
    return np.stack([arrays["width"], arrays["height"]], axis=1).astype(np.float64)[arrays["img"]]


def _masks(arrays: Arrays) -> LabelledImages:
    size = _size_of_each(arrays)
    parts_of, vertices_of = arrays["inst_ptr"].astype(np.int64), arrays["part_ptr"].astype(np.int64)
    size_of_part = np.repeat(size, np.diff(parts_of), axis=0)
    flat = (arrays["verts"] * np.repeat(size_of_part, np.diff(vertices_of), axis=0)).reshape(-1).tolist()
    ends = (2 * vertices_of).tolist()
    rings = [tuple(flat[start:end]) for start, end in itertools.pairwise(ends)]
    polygons = tuple(tuple(rings[start:end]) for start, end in itertools.pairwise(parts_of.tolist()))
    return _images(arrays, arrays["box"] * np.tile(size, 2), polygons=polygons)


def _oriented(arrays: Arrays) -> LabelledImages:
    longer = _size_of_each(arrays).max(axis=1, keepdims=True)
    rows = arrays["xywhr"].astype(np.float64)
    return _images(arrays, rows[:, :4] * longer, angle=tuple(rows[:, 4].tolist()))


def _keypoints(arrays: Arrays) -> LabelledImages:
    size = _size_of_each(arrays)
    points = np.concatenate([arrays["kpts"] * size[:, None], arrays["vis"][..., None]], axis=2)
    return _images(arrays, arrays["box"] * np.tile(size, 2), keypoints=tuple(map(tuple, points.reshape(len(size), -1).tolist())))
