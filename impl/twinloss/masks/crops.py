"""The pixels of boxes on a grid, listed a bounded number at a time (segmentation spec section 4).

A pixel (column c, row r) lies inside a box when x1 ≤ c < x2 and y1 ≤ r < y2, with the integers c and r themselves. The box with x from 0.5
to 3.0 and y from 1.0 to 2.5 keeps columns 1 and 2 and rows 1 and 2:

>>> crops = whole_pixels(torch.tensor([[0.5, 1.0, 3.0, 2.5]]), (4, 8))
>>> crops.tolist()
[[1, 1, 3, 3]]
>>> (chunk,) = chunks(pieces_of(crops, torch.tensor([0])), (4, 8), lambda count: count)
>>> chunk.pixel.tolist(), chunk.inside.all().item()  # row · 8 + column
([[9, 10, 17, 18]], True)

Shape suffixes: g boxes (or groups of anchors with one crop), p pieces, c pieces of one chunk, q pixels; 4 is (x1, y1, x2, y2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from twinloss.assignment.ragged import expand

PIXELS_AT_ONCE = 1 << 14
"""Pixels of one piece of a crop. A crop that has more is cut into pieces of whole rows."""

VALUES_AT_ONCE = 1 << 21
"""Numbers of scratch memory per chunk, about."""


def whole_pixels(corners: Tensor, grid: tuple[int, int]) -> Tensor:
    """Columns and rows inside boxes (g, 4) in mask units, as int64 [x1, x2) and [y1, y2), none of them outside of the grid."""
    rows, columns = grid
    limit_4 = corners.new_tensor([columns, rows, columns, rows])
    first_g2, end_g2 = torch.minimum(corners.ceil().clamp(min=0), limit_4).nan_to_num(0).to(torch.int64).split(2, dim=-1)
    return torch.cat([first_g2, torch.maximum(first_g2, end_g2)], dim=-1)


def crops_of(
    corners: Tensor, image_size: tuple[int, int], grid: tuple[int, int], rounded: Tensor | None = None, *, wrap: bool = False
) -> Tensor:
    """Pixels (g, 4) of the grid inside boxes (g, 4) in pixels of the image: [x1, x2) and [y1, y2).

    The corners are divided by the image's size and then multiplied by the grid's, in this order: it decides borders that lie on a pixel's
    edge (section 9).

    Args:
        corners: of the boxes.
        image_size: (H, W).
        grid: (h, w).
        rounded: (g,) whose borders are rounded first, half to even, as in older definitions (section 13); by default none.
        wrap: whether a rounded border that is negative counts from the far side.
    """
    (height, width), (rows, columns) = image_size, grid
    size_4 = corners.new_tensor([columns, rows, columns, rows])
    units_g4 = corners / corners.new_tensor([width, height, width, height]) * size_4
    if rounded is not None:
        whole_g4 = units_g4.round()
        whole_g4 = torch.where((whole_g4 < 0) & wrap, whole_g4 + size_4, whole_g4)
        units_g4 = torch.where(rounded.unsqueeze(-1), whole_g4, units_g4)
    return whole_pixels(units_g4, grid)


@dataclass(frozen=True)
class Pieces:
    """Rectangles of pixels, none of them empty: all of a small crop, some rows of a large one.

    Attributes:
        group: (p,) which crop.
        image: (p,) its image.
        x, y: (p,) first column and row.
        columns, rows: (p,) numbers of columns and rows.
    """

    group: Tensor
    image: Tensor
    x: Tensor
    y: Tensor
    columns: Tensor
    rows: Tensor

    def __getitem__(self, index: Tensor) -> Pieces:
        fields = (self.group, self.image, self.x, self.y, self.columns, self.rows)
        return Pieces(*(field.index_select(0, index) for field in fields))


def pieces_of(crops: Tensor, image: Tensor, most: int = PIXELS_AT_ONCE) -> Pieces:
    """The pieces of crops (g, 4) of the images (g,)."""
    x1_g, y1_g, x2_g, y2_g = crops.unbind(-1)
    columns_g, rows_g = x2_g - x1_g, torch.where(x2_g > x1_g, y2_g - y1_g, 0)
    rows_at_once_g = (most // columns_g.clamp(min=1)).clamp(min=1)
    group_p, part_p = expand((rows_g + rows_at_once_g - 1) // rows_at_once_g)
    step_p = rows_at_once_g[group_p]
    above_p = part_p * step_p
    rows_p = torch.minimum(step_p, rows_g[group_p] - above_p)
    return Pieces(group_p, image[group_p], x1_g[group_p], y1_g[group_p] + above_p, columns_g[group_p], rows_p)


@dataclass(frozen=True)
class Chunk:
    """Pieces of one image, and their pixels, as many for each as the largest has.

    Attributes:
        image: their image.
        group: (c,) which crop.
        x, y: (c, q) column and row of each pixel.
        pixel: (c, q) row · columns of the grid + column.
        inside: (c, q) False where a piece has no such pixel; ``pixel`` then repeats its first.
    """

    image: int
    group: Tensor
    x: Tensor
    y: Tensor
    pixel: Tensor
    inside: Tensor


def chunks(pieces: Pieces, grid: tuple[int, int], values: Callable[[Tensor], Tensor], at_once: int = VALUES_AT_ONCE) -> Iterator[Chunk]:
    """The pieces, those of one image and of similar size together.

    Args:
        pieces: in any order.
        grid: (rows, columns).
        values: returns for pieces' numbers of pixels (p,) how many numbers of scratch memory each needs.
        at_once: the bound of their sum, unless a single piece needs more.
    """
    pixels_p = pieces.columns * pieces.rows
    order_p = (pieces.image * (1 << 40) + pixels_p).argsort(stable=True)
    pieces, pixels_p = pieces[order_p], pixels_p[order_p]
    table = torch.stack([pieces.image, pixels_p, values(pixels_p)]).tolist()
    start = 0
    while start < len(order_p):
        end = _end_of_chunk(table, start, at_once)
        yield _chunk(pieces[torch.arange(start, end, device=order_p.device)], table[0][start], table[1][end - 1], grid[1])
        start = end


def _end_of_chunk(table: list[list[int]], start: int, at_once: int) -> int:
    """The first piece that no longer fits: of another image, more than twice as large as the first, or too much for the scratch memory."""
    images, pixels, values = table
    end = start + 1
    while (
        end < len(images)
        and images[end] == images[start]
        and pixels[end] <= 2 * pixels[start] + 32
        and (end + 1 - start) * values[end] <= at_once
    ):
        end += 1
    return end


def _chunk(pieces: Pieces, image: int, most_pixels: int, grid_columns: int) -> Chunk:
    place_q = torch.arange(most_pixels, device=pieces.x.device)
    columns_c1 = pieces.columns.unsqueeze(-1)
    inside_cq = place_q < columns_c1 * pieces.rows.unsqueeze(-1)
    place_cq = torch.where(inside_cq, place_q, 0)
    row_cq = place_cq // columns_c1
    x_cq, y_cq = pieces.x.unsqueeze(-1) + place_cq - row_cq * columns_c1, pieces.y.unsqueeze(-1) + row_cq
    return Chunk(image, pieces.group, x_cq, y_cq, y_cq * grid_columns + x_cq, inside_cq)
