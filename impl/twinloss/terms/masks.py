"""The mask term: cross-entropy of each held anchor's mask in its box (segmentation spec section 4; Bolya et al. 2019, arXiv 1904.02689).

Anchors that one box holds share its pixels and its target, so that the prototypes are read once for each box. Logits of a crop are
computed in either pass and never kept; what remains between the passes is the target inside the crops, one bit a pixel.

Shape suffixes: B images, P prototypes, n held anchors, g boxes that hold any, c crops of one chunk, k anchors of each, q pixels of each, m
pixels of the prototypes' grid; 4 corners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from twinloss.backends.saved_tensors import differentiated_once, save, saved
from twinloss.gather_anchors import held_columns
from twinloss.masks.crops import Chunk, chunks, crops_of, pieces_of
from twinloss.masks.groups import Groups
from twinloss.masks.sampling import Taps
from twinloss.masks.targets import TrueMasks, packed, unpacked
from twinloss.task_specs import SegmentationSpec
from twinloss.terms.classification import working_dtype
from twinloss.terms.held import HeldAnchors

Crop = Literal["exact", "rounded", "wrapped"]
FEW = 50
"""Held anchors of an image below which older definitions round the borders of its crops."""


@dataclass(frozen=True)
class HeldMasks:
    """Held anchors by box: which pixels each of them learns from, and how much one of these counts.

    Attributes:
        image_n, anchor: (n,) image of each held anchor, ascending, and its index within the image.
        groups: held anchors (n,) by row of the batch.
        image: (g,) image of each box.
        crop: (g, 4) pixels of the masks' grid inside the box: [x1, x2) and [y1, y2).
        factor: (g,) 1 / (h · w · a_j · n); the crop of a box without area is empty.
        grid: (h, w).
    """

    image_n: Tensor
    anchor: Tensor
    groups: Groups
    image: Tensor
    crop: Tensor
    factor: Tensor
    grid: tuple[int, int]

    @classmethod
    def of(
        cls,
        image: Tensor,
        anchor: Tensor,
        row: Tensor,
        corners: Tensor,
        image_size: tuple[int, int],
        grid: tuple[int, int],
        crop: Crop = "exact",
    ) -> HeldMasks:
        """Held anchors by box.

        Args:
            image: (n,) image of each held anchor, ascending.
            anchor: (n,) its index within the image, each once.
            row: (n,) row of its box in the batch.
            corners: (n, 4) of its box in pixels; their dtype is that of the arithmetic.
            image_size: (H, W).
            grid: (h, w).
            crop: how the definition treats the crops' borders.
        """
        groups, (height, width) = Groups.of(row), image_size
        corners_g4 = corners[groups.leaders]
        area_g = (corners_g4[:, 2] - corners_g4[:, 0]) / width * ((corners_g4[:, 3] - corners_g4[:, 1]) / height)
        few_g = torch.bincount(image)[image[groups.leaders]] < FEW if crop != "exact" and image.device.type == "cpu" else None
        crop_g4 = torch.where(area_g.unsqueeze(-1) > 0, crops_of(corners_g4, image_size, grid, few_g, wrap=crop == "wrapped"), 0)
        factor_g = 1 / (area_g * (grid[0] * grid[1] * len(row)))
        return cls(image, anchor, groups, image[groups.leaders], crop_g4, factor_g, grid)

    def chunks(self, prototypes: int) -> Iterator[Chunk]:
        """The pixels of all crops, a bounded number at a time, the same in every pass."""
        return chunks(pieces_of(self.crop, self.image), self.grid, lambda pixels: pixels * (2 * prototypes + 4 * self.groups.largest))

    def anchors(self, group: Tensor) -> tuple[Tensor, Tensor]:
        """Held anchors (c, k) of boxes (c,), and what a pixel of each counts (c, k): 0 where a box has fewer, which repeat its first."""
        anchor_ck, there_ck = self.groups.members(group)
        return anchor_ck, torch.where(there_ck, self.factor[group].unsqueeze(-1), 0)


def mask_term(coefficients: Tensor, prototypes: Tensor, held: HeldMasks, masks: TrueMasks) -> Tensor:
    """Mean over the held anchors of the cross-entropy inside their boxes, each divided by the box's area in mask pixels.

    Args:
        coefficients: (B, P, A).
        prototypes: (B, P, h_p, w_p).
        held: n held anchors.
        masks: the true masks; not read after this function returns.

    Returns:
        A scalar in the working dtype: 0 without held anchors. A pixel outside of every crop has no effect.
    """
    columns_nP = held_columns(coefficients, held.image_n, held.anchor)
    result: Tensor = _MaskTerm.apply(columns_nP, prototypes, held, masks)
    return result


MaskTerm = Callable[[Tensor, Tensor, HeldMasks, TrueMasks], Tensor]


def term_of_call(at: HeldAnchors, term: MaskTerm = mask_term) -> Tensor:
    """:func:`mask_term` of a call, or another function for it; without boxes its masks are not there, and nothing is held."""
    extras, masks = at.call.extras, TrueMasks.of(at.call.extras)
    assert isinstance(at.spec, SegmentationSpec)
    held = HeldMasks.of(at.image, at.anchor, at.row, at.pixels, at.image_size, masks.grid, at.spec.crop)
    return term(extras["mask_coefficient"], extras["proto"], held, masks)


class _MaskTerm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, columns_nP: Tensor, prototypes_BPhw: Tensor, held: HeldMasks, masks: TrueMasks) -> Tensor:
        save(ctx, coefficients=columns_nP, prototypes=prototypes_BPhw)
        ctx.held, ctx.targets, dtype = held, [], working_dtype(columns_nP)
        total = columns_nP.new_zeros((), dtype=torch.float64)
        for chunk in held.chunks(columns_nP.shape[1]):
            target_cq = masks.at(held.groups.value[chunk.group], chunk.image, chunk.pixel)
            ctx.targets.append(packed(target_cq))
            crops = _Crops.read(chunk, columns_nP, prototypes_BPhw, held)
            entropy_ckq = cross_entropy(crops.logits, target_cq.to(dtype).unsqueeze(1).expand_as(crops.logits), reduction="none")
            total += (torch.where(chunk.inside.unsqueeze(1), entropy_ckq, 0).sum(-1) * crops.factor).sum(dtype=torch.float64)
        return total.to(dtype)

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (columns_nP, prototypes_BPhw), held = saved(ctx), ctx.held
        dtype, targets = working_dtype(columns_nP), iter(ctx.targets)
        to_columns_nP = torch.zeros_like(columns_nP, dtype=dtype)
        # An end-to-end head detaches its second prototypes.
        to_prototypes_BPhw = torch.zeros_like(prototypes_BPhw) if ctx.needs_input_grad[1] else None
        for image, chunks_ in groupby(held.chunks(columns_nP.shape[1]), lambda chunk: chunk.image):
            to_image_Pm = prototypes_BPhw.new_zeros((prototypes_BPhw.shape[1], prototypes_BPhw[0, 0].numel()), dtype=dtype)
            for chunk in chunks_:
                crops = _Crops.read(chunk, columns_nP, prototypes_BPhw, held)
                residual_ckq = _residual(crops, chunk, next(targets)).mul_((crops.factor * incoming).unsqueeze(-1))
                to_columns_ckP = residual_ckq @ crops.values.transpose(1, 2)
                to_columns_nP.index_add_(0, crops.anchor.flatten(), to_columns_ckP.flatten(0, 1))
                if to_prototypes_BPhw is not None:
                    crops.taps.add_adjoint(to_image_Pm, crops.coefficients.transpose(1, 2) @ residual_ckq)
            if to_prototypes_BPhw is not None:
                to_prototypes_BPhw[image] = to_image_Pm.view(prototypes_BPhw.shape[1:])
        return to_columns_nP.to(columns_nP.dtype), to_prototypes_BPhw, None, None


@dataclass(frozen=True)
class _Crops:
    """Prototypes and logits of one chunk in the dtype of the arithmetic; the residual of an anchor that is not there is multiplied by 0."""

    taps: Taps
    values: Tensor
    anchor: Tensor
    factor: Tensor
    coefficients: Tensor
    logits: Tensor

    @classmethod
    def read(cls, chunk: Chunk, columns_nP: Tensor, prototypes_BPhw: Tensor, held: HeldMasks) -> _Crops:
        dtype = working_dtype(columns_nP)
        taps = Taps.of(chunk, held.grid, (prototypes_BPhw.shape[-2], prototypes_BPhw.shape[-1]), dtype)
        values_cPq = taps.read(prototypes_BPhw[chunk.image].flatten(1), dtype)
        anchor_ck, factor_ck = held.anchors(chunk.group)
        coefficients_ckP = columns_nP[anchor_ck].to(dtype)
        return cls(taps, values_cPq, anchor_ck, factor_ck, coefficients_ckP, coefficients_ckP @ values_cPq)


def _residual(crops: _Crops, chunk: Chunk, kept: Tensor) -> Tensor:
    """σ(x) − y (c, k, q) of a chunk's logits, given what was kept of its targets; 0 where a crop has no such pixel."""
    target_cq = unpacked(kept, chunk.pixel.shape[-1], crops.logits.dtype)
    return crops.logits.sigmoid().sub_(target_cq.unsqueeze(1)).masked_fill_(~chunk.inside.unsqueeze(1), 0)
