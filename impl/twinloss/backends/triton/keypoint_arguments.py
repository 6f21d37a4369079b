"""Arguments of the kernels for keypoints: predictions and targets in the layout that they read.

Shape suffixes: B images, A anchors, N rows of the batch, n keypoints, E numbers per predicted keypoint.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from twinloss.anchors import Pyramid, make_anchors
from twinloss.backends.call import Call
from twinloss.task_specs import PoseSpec
from twinloss.terms.keypoints import FACTOR, SHIFT, doubled_variances, likelihood_weights

if TYPE_CHECKING:
    from twinloss.backends.slots import Slots


@dataclass(frozen=True)
class PointArguments:
    """Predictions and targets of one call of the pose loss, contiguous.

    Attributes:
        kpts: (B, n·E, A) raw predictions.
        sigmas: (B, 2n, A) raw deviations; without a likelihood the predictions, which are not read as such.
        keypoints: (N, n, 2 or 3) float32, shares of the image's width and height, and the visibility.
        doubled: (n,) float32, 8σ² of each keypoint.
        weights: (n,) float32, ω of each keypoint.
        centres: (3, A) float32, x and y in grid units and stride in pixels of the anchors.
        points: n.
        factor, shift: a position is factor · raw + centre − shift.
        likelihood: whether there is a likelihood term with deviations.
    """

    kpts: Tensor
    sigmas: Tensor
    keypoints: Tensor
    doubled: Tensor
    weights: Tensor
    centres: Tensor
    points: int
    factor: float
    shift: float
    likelihood: bool

    @property
    def numbers(self) -> int:
        """E."""
        return self.kpts.shape[1] // self.points

    @cached_property
    def compared(self) -> tuple[Tensor | float, ...]:
        """What the assigner reads beside the predicted boxes."""
        numbers = map(float, (self.points, self.numbers, self.keypoints.shape[2]))
        return self.kpts, self.keypoints, self.doubled, self.centres, *numbers

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What the kernels of the terms read."""
        return self.kpts, self.sigmas, self.keypoints, self.doubled, self.weights, self.centres

    @property
    def floor(self) -> float:
        """τ."""
        return torch.finfo(self.sigmas.dtype).tiny

    @property
    def key(self) -> Hashable:
        """What decides which compiled kernels a call needs, beside what other arguments say."""
        layouts = tuple((tensor.dtype, tensor.data_ptr() % 16 == 0) for tensor in self.tensors)
        return layouts, self.kpts.shape, self.keypoints.shape[2], self.likelihood

    def without_predictions(self) -> PointArguments:
        """The arguments without what autograd keeps, and frees."""
        nothing = torch.empty(0, dtype=self.kpts.dtype, device=self.kpts.device)
        return replace(self, kpts=nothing, sigmas=nothing)

    def with_predictions(self, kpts: Tensor, sigmas: Tensor | None = None) -> PointArguments:
        """The arguments with the predictions that autograd returned."""
        kpts = kpts.contiguous()
        return replace(self, kpts=kpts, sigmas=kpts if sigmas is None else sigmas.contiguous())


@dataclass(frozen=True)
class HeldPoints:
    """What the kernels of the terms take.

    Attributes:
        points: predictions and targets.
        slots: the assignment; a slot counts if it has an owner.
        truth: rows of the batch, as :attr:`~twinloss.backends.triton.arguments.KernelArguments.truth`.
        anchors: A.
        call_key: what decides which compiled kernels the call needs.
    """

    points: PointArguments
    slots: Slots
    truth: tuple[Tensor | float, ...]
    anchors: int
    call_key: Hashable

    @property
    def common(self) -> tuple[Any, ...]:
        """Arguments that both kernels begin with."""
        points, slots = self.points, (self.slots.anchor, self.slots.owner)
        decoding = points.factor, points.shift
        return slots[0].shape[0], self.truth, slots, points.tensors, self.anchors, decoding, points.floor

    @property
    def constants(self) -> dict[str, int]:
        """Compile-time constants of both kernels, but for their tile."""
        points = self.points
        return {
            "COUNT": points.points,
            "NUMBERS": points.numbers,
            "TARGET_NUMBERS": points.keypoints.shape[2],
            "LIKELIHOOD": points.likelihood,
        }


def point_arguments(call: Call) -> PointArguments | None:
    """Arguments of a checked call; ``None`` where its task has no keypoints."""
    spec = call.spec
    if not isinstance(spec, PoseSpec):
        return None
    kpts = call.extras["kpts"].detach().contiguous()
    sigmas, device = call.extras.get("kpts_sigma"), kpts.device
    return PointArguments(
        kpts=kpts,
        sigmas=kpts if sigmas is None else sigmas.detach().contiguous(),
        keypoints=call.extras["keypoints"].to(torch.float32).contiguous(),
        doubled=_of_points(spec.keypoint_shape, spec.sigmas, device)[0],
        weights=_of_points(spec.keypoint_shape, spec.sigmas, device)[1],
        centres=_centres(call.pyramid, device),
        points=spec.keypoint_shape[0],
        factor=FACTOR[spec.generation],
        shift=SHIFT[spec.generation],
        likelihood=sigmas is not None and call.flow is not None,
    )


@lru_cache(maxsize=8)
def _centres(pyramid: Pyramid, device: torch.device) -> Tensor:
    centres, strides = make_anchors(pyramid.grids, pyramid.strides, dtype=torch.float32, device=device)
    return torch.cat([centres.T, strides[None]]).contiguous()


@lru_cache(maxsize=8)
def _of_points(shape: tuple[int, int], sigmas: tuple[float, ...] | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """8σ² and ω (n,), copied to the device once."""
    doubled = doubled_variances(shape, sigmas, torch.float32, device)
    return doubled.to(torch.float32), likelihood_weights(shape, device).to(torch.float32)
