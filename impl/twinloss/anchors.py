"""The pyramid of grids and its anchors: one per cell, at the cell's centre (spec section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pyramid:
    """Grids (rows, columns) and strides in pixels of the levels, finest first.

    Raises:
        ValueError: the numbers of grids and strides differ.
    """

    grids: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.grids) != len(self.strides):
            raise ValueError(f"{len(self.grids)} feature maps for {len(self.strides)} strides {self.strides}; give one map per level")

    @property
    def num_anchors(self) -> int:
        """A, over all levels."""
        return sum(rows * columns for rows, columns in self.grids)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Index of each level's first anchor."""
        starts, total = [], 0
        for rows, columns in self.grids:
            starts.append(total)
            total += rows * columns
        return tuple(starts)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels, from the first level (spec section 0)."""
        rows, columns = self.grids[0]
        return rows * self.strides[0], columns * self.strides[0]


def make_anchors(
    grids: Sequence[tuple[int, int]],
    strides: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Anchor centres and strides over all levels (spec section 2).

    Args:
        grids: (rows, columns) of each level, finest first.
        strides: pixels per cell of each level.
        dtype: dtype of the results.
        device: device of the results.

    Returns:
        Centres (A, 2) as (x, y) in grid units of the anchor's own level, and strides (A,) in pixels; x runs fastest, then y, then the
        level.

    Raises:
        ValueError: the numbers of grids and strides differ.

    Example:
        >>> centres, strides = make_anchors([(1, 2), (1, 1)], [8, 16])
        >>> centres.tolist(), strides.tolist()
        ([[0.5, 0.5], [1.5, 0.5], [0.5, 0.5]], [8.0, 8.0, 16.0])
    """
    pyramid = Pyramid(tuple(grids), tuple(strides))
    centres_of_level, strides_of_level = [], []
    for (rows, columns), stride in zip(pyramid.grids, pyramid.strides, strict=True):
        y = torch.arange(rows, dtype=dtype, device=device) + 0.5
        x = torch.arange(columns, dtype=dtype, device=device) + 0.5
        centres_of_level.append(torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1).view(-1, 2))
        strides_of_level.append(torch.full((rows * columns,), stride, dtype=dtype, device=device))
    return torch.cat(centres_of_level), torch.cat(strides_of_level)
