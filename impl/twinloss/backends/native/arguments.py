"""Arguments of the compiled functions for one call of the loss."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from twinloss.assignment.assign import Assignment
from twinloss.backends.call import Call
from twinloss.backends.native.library import Held, KernelArguments, load
from twinloss.inputs.checks import bad_entry
from twinloss.task_specs import OrientedSpec, PoseSpec
from twinloss.terms.keypoints import FACTOR, SHIFT, doubled_variances, likelihood_weights

HOST = torch.device("cpu")
"""Passed to every function that creates a tensor: torch's default device can be another."""


class Targets(NamedTuple):
    """Ground truth and the definition's numbers for it, contiguous, not the caller's.

    Attributes:
        image: (N,) int64.
        label: (N,) int64.
        box: (N, 4) or (N, 5) float32.
        class_weights: (C,) float32, or ``None``.
        keypoints: (N, n, 2 or 3) float32 where boxes have them, else ``None``.
        doubled: (n,) float32, 8σ² of each keypoint, where there are keypoints.
        point_weights: (n,) float32, ω of each keypoint, where there are keypoints.
    """

    image: Tensor
    label: Tensor
    box: Tensor
    class_weights: Tensor | None
    keypoints: Tensor | None = None
    doubled: Tensor | None = None
    point_weights: Tensor | None = None

    @classmethod
    def of(cls, call: Call) -> Targets:
        """Targets of a checked call."""
        batch, spec = call.batch, call.spec
        image, label = (batch[key].to(torch.int64) for key in ("batch_idx", "cls"))
        weights = None if spec.class_weights is None else torch.tensor(spec.class_weights, dtype=torch.float32, device=HOST)
        found = cls(image, label, batch["bboxes"].to(torch.float32), weights)
        if not isinstance(spec, PoseSpec):
            return found
        doubled = doubled_variances(spec.keypoint_shape, spec.sigmas, torch.float32, HOST).to(torch.float32)
        weights = likelihood_weights(spec.keypoint_shape, HOST).to(torch.float32)
        return found._replace(keypoints=call.extras["keypoints"].to(torch.float32).contiguous(), doubled=doubled, point_weights=weights)


def kernel_arguments(call: Call, targets: Targets) -> KernelArguments:
    """Arguments of one call. They hold addresses: the tensors must outlive their use."""
    arguments, spec, pyramid = KernelArguments(), call.spec, call.pyramid
    arguments.images, arguments.classes, arguments.anchors = call.scores.shape
    arguments.bins, arguments.levels, arguments.rows, arguments.threads = (
        spec.reg_max,
        len(spec.strides),
        len(targets.box),
        torch.get_num_threads(),
    )
    for level, ((rows, columns), stride) in enumerate(zip(pyramid.grids, pyramid.strides, strict=True)):
        arguments.grid_rows[level], arguments.grid_columns[level], arguments.strides[level] = rows, columns, stride
    point_to(arguments, call.boxes, call.scores, angle_of(call))
    arguments.image, arguments.label, arguments.box = (tensor.data_ptr() for tensor in targets[:3])
    arguments.class_weights = None if targets.class_weights is None else targets.class_weights.data_ptr()
    arguments.topk, arguments.topk2 = spec.topk, spec.second_topk or 0
    arguments.alpha, arguments.beta, arguments.assign_eps, arguments.ciou_eps = spec.alpha, spec.beta, spec.assign_eps, spec.ciou_eps
    arguments.lengthened_below, arguments.shortest_side = spec.lengthened_below, spec.shortest_side
    arguments.longest = spec.largest_target
    arguments.gains[:] = (*spec.gains, 0.0)[:4]
    arguments.overlap_decides, arguments.distance_term = call.conflicts == "overlap", spec.distance_term
    arguments.summed_weights = spec.anchor_weights == "sum"
    if isinstance(spec, PoseSpec):
        arguments.point_factor, arguments.point_shift = FACTOR[spec.generation], SHIFT[spec.generation]
        _point_to_keypoints(arguments, call.extras["kpts"], targets)
        if "kpts_sigma" in call.extras:
            _point_to_sigmas(arguments, call.extras["kpts_sigma"], targets)
    if isinstance(spec, OrientedSpec):
        arguments.probiou_eps, arguments.term_floor, arguments.angle_scale = spec.probiou_eps, spec.term_floor, spec.angle_scale
    return arguments


