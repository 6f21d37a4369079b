"""Wrong decoding, constants, level gate and similarity of pose (pose spec sections 1 to 5)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from properties.selfcheck.planted_faults.fault import Fault, Make, Patch, with_numbers
from twinloss import PoseSpec
from twinloss.assignment import keypoint_similarity
from twinloss.assignment.overlaps import BoxOverlap
from twinloss.terms import keypoints, pose

PoseFault = partial(Fault, task="pose")


def everywhere(name: str, make: Make) -> tuple[Patch, ...]:
    """Replaces a function both in the terms and in the similarity."""
    return Patch(pose, name, make), Patch(keypoint_similarity, name, make)


def similarity(name: str, make: Make) -> tuple[Patch, ...]:
    """Replaces a function or a number in the similarity alone."""
    return (Patch(keypoint_similarity, name, make),)


def number(holder: Any, name: str, value: Any) -> tuple[Patch, ...]:
    """Replaces a number of a module."""
    return (Patch(holder, name, lambda _: value),)


def means(change: Any) -> tuple[Patch, ...]:
    """Replaces the logarithm of the similarity; ``change`` takes squared errors and visibility (P, k)."""
    return similarity("log_similarity", lambda _: change)


def fits(change: Any) -> tuple[Patch, ...]:
    """Replaces the level gate; ``change`` takes the roots of areas (n, 1) and strides (L,)."""

    def make(_: Any) -> Any:
        return lambda area, strides: change(area.clamp(min=0).sqrt().unsqueeze(1), torch.tensor(strides, dtype=area.dtype))

    return similarity("fits_level", make)


def _between(root: Tensor, stride: Tensor) -> tuple[Tensor, Tensor]:
    return root >= 2 * stride, root <= 12 * stride


def _exclusive(root: Tensor, stride: Tensor) -> Tensor:
    return ((root > 2 * stride) | (stride == stride.min())) & ((root < 12 * stride) | (stride == stride.max()))


def _no_exception_of(end: str) -> Any:
    def gate(root: Tensor, stride: Tensor) -> Tensor:
        large, small = _between(root, stride)
        large |= (stride == stride.min()) & (end != "finest")
        return large & (small | ((stride == stride.max()) & (end != "coarsest")))

    return gate


def _without_rescue(sound: Any) -> Any:
    def candidates(self: Any, pairs: Any) -> Any:
        kept = sound(self, pairs)
        strides = self.scene.pyramid.strides
        level = torch.repeat_interleave(torch.tensor([rows * columns for rows, columns in self.scene.pyramid.grids]))
        fitting = keypoint_similarity.fits_level(self.area, strides)[kept.box, level[kept.anchor]]
        return kept[fitting.nonzero().squeeze(1)]

    return candidates


class _NoOverlap(BoxOverlap):
    """An overlap of boxes that is always 0."""

    def __call__(self, pairs: Any) -> Tensor:
        return super().__call__(pairs) * 0


def _constants(change: Any) -> Any:
    """Returns a replacement of the constants; ``change`` takes the sound function, shape and custom σ, then dtype and device."""
    return lambda sound: lambda *given: change(sound, *given)


def _with_keypoints(change: Any) -> Any:
    return lambda preds, batch: (preds, {**batch, "keypoints": change(batch["keypoints"])} if "keypoints" in batch else batch)


def _clamped(points: Tensor) -> Tensor:
    return torch.cat([points[..., :2].clamp(0, 1), points[..., 2:]], -1)


def _by_component(sound: Any) -> Any:
    def predicted(held: Any) -> Tensor:
        points, numbers = held.spec.keypoint_shape
        columns: Tensor = held.columns("kpts")
        return columns.view(-1, numbers, points).transpose(1, 2).contiguous()

    return predicted


def _transposed(sound: Any) -> Any:
    return lambda held, shares: sound(held, shares.flip(-1)).flip(-1)


_FIRST = "First generation: x̂ = 2·raw_x + a_x − 0.5."
_SECOND = "Second generation: x̂ = raw_x + a_x."
_GATE = "Anchor i stays a candidate of j when (g_j ≥ 2·s_i or s_i is the smallest stride) and (g_j ≤ 12·s_i or s_i is the largest)."
_CONSTANTS = "σ_k: the custom ones; for the shape [17, 3] COCO's; otherwise 1/n for all."
_SIMILARITY = "o_ij = (1/V_j) Σ_k exp(−d²_ik / (8·σ_k²·(0.53·w_j·h_j + ε_k)))."
_TARGETS = "Keypoints become pixels (x·W, y·H) and follow their boxes; coordinates are not clamped."
_VISIBLE = "With 3 numbers a keypoint is visible when its visibility is not 0 (1 and 2 are alike)."

ENTRIES = (
    PoseFault("first generation with factor 1", _FIRST, "3", patches=number(keypoints, "FACTOR", {1: 1.0, 2: 1.0})),
    PoseFault("first generation from the cell's centre", _FIRST, "3", patches=number(keypoints, "SHIFT", {1: 0.0, 2: 0.0})),
    PoseFault("second generation with factor 2", _SECOND, "3", patches=number(keypoints, "FACTOR", {1: 2.0, 2: 2.0})),
    PoseFault("second generation from the cell's corner", _SECOND, "3", patches=number(keypoints, "SHIFT", {1: 0.5, 2: 0.5})),
    PoseFault("raw numbers by component", "Channel = keypoint·E + component.", "1", patches=(Patch(pose, "_predicted", _by_component),)),
    PoseFault("target's x scaled by the height", _TARGETS, "2", patches=(Patch(pose, "_pixels", _transposed),)),
    PoseFault("keypoints of the next box", _TARGETS, "2", before=_with_keypoints(lambda points: points.roll(-1, 0))),
    PoseFault("targets clamped to the image", _TARGETS, "2", before=_with_keypoints(_clamped)),
    PoseFault(
        "occluded keypoints not visible",
        _VISIBLE,
        "1",
        patches=everywhere("visible", lambda sound: lambda points: sound(points) & (points[..., -1] != 1)),
    ),
    PoseFault(
        "every keypoint visible", _VISIBLE, "1", patches=everywhere("visible", lambda _: lambda p: torch.ones_like(p[..., 0]).bool())
    ),
    PoseFault(
        "1/n for COCO's constants",
        _CONSTANTS,
        "4",
        patches=everywhere("doubled_variances", _constants(lambda sound, shape, *rest: sound((shape[0], 2), *rest))),
    ),
    PoseFault(
        "COCO's constants without visibility",
        _CONSTANTS,
        "4",
        patches=everywhere("doubled_variances", _constants(lambda sound, shape, *rest: sound((shape[0], 3), *rest))),
    ),
    PoseFault(
        "custom constants ignored",
        _CONSTANTS,
        "4",
        patches=everywhere("doubled_variances", _constants(lambda sound, shape, sigmas, *rest: sound(shape, None, *rest))),
    ),
    PoseFault("2σ² for 8σ²", _SIMILARITY, "4", patches=everywhere("doubled_variances", _constants(lambda sound, *g: sound(*g) / 4))),
    PoseFault(
        "1/17 for all keypoints",
        _CONSTANTS,
        "4",
        patches=everywhere(
            "doubled_variances",
            _constants(lambda sound, shape, s, *r: sound((17, 2), s, *r)[:1].expand(shape[0]) if s is None else sound(shape, s, *r)),
        ),
    ),
    PoseFault(
        "constants of the similarity 1 % too large",
        _SIMILARITY,
        "4",
        patches=similarity("doubled_variances", _constants(lambda sound, *given: sound(*given) * 1.01)),
    ),
    PoseFault("gate from 3 strides", _GATE, "4", patches=number(keypoint_similarity, "LEAST_SIDE", 3)),
    PoseFault("gate to 10 strides", _GATE, "4", patches=number(keypoint_similarity, "MOST_SIDE", 10)),
    PoseFault("borders of the gate excluded", _GATE, "4", patches=fits(_exclusive)),
    PoseFault("gate for the finest level too", _GATE, "4", patches=fits(_no_exception_of("finest"))),
    PoseFault("gate for the coarsest level too", _GATE, "4", patches=fits(_no_exception_of("coarsest"))),
    PoseFault("no level gate", _GATE, "4", patches=fits(lambda root, stride: torch.ones_like(root * stride, dtype=torch.bool))),
    PoseFault(
        "a box may lose all candidates to the gate",
        "A box that would so lose all its candidates keeps all of them.",
        "4",
        patches=(Patch(keypoint_similarity.KeypointOverlap, "candidates", _without_rescue),),
    ),
    PoseFault("whole area in the similarity", _SIMILARITY, "4", patches=number(keypoint_similarity, "AREA_SHARE", 1.0)),
    PoseFault(
        "similarity over all keypoints",
        _SIMILARITY,
        "4",
        patches=means(lambda errors, visible: (-errors).logsumexp(-1) - math.log(errors.shape[-1])),
    ),
    PoseFault(
        "similarity divided by n",
        _SIMILARITY,
        "4",
        patches=means(lambda errors, visible: torch.where(visible, -errors, -torch.inf).logsumexp(-1) - math.log(errors.shape[-1])),
    ),
    PoseFault(
        "similarity of the best keypoint",
        _SIMILARITY,
        "4",
        patches=means(lambda errors, visible: torch.where(visible, -errors, -torch.inf).amax(-1)),
    ),
    PoseFault(
        "distances of the similarity in cells",
        "d is the distance in pixels.",
        "4",
        patches=similarity(
            "keypoint_differences", lambda sound: lambda raw, t, c, strides, g: sound(raw, t, c, strides, g) / strides[:, None, None]
        ),
    ),
    PoseFault(
        "no overlap without visible keypoints",
        "For a box with no visible keypoint, o_ij is D's max(CIoU, 0).",
        "4",
        patches=similarity("BoxOverlap", lambda _: _NoOverlap),
    ),
    PoseFault(
        "second generation assigned by boxes",
        "Second generation: the overlap is the keypoint similarity.",
        "4",
        patches=(Patch(PoseSpec, "overlap", lambda _: property(lambda self: "ciou")),),
    ),
    PoseFault(
        "gains of location and visibility swapped",
        "Each term times its gain.",
        "7",
        spec=with_numbers(gains=lambda s: (*s.gains[:3], s.gains[4], s.gains[3], s.gains[5])),
    ),
)
