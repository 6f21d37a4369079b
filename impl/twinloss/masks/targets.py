"""What the true masks say, in either encoding (segmentation spec section 1).

Index maps: one a image, j + 1 where its box j shows. Instance masks: one a box. Masks are read where they lie, at the pixels that are asked
for.

>>> places(torch.tensor([1, 0, 1, 1])).tolist()  # rows 0, 2 and 3 are boxes 0, 1 and 2 of image 1
[0, 0, 1, 2]

Shape suffixes: N rows of the batch, h and w the masks' grid, c crops, q pixels of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS_AT_ONCE = 64
"""Instance masks that are looked at as a whole at a time."""


def places(batch_idx: Tensor) -> Tensor:
    """(N,) place of each row within its image, in order of arrival: the j of the specification."""
    order_N = batch_idx.argsort(stable=True)
    sorted_N = batch_idx[order_N]
    before_N = torch.searchsorted(sorted_N.contiguous(), sorted_N.contiguous())
    place_N = torch.empty_like(order_N)
    place_N[order_N] = torch.arange(len(order_N), device=order_N.device) - before_N
    return place_N


def comparable(values: Tensor) -> Tensor:
    """Whole numbers in int64, others as they are: a comparison of bytes with -1 or 300 wraps that number around."""
    return values if values.is_floating_point() else values.to(torch.int64)


@dataclass(frozen=True)
class TrueMasks:
    """The masks of a batch.

    Attributes:
        values: index maps (B, h, w), or instance masks (N, h, w), in any dtype.
        place: (N,) of :func:`places` for index maps; ``None`` for instance masks.
    """

    values: Tensor
    place: Tensor | None

    @classmethod
    def of(cls, extras: Mapping[str, Tensor]) -> TrueMasks:
        """The masks of a call, given its further inputs; without boxes, empty ones."""
        return cls(extras["masks"] if "masks" in extras else extras["proto"].new_zeros(0, 1, 1), extras.get("place"))

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return int(self.values.shape[-2]), int(self.values.shape[-1])

    def at(self, row: Tensor, image: int, pixel: Tensor) -> Tensor:
        """Values of the rows' (c,) masks at pixels (c, q) of one image: bool, or numbers for instance masks of a floating dtype."""
        if self.place is not None:
            return self.values[image].reshape(-1)[pixel] == (self.place[row] + 1).unsqueeze(-1)
        found_cq = self.values.flatten(1)[row.unsqueeze(-1), pixel]
        return found_cq if found_cq.is_floating_point() else found_cq != 0

    def cover(self, batch_idx: Tensor, images: int) -> Tensor:
        """(B, h, w) where any instance shows, given the rows' images (N,)."""
        if self.place is not None:
            return self.values != 0
        covered = torch.zeros(images, *self.grid, dtype=torch.bool, device=self.values.device)
        for image in range(images):
            for row in (batch_idx.reshape(-1) == image).nonzero().squeeze(1).split(ROWS_AT_ONCE):
                covered[image] |= (self.values[row] != 0).any(0)
        return covered


def packed(values: Tensor) -> Tensor:
    """Masks (c, q) in the least memory: eight bool values a byte, numbers as they are."""
    if values.dtype != torch.bool:
        return values
    bits_cq8 = torch.nn.functional.pad(values, (0, -values.shape[-1] % 8)).view(len(values), -1, 8)
    return (bits_cq8 << torch.arange(8, device=values.device, dtype=torch.uint8)).sum(-1, dtype=torch.uint8)


def unpacked(kept: Tensor, pixels: int, dtype: torch.dtype) -> Tensor:
    """Masks (c, q) as numbers of ``dtype``, from what :func:`packed` made of them."""
    if kept.is_floating_point():
        return kept.to(dtype)
    bits_cq8 = (kept.unsqueeze(-1) >> torch.arange(8, device=kept.device, dtype=torch.uint8)) & 1
    return bits_cq8.flatten(1)[:, :pixels].to(dtype)
