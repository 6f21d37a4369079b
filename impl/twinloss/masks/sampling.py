"""Reads a grid of prototypes at pixels of a grid of another size, and the adjoint of that (segmentation spec section 4).

Bilinear, from 2 columns to 4: column 0 reads at max(0.5 · ½ − ½, 0) = 0 and column 1 at 1.5 · ½ − ½ = 0.25:

>>> near, far, share = along_axis(torch.arange(4), 2, 4, torch.float32)
>>> near.tolist(), far.tolist(), share.tolist()
([0, 0, 0, 1], [1, 1, 1, 1], [0.0, 0.25, 0.75, 0.25])

Shape suffixes: P prototypes, m pixels of their grid, c crops, q pixels of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinloss.masks.crops import Chunk


def along_axis(place: Tensor, size: int, resized: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The two neighbours that a resized axis reads at each place, and the share of the farther one.

    Args:
        place: index along the resized axis.
        size: length of the axis.
        resized: its length after resizing.
        dtype: of the shares.
    """
    at = ((place.to(dtype) + 0.5) * torch.tensor(size / resized, dtype=dtype, device="cpu") - 0.5).clamp(min=0)
    near = at.floor()
    index = near.to(torch.int64).clamp(max=size - 1)
    return index, (index + 1).clamp(max=size - 1), at - near


def nearest(size: int, resized: int, device: torch.device) -> Tensor:
    """(resized,): which input each output of an axis takes when it is resized by nearest; the product is float32 (section 4)."""
    place = torch.arange(resized, dtype=torch.float32, device=device) * torch.tensor(size / resized, dtype=torch.float32, device="cpu")
    return place.floor().to(torch.int64).clamp(max=size - 1)


@dataclass(frozen=True)
class Taps:
    """Where the pixels of a chunk read the grid of the prototypes: a sum over a few places, each with a weight.

    Attributes:
        index: (c, q) row · columns + column of each place.
        weight: (c, q) of each place in the dtype of the arithmetic, or ``None`` for 1.
    """

    index: tuple[Tensor, ...]
    weight: tuple[Tensor | None, ...]

    @classmethod
    def of(cls, chunk: Chunk, grid: tuple[int, int], prototypes: tuple[int, int], dtype: torch.dtype) -> Taps:
        """The places for pixels of ``grid``, which prototypes of another size are resized to."""
        if grid == prototypes:
            return cls((chunk.pixel,), (None,))
        (rows, columns), (tall, wide) = grid, prototypes
        above, below, down = along_axis(chunk.y, tall, rows, dtype)
        left, right, across = along_axis(chunk.x, wide, columns, dtype)
        corners = [(above, 1 - down), (below, down)], [(left, 1 - across), (right, across)]
        index, weight = zip(*((y * wide + x, a * b) for y, a in corners[0] for x, b in corners[1]), strict=True)
        return cls(index, weight)

    def read(self, prototypes_Pm: Tensor, dtype: torch.dtype) -> Tensor:
        """Values (c, P, q) of one image's prototypes. A place of weight 0 is not read: infinity and NaN there have no effect."""
        values_Pcq = prototypes_Pm.new_zeros((), dtype=dtype)
        for index_cq, weight_cq in zip(self.index, self.weight, strict=True):
            found_Pcq = prototypes_Pm.index_select(1, index_cq.flatten()).to(dtype).view(-1, *index_cq.shape)
            if weight_cq is None:
                return found_Pcq.transpose(0, 1)
            values_Pcq = values_Pcq + torch.where(weight_cq == 0, 0, found_Pcq * weight_cq)
        return values_Pcq.transpose(0, 1)

    def add_adjoint(self, gradient_Pm: Tensor, by_value_cPq: Tensor) -> None:
        """Add the gradient by the prototypes, given that by the values read (c, P, q)."""
        by_value_Pcq = by_value_cPq.transpose(0, 1)
        for index_cq, weight_cq in zip(self.index, self.weight, strict=True):
            share_Pcq = by_value_Pcq if weight_cq is None else by_value_Pcq * weight_cq
            index_Pn = index_cq.flatten().expand(len(gradient_Pm), -1)
            gradient_Pm.scatter_add_(1, index_Pn, share_Pcq.reshape(len(gradient_Pm), -1))
