"""Polygons to masks: a pixel belongs to a polygon when its centre lies inside by the even-odd rule.

Only sums, products and quotients are used, so that the masks have the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ring = tuple[float, ...]  # x1, y1, x2, y2, … in pixels of the image
Mask = NDArray[np.bool_]

_CORNER = 0.25  # Share of a side that an octagon's corner cuts off.


def rasterised(rings: Sequence[Ring], image_size: tuple[int, int], size: tuple[int, int]) -> Mask:
    """Returns the mask (rows, columns) of a polygon on a grid of ``size`` over an image of ``image_size``, each height and width.

    Args:
        rings: the outlines of parts and holes; an area inside of two of them is a hole. Those with a coordinate that is not finite are
            left out.
        image_size: in pixels.
        size: rows and columns of the grid.
    """
    toggles = np.zeros((size[0], size[1] + 1), dtype=np.int64)
    for ring in rings:
        points = np.asarray(ring, dtype=np.float64).reshape(-1, 2) * (size[1] / image_size[1], size[0] / image_size[0])
        if np.isfinite(points).all():
            for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
                _toggle(toggles, x1, y1, x2, y2)
    inside: Mask = (toggles.cumsum(axis=1) % 2 == 1)[:, :-1]
    return inside


def _toggle(toggles: NDArray[np.int64], x1: float, y1: float, x2: float, y2: float) -> None:
    """Counts an edge at the first column whose centre lies right of it, in each row whose centre lies between its ends."""
    low, high = min(y1, y2), max(y1, y2)
    rows = np.arange(max(int(np.ceil(low - 0.5)), 0), min(int(np.ceil(high - 0.5)), len(toggles)))
    if len(rows):
        crossing = x1 + (rows + 0.5 - y1) * ((x2 - x1) / (y2 - y1))
        toggles[rows, np.ceil(crossing - 0.5).clip(0, toggles.shape[1] - 1).astype(np.int64)] += 1


def octagon(cx: float, cy: float, w: float, h: float) -> Ring:
    """Returns the outline of an octagon that fills a box, given its centre and size."""
    inner = 1 - 2 * _CORNER
    turns = ((-inner, -1), (inner, -1), (1, -inner), (1, inner), (inner, 1), (-inner, 1), (-1, inner), (-1, -inner))
    return tuple(value for x, y in turns for value in (cx + x * w / 2, cy + y * h / 2))
