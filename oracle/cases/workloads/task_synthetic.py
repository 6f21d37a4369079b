"""Generated masks, angles and keypoints on the boxes of :mod:`oracle.cases.workloads.synthetic`, for machines without the packs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from oracle.cases.noise import Noise
from oracle.cases.workloads.labelled_images import LabelledImages
from oracle.cases.workloads.synthetic import generate

CROWDED = ("nuclei", "hit-uav")
"""Packs with many instances in an image."""

VERTICES = 24  # The median of the public masks of nuclei.
POINTS = {"coco": 17, "mouse": 7}
UNLABELLED, HIDDEN = 0.37, 0.08  # COCO's shares of points that are not labelled, and labelled but hidden.


def with_polygons(name: str) -> LabelledImages:
    """Returns boxes with one ring of 24 vertices each, an uneven ellipse that fills about 60 % of its box."""
    pack = _boxes(name, "masks")
    turn = np.arange(VERTICES) * (2 * math.pi / VERTICES)
    reach = 0.5 * (1 - 0.25 * Noise(7, 1).uniform(len(pack.boxes), VERTICES).astype(np.float64))
    outline = np.stack([np.cos(turn) * reach, np.sin(turn) * reach], axis=2)
    rings = pack.boxes[:, None, :2] + outline * pack.boxes[:, None, 2:]
    return _extended(pack, polygons=tuple((tuple(ring),) for ring in rings.reshape(len(rings), -1).tolist()))


def with_angles(name: str) -> LabelledImages:
    """Returns boxes with an angle in [-π/4, 3π/4) each."""
    pack = _boxes(name, "oriented boxes")
    angles = math.pi * (Noise(7, 2).uniform(len(pack.boxes)).astype(np.float64) - 0.25)
    return _extended(pack, angle=tuple(angles.tolist()))


def with_keypoints(name: str) -> LabelledImages:
    """Returns boxes with 17 points each (7 for ``mouse``), of which a few lie outside; visibility has COCO's shares."""
    pack, points = _boxes(name, "keypoints"), POINTS[name]
    noise = Noise(7, 3)
    places = pack.boxes[:, None, :2] + pack.boxes[:, None, 2:] * 0.3 * noise.bell(len(pack.boxes), points, 2).astype(np.float64)
    drawn = noise.uniform(len(pack.boxes), points)
    visibility = np.where(drawn < UNLABELLED, 0.0, np.where(drawn < UNLABELLED + HIDDEN, 1.0, 2.0))
    rows = np.concatenate([places, visibility[..., None]], axis=2).reshape(len(pack.boxes), -1)
    return dataclasses.replace(_extended(pack, keypoints=tuple(map(tuple, rows.tolist()))), num_classes=1, labels=pack.labels * 0)


def _boxes(name: str, what: str) -> LabelledImages:
    pack = generate("gwhd" if name in CROWDED else "coco")
    return dataclasses.replace(pack, origin=f"generated {what} on boxes {pack.origin.removeprefix('generated ')}")


def _extended(pack: LabelledImages, **extras: tuple[Any, ...]) -> LabelledImages:
    return dataclasses.replace(pack, extras=extras)
