"""Arguments of the kernels of segmentation: predictions and true masks where they lie, in any strides.

Shape suffixes: B images, P prototypes, A anchors, C classes, N rows of the batch; (h_p, w_p), (h, w) and (h_s, w_s) grids of prototypes,
masks and semantic logits.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from twinloss.backends.call import Call
from twinloss.backends.triton.launch import power_of_two


@dataclass(frozen=True)
class MaskArguments:
    """Predictions and targets of one call of the segmentation loss.

    Attributes:
        coefficients: (B, P, A) of any strides.
        prototypes: (B, P, h_p, w_p) of any strides.
        masks: index maps (B, h, w) or instance masks (N, h, w) of any dtype but bool and any strides; without boxes anything.
        places: (N,) int64, each row's place in its image, for index maps; anything for instance masks.
        index_maps: whether ``masks`` are index maps.
        semantic: (B, C, h_s, w_s) of any strides, or ``None``.
        sem_masks: (B, h, w) of any dtype and strides; ``None`` without semantic logits, or where the batch has none.
    """

    coefficients: Tensor
    prototypes: Tensor
    masks: Tensor
    places: Tensor
    index_maps: bool
    semantic: Tensor | None = None
    sem_masks: Tensor | None = None

    @cached_property
    def channels(self) -> int:
        """P."""
        return self.prototypes.shape[1]

    @cached_property
    def channel_block(self) -> int:
        """Length of a block that holds P channels."""
        return power_of_two(self.channels)

    @cached_property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return int(self.masks.shape[1]), int(self.masks.shape[2])

    @cached_property
    def prototype_grid(self) -> tuple[int, int]:
        """(h_p, w_p)."""
        return int(self.prototypes.shape[2]), int(self.prototypes.shape[3])

    @cached_property
    def same_grid(self) -> bool:
        """Whether masks and prototypes have one grid."""
        return self.grid == self.prototype_grid

    @cached_property
    def grids(self) -> tuple[int | float, ...]:
        """Rows and columns of both grids, and their quotients, in the order of the kernels' argument ``grids``."""
        (rows, columns), (tall, wide) = self.grid, self.prototype_grid
        return rows, columns, tall, wide, tall / rows, wide / columns

    @cached_property
    def resizing(self) -> tuple[int | float, ...]:
        """The same for masks that are resized to the prototypes' grid: the quotients are the inverse ones."""
        (rows, columns), (tall, wide) = self.grid, self.prototype_grid
        return rows, columns, tall, wide, rows / tall, columns / wide

    @cached_property
    def strided_coefficients(self) -> tuple[Tensor | int, ...]:
        """The coefficients with their strides, as the kernels take them."""
        return self.coefficients, *self.coefficients.stride()

    @cached_property
    def strided_prototypes(self) -> tuple[Tensor | int, ...]:
        """The prototypes with their strides, as the kernels take them."""
        return self.prototypes, *self.prototypes.stride()

    @cached_property
    def strided_masks(self) -> tuple[Tensor | int, ...]:
        """The masks with their strides, as the kernels take them."""
        return self.masks, *self.masks.stride()

    @property
    def constants(self) -> dict[str, int]:
        """Compile-time constants of the kernels that compare predicted and true masks, but for their tile."""
        return {"P": self.channels, "P_BLOCK": self.channel_block, "SAME_GRID": self.same_grid, "INDEX_MAPS": self.index_maps}

    @cached_property
    def key(self) -> Hashable:
        """Everything of these arguments that decides which compiled kernels a call needs."""
        tensors = (self.coefficients, self.prototypes, self.masks, self.places, self.semantic, self.sem_masks)
        layouts = tuple(
            tensor if tensor is None else (tensor.dtype, tensor.shape[1:], tensor.stride(), tensor.data_ptr() % 16 == 0)
            for tensor in tensors
        )
        return self.prototypes.device, layouts, self.index_maps


def mask_arguments(call: Call) -> MaskArguments | None:
    """Arguments from a checked call, ``None`` unless it is of the segmentation loss."""
    if call.spec.task != "segment":
        return None
    extras, prototypes = call.extras, call.extras["proto"].detach()
    # Without boxes nothing is read of the masks.
    masks = (
        extras["masks"] if "masks" in extras else torch.empty((0, *prototypes.shape[2:]), dtype=prototypes.dtype, device=prototypes.device)
    )
    return MaskArguments(
        coefficients=extras["mask_coefficient"].detach(),
        prototypes=prototypes,
        masks=masks.view(torch.uint8) if masks.dtype == torch.bool else masks,
        places=extras.get("place", call.batch["batch_idx"]),
        index_maps="place" in extras,
        semantic=extras["semantic"].detach() if "semantic" in extras else None,
        sem_masks=extras.get("sem_masks"),
    )
