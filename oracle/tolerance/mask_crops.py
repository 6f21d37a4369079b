"""Pixels that a crop may keep: borders within rounding of a whole number are open (segmentation spec sections 4 and 9)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from oracle.definition.criterion import Grid
from oracle.definition.mask_formulas import Size, inside_crop
from oracle.definition.segmentation import corners_in_mask_units

BORDER_ROUNDINGS = 4.0  # Of a border in mask units: a quotient and a product, beyond the rounding of the corner.


class Crops(NamedTuple):
    """Pixels (n, rows, columns) inside of n crops: in the definition, in every correct program, in some."""

    inside: Tensor
    certain: Tensor
    possible: Tensor


def crops(corners: Tensor, tolerance: Tensor, size: Size) -> Crops:
    """Returns the pixels inside of crops.

    Args:
        corners: (n, 4) in mask units.
        tolerance: (n, 4) of the corners, 0 where a program cannot round them otherwise.
        size: rows and columns of the grid.
    """
    inward = torch.cat([tolerance[:, :2], -tolerance[:, 2:]], dim=1)
    return Crops(inside_crop(corners, size), inside_crop(corners + inward, size), inside_crop(corners - inward, size))


def truth_crops(corners: Tensor, tolerance: Tensor, grid: Grid, size: Size, roundoff: float) -> Crops:
    """Returns the pixels inside of the ground truth's boxes on the masks' grid.

    Args:
        corners: (n, 4) in pixels, in the dtype of the ground truth.
        tolerance: (n, 4) of the corners, in pixels.
        grid: the anchors' grid, of which the image size is used.
        size: rows and columns of the masks.
        roundoff: of the ground truth.
    """
    units = corners_in_mask_units(corners, grid, size).double()
    height, width = (new / old for new, old in zip(size, (grid.height, grid.width), strict=True))
    scale = torch.tensor([width, height, width, height], dtype=torch.float64)
    exact = (corners.double() * scale == units) & (tolerance == 0)
    off = tolerance * scale + BORDER_ROUNDINGS * roundoff * units.abs()
    return crops(units, off.masked_fill(exact, 0.0), size)
