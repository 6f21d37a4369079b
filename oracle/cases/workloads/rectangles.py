"""The rectangle of least area around points, and a user's label files as oriented boxes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from oracle.cases.workloads.labelled_images import LabelledImages

Points = NDArray[np.float64]


def oriented_labels(images: LabelledImages) -> LabelledImages:
    """Returns a user's labels as oriented boxes: the rectangle around a line's polygon or four corners; a box has the angle 0."""
    if "polygons" not in images.extras:  # A COCO-style file is read for its boxes.
        return dataclasses.replace(images, extras={"angle": (0.0,) * len(images.boxes)})
    found = np.array([rectangle(np.reshape(rings[0], (-1, 2))) for rings in images.extras["polygons"]]).reshape(-1, 5)
    return dataclasses.replace(images, boxes=found[:, :4], extras={"angle": tuple(found[:, 4].tolist())})


def rectangle(points: Points) -> tuple[float, float, float, float, float]:
    """Returns centre, sides w ≥ h and angle in [-π/4, 3π/4) of the rectangle of least area around points (n, 2).

    One of its sides lies along an edge of the points' convex hull (Freeman 1975); a square's angle is the first such edge's.
    """
    edges = _hull(points)
    edges = np.roll(edges, -1, axis=0) - edges
    best = min(
        ((*_around(points, angle), angle) for angle in np.arctan2(edges[:, 1], edges[:, 0]).tolist()), key=lambda one: one[2] * one[3]
    )
    x, y, w, h, angle = best
    if w < h:
        w, h, angle = h, w, angle + math.pi / 2
    return x, y, w, h, (angle + math.pi / 4) % math.pi - math.pi / 4


def _around(points: Points, angle: float) -> tuple[float, float, float, float]:
    """Returns centre and sides of the rectangle around points whose first side has this angle."""
    cosine, sine = math.cos(angle), math.sin(angle)
    along, across = points @ (cosine, sine), points @ (-sine, cosine)
    u, v = (along.max() + along.min()) / 2, (across.max() + across.min()) / 2
    return u * cosine - v * sine, u * sine + v * cosine, float(np.ptp(along)), float(np.ptp(across))


def _hull(points: Points) -> Points:
    """Returns the corners of the convex hull in order, by Andrew's monotone chain (1979); all points where they are one."""
    ordered = sorted(set(map(tuple, points.tolist())))
    if len(ordered) < 3:
        return np.array(ordered)
    return np.array(_chain(ordered) + _chain(ordered[::-1]))


def _chain(ordered: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Returns the corners of one half of the hull, without its last."""
    corners: list[tuple[float, ...]] = []
    for x, y in ordered:
        while len(corners) > 1:
            (ax, ay), (bx, by) = corners[-2:]
            if (bx - ax) * (y - ay) > (by - ay) * (x - ax):
                break
            corners.pop()
        corners.append((x, y))
    return corners[:-1]