def angle_of(call: Call) -> Tensor | None:
    """Predicted angles (B, 1, A) of oriented boxes."""
    return call.extras["angle"] if call.spec.geometry == "oriented" else None


def point_to(arguments: KernelArguments, boxes: Tensor, scores: Tensor, angle: Tensor | None) -> None:
    """Store the addresses and strides of the logits."""
    arguments.boxes, arguments.scores = boxes.data_ptr(), scores.data_ptr()
    arguments.boxes_per_image, arguments.boxes_per_channel = boxes.stride()[:2]
    arguments.scores_per_image, arguments.scores_per_channel = scores.stride()[:2]
    if angle is not None:
        arguments.angle, arguments.angle_per_image = angle.data_ptr(), angle.stride(0)


def _point_to_keypoints(arguments: KernelArguments, kpts: Tensor, targets: Targets) -> None:
    """Store the addresses and sizes of predicted and true keypoints."""
    keypoints, doubled = targets.keypoints, targets.doubled
    assert keypoints is not None
    assert doubled is not None
    arguments.kpts, arguments.keypoints, arguments.doubled = kpts.data_ptr(), keypoints.data_ptr(), doubled.data_ptr()
    arguments.kpts_per_image, arguments.kpts_per_channel = kpts.stride()[:2]
    arguments.points, arguments.target_numbers = len(doubled), keypoints.shape[-1]
    arguments.point_numbers = kpts.shape[1] // len(doubled)


def _point_to_sigmas(arguments: KernelArguments, sigmas: Tensor, targets: Targets) -> None:
    """Store the addresses and strides of raw deviations, and the weights of keypoints in the likelihood."""
    assert targets.point_weights is not None
    arguments.sigmas, arguments.point_weights = sigmas.data_ptr(), targets.point_weights.data_ptr()
    arguments.sigmas_per_image, arguments.sigmas_per_channel = sigmas.stride()[:2]
    arguments.sigma_floor = torch.finfo(sigmas.dtype).tiny


def side_by_side(logits: Tensor) -> Tensor:
    """The logits with adjacent anchors adjacent in memory, copied if they are not."""
    return logits if logits.shape[-1] <= 1 or logits.stride(-1) == 1 else logits.contiguous()


def empty_assignment(arguments: KernelArguments) -> Assignment:
    """An unfilled assignment for the largest possible number of held anchors: each was picked, and is held once."""
    capacity = min(arguments.rows * min(arguments.topk, arguments.anchors), arguments.images * arguments.anchors)
    image, anchor, box = torch.empty(3, capacity, dtype=torch.int64, device=HOST)
    return Assignment(image, anchor, box, torch.empty(capacity, dtype=torch.float32, device=HOST))


def address(held: Assignment) -> Held:
    """Addresses of an assignment's columns."""
    return Held(held.image.data_ptr(), held.anchor.data_ptr(), held.box.data_ptr(), held.weight.data_ptr(), len(held))


def scratch(size: int) -> Tensor:
    """Scratch memory of ``size`` bytes from torch's allocator, whose statistics thus include it."""
    return torch.empty(size, dtype=torch.uint8, device=HOST)


def given(arguments: KernelArguments, assignment: Assignment) -> Assignment:
    """A checked assignment in the kernels' dtypes, with its indices checked in any case: the kernels write to these indices.

    Raises:
        ValueError: an entry is out of range, out of order, or there twice; the message names it.
    """
    ours = Assignment(assignment.image, assignment.anchor, assignment.box, assignment.weight.to(torch.float32))
    entry = load().twinloss_first_bad_entry(ctypes.byref(arguments), ctypes.byref(address(ours)), len(ours))
    if entry >= 0:
        raise ValueError(bad_entry(ours, entry, arguments.images, arguments.anchors, arguments.rows))
    return ours
