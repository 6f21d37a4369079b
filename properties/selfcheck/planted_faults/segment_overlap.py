"""Wrong overlaps of the mask-aware assignment (segmentation spec section 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from properties.selfcheck.planted_faults.fault import Fault, Patch
from twinloss.assignment import mask_agreement, mask_overlap
from twinloss.assignment.mask_overlap import MaskAwareOverlap
from twinloss.assignment.overlaps import BoxOverlap
from twinloss.assignment.ragged import largest

Change = Callable[..., Any]


def agreements(change: Change) -> tuple[Patch, ...]:
    """Changes mu (n,); ``change`` takes the sound function and its arguments."""
    return (Patch(mask_overlap, "mask_ious", lambda sound: lambda *given: change(sound, *given)),)


def combined(change: Callable[[Tensor, Tensor], Tensor]) -> tuple[Patch, ...]:
    """Replaces the mean of both overlaps; ``change`` takes c and mu (P,)."""

    def make(sound: Any) -> Any:
        def call(self: MaskAwareOverlap, pairs: Any) -> Tensor:
            ciou = BoxOverlap.__call__(self, pairs)
            return change(ciou, 2 * sound(self, pairs) - ciou)

        return call

    return (Patch(MaskAwareOverlap, "__call__", make),)


def predicted(change: Change) -> tuple[Patch, ...]:
    """Changes what of the predicted masks is inside their crops; ``change`` takes the sound function and its arguments."""
    return (Patch(mask_agreement, "_inside", lambda sound: lambda *given: change(sound, *given)),)


def crops(change: Change) -> tuple[Patch, ...]:
    """Changes the corners (n, 4) of the predicted boxes in units of the prototypes' grid; ``change`` takes them and the grid."""
    return (Patch(mask_agreement, "whole_pixels", lambda sound: lambda corners, grid: sound(change(corners, grid), grid)),)


def _preselected(change: Change) -> tuple[Patch, ...]:
    return (Patch(MaskAwareOverlap, "_preselected", lambda sound: lambda self, *given: change(sound, self, *given)),)


def _everyone(sound: Any, self: Any, pairs: Any, ciou: Tensor) -> Tensor:
    return torch.arange(len(ciou))


def _by_overlap(sound: Any, self: Any, pairs: Any, ciou: Tensor) -> Any:
    keep = min(3 * self.scene.spec.topk, self.scene.num_anchors)
    return largest(ciou + 1e-9, pairs.box, len(self.scene.truth), keep).sort().values


def _first_box(sound: Any, coefficients: Any, prototypes: Any, masks: Any, image: Any, row: Tensor, *rest: Any) -> Tensor:
    """Crops every predicted mask to the box of the first pair."""
    anchor, corners, height = rest
    return sound(coefficients, prototypes, masks, image, row, anchor, corners[:1].expand_as(corners), height)  # type: ignore[no-any-return]


def _sum_of_sizes(sound: Any, *given: Any) -> Any:
    """|both| / (|one| + |other|) from |both| / |either|."""
    iou = sound(*given)
    return iou / (1 + iou)


def _shows_at_zero(sound: Any, coefficients: Tensor, prototypes: Tensor, *rest: Any) -> Tensor:
    """Lifts every logit by a constant prototype of 1 with a coefficient that no rounding exceeds, so that 0 counts as shown."""
    lift = 1e-30 if coefficients.dtype != torch.float16 else 6e-8
    coefficients = torch.cat([coefficients, torch.full_like(coefficients[:, :1], lift)], 1)
    return sound(coefficients, torch.cat([prototypes, torch.ones_like(prototypes[:, :1])], 1), *rest)  # type: ignore[no-any-return]


def _own_factors(sound: Any) -> Any:
    """Multiplies the corners by the prototypes' columns over W and rows over H."""

    def call(self: MaskAwareOverlap, pairs: Any) -> Tensor:
        height, width = self.scene.pyramid.image_size
        tall, wide = self.scene.extras["proto"].shape[2:]
        stretched = torch.tensor([wide / width * height / tall, 1.0] * 2)

        def mask_ious(sound: Any, *given: Any) -> Tensor:
            *rest, corners, rows = given
            return sound(*rest, corners * stretched.to(corners.dtype), rows)  # type: ignore[no-any-return]

        (patch,) = agreements(mask_ious)
        with patch.applied():
            return sound(self, pairs)  # type: ignore[no-any-return]

    return call


_MEAN = "o_ij = (c_ij + μ_ij) / 2."
_PRESELECTION = "Of each box's row the min(3K, A) largest q = p^α · c^β + ε_a stay."
_PREDICTED = "Predicted mask: the pixels where Σ_k coefficient · proto is > 0, cropped to the anchor's own predicted box."
_IOU = "μ_ij = |∩| / max(|∪|, 1)."


def _fault(name: str, violates: str, patches: tuple[Patch, ...]) -> Fault:
    return Fault(name, violates, "3", patches=patches, task="segment")


ENTRIES: tuple[Fault, ...] = (
    _fault("2K candidates preselected", _PRESELECTION, (Patch(mask_overlap, "PRESELECTED", lambda _: 2),)),
    _fault("4K candidates preselected", _PRESELECTION, (Patch(mask_overlap, "PRESELECTED", lambda _: 4),)),
    _fault("every candidate preselected", _PRESELECTION, _preselected(_everyone)),
    _fault("preselection by the overlap alone", _PRESELECTION, _preselected(_by_overlap)),
    _fault("overlap of the masks alone", _MEAN, combined(lambda c, mu: mu)),
    _fault("overlap of the boxes alone", _MEAN, combined(lambda c, mu: c)),
    _fault("sum of the overlaps", _MEAN, combined(lambda c, mu: c + mu)),
    _fault("geometric mean of the overlaps", _MEAN, combined(lambda c, mu: (c * mu.clamp(min=0)).sqrt())),
    _fault("larger of the overlaps", _MEAN, combined(torch.maximum)),
    _fault("box overlap not halved without masks", _MEAN, combined(lambda c, mu: torch.where(mu > 0, (c + mu) / 2, c))),
    _fault("predicted mask not cropped", _PREDICTED, crops(lambda c, grid: c * 0 + c.new_tensor([0, 0, grid[1], grid[0]]))),
    _fault("predicted mask cropped to whole pixels", _PREDICTED, crops(lambda corners, grid: corners.round())),
    _fault("predicted crop with a factor for each axis", _PREDICTED, (Patch(MaskAwareOverlap, "__call__", _own_factors),)),
    _fault("predicted mask of the first pair's box", _PREDICTED, agreements(_first_box)),
    _fault("logits of 0 shown", _PREDICTED, agreements(_shows_at_zero)),
    _fault("sum of the sizes for the union", _IOU, agreements(_sum_of_sizes)),
    _fault("squared agreement", _IOU, agreements(lambda sound, *given: sound(*given).square())),
    _fault("agreement too large by 1 %", _IOU, agreements(lambda sound, *given: sound(*given) * 1.01)),
)
