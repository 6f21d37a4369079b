"""Arguments of the kernels for one call of the loss: inputs in the layout that they read, and the memory between launches.

Shape suffixes: B images, C classes, A anchors, R bins per side, N rows of the batch, K picks per row, S = N·K slots.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.assignment.assign import Conflicts
from twinloss.assignment.mask_overlap import PRESELECTED
from twinloss.backends.triton.keypoint_arguments import PointArguments
from twinloss.backends.triton.launch import Kernels, kernels_for
from twinloss.backends.triton.mask_arguments import MaskArguments
from twinloss.backends.triton.tiles import CandidatesTile, candidates_tile
from twinloss.spec import LossSpec
from twinloss.task_specs import OrientedSpec

KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class KernelArguments:
    """Inputs of one call, in the layout that the kernels read.

    Attributes:
        boxes: (B, 4R, A) logits; each image's block is contiguous, and any stride may lie between images.
        scores: (B, C, A) logits, in the same layout.
        batch_idx: (N,) of any dtype, contiguous, on the logits' device.
        cls: (N,), likewise.
        bboxes: (N, 4), likewise; of oriented boxes (N, 5).
        angle: (B, 1, A) predicted angles of oriented boxes, in the layout of the logits; of upright ones anything, which is not read.
        spec: the definition.
        pyramid: the grids.
        conflicts: which boxes may win a contested anchor.
        points: predicted and true keypoints, where there are any.
        masks: the further arguments of segmentation, ``None`` for other tasks.
    """

    boxes: Tensor
    scores: Tensor
    batch_idx: Tensor
    cls: Tensor
    bboxes: Tensor
    angle: Tensor
    spec: LossSpec
    pyramid: Pyramid
    conflicts: Conflicts = "overlap"
    points: PointArguments | None = None
    masks: MaskArguments | None = None

    @cached_property
    def images(self) -> int:
        """B."""
        return self.boxes.shape[0]

    @cached_property
    def anchors(self) -> int:
        """A."""
        return self.boxes.shape[2]

    @cached_property
    def rows(self) -> int:
        """N, padding rows included."""
        return self.batch_idx.shape[0]

    @cached_property
    def picks(self) -> int:
        """Slots per row: K, or A if there are fewer anchors."""
        return min(self.spec.topk, self.anchors)

    @cached_property
    def second_topk(self) -> int:
        """Anchors that a box keeps after conflicts; 0 if the definition has no second cut."""
        return min(self.spec.second_topk or 0, self.anchors)

    @cached_property
    def listed(self) -> int:
        """Anchors of each row whose masks are compared; 0 if the assigner does not look at masks."""
        return min(PRESELECTED * self.spec.topk, self.anchors) if self.spec.overlap == "ciou and masks" else 0

    @cached_property
    def weighted(self) -> bool:
        """Whether classes have weights."""
        return self.spec.class_weights is not None

    @cached_property
    def gains(self) -> tuple[float, ...]:
        """Factors of the terms in their order; that of the distribution (R = 1: distance) term is 0 if the definition has none."""
        box, classification, dfl = self.spec.gains[:3]
        found = float(box), float(classification), float(dfl) if self.spec.reg_max > 1 or self.spec.distance_term else 0.0
        return (*found, float(self.spec.gains[3])) if self.oriented else found

    @cached_property
    def oriented(self) -> bool:
        """Whether the boxes are oriented."""
        return self.spec.geometry == "oriented"

    @cached_property
    def overlap(self) -> int:
        """What the overlap of a pair is, as :mod:`~twinloss.backends.triton.keypoints` numbers them."""
        return {"probiou": 1, "keypoints": 2}.get(self.spec.overlap, 0)

    def overlaps(self, scratch: Scratch) -> tuple[Tensor | float, ...]:
        """What :func:`~twinloss.backends.triton.alignment.pair_overlap` reads."""
        if self.points is not None and self.spec.overlap == "keypoints":
            return scratch.predicted, *self.points.compared
        return scratch.predicted, scratch.listed, scratch.agreement

    @cached_property
    def inside_eps(self) -> float:
        """Pixels by which an anchor must lie inside a window; that of an oriented box encloses it, and the box itself decides."""
        return 0.0 if self.oriented else self.spec.assign_eps

    @cached_property
    def overlap_eps(self) -> float:
        """Epsilon of the CIoU or ProbIoU."""
        return self.spec.probiou_eps if isinstance(self.spec, OrientedSpec) else self.spec.ciou_eps

    @cached_property
    def angle_numbers(self) -> tuple[float, ...]:
        """Of oriented boxes, the floor of the box term's ProbIoU and the scale of the angle term."""
        return (self.spec.term_floor, self.spec.angle_scale) if isinstance(self.spec, OrientedSpec) else ()

    @cached_property
    def candidates_tile(self) -> CandidatesTile:
        """How candidates are divided."""
        return candidates_tile(self.rows, self.anchors)

    @cached_property
    def key(self) -> Hashable:
        """Everything that decides which compiled kernels this call needs; what Triton inspects is a function of it."""
        inputs = (self.boxes, self.scores, self.batch_idx, self.cls, self.bboxes, self.angle)
        layouts = tuple((tensor.dtype, tensor.data_ptr() % 16 == 0) for tensor in inputs)
        strides = (self.boxes.stride(0), self.scores.stride(0), self.angle.stride(0))
        shapes = (self.boxes.shape, self.scores.shape, strides, self.scores.is_contiguous())
        further = tuple(None if one is None else one.key for one in (self.masks, self.points))
        return self.boxes.device, layouts, shapes, self.candidates_tile, self.spec, self.pyramid, self.conflicts, further

    @cached_property
    def kernels(self) -> Kernels:
        """Compiled kernels of the calls with the same key."""
        return kernels_for(self.key)

    @cached_property
    def truth(self) -> tuple[Tensor | float, ...]:
        """Rows of the batch, B, C, image width and height, in the order of the kernels' argument ``truth``."""
        height, width = map(float, self.pyramid.image_size)
        return self.batch_idx, self.cls, self.bboxes, float(self.images), float(self.spec.num_classes), width, height

    @cached_property
    def levels(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """Rows, columns and strides of the pyramid's levels, in the order of the kernels' argument ``levels``."""
        rows, columns = zip(*self.pyramid.grids, strict=True)
        return tuple(map(float, rows)), tuple(map(float, columns)), tuple(map(float, self.pyramid.strides))


@dataclass(frozen=True)
class Gradients:
    """Gradients of the logits, contiguous, in their dtype.

    Attributes:
        boxes: (B, 4R, A), or empty if it is not wanted.
        scores: (B, C, A), or empty if it is not wanted.
        kernels: compiled kernels of the backward passes that want the same gradients.
        angle: of oriented boxes (B, 1, A) with zeros where no anchor is held, wanted with ``boxes``.
    """

    boxes: Tensor
    scores: Tensor
    kernels: Kernels
    angle: Tensor | None = None


@dataclass(frozen=True)
class Scratch:
    """Memory through which the launches up to the soft targets pass their results on.

    Attributes:
        predicted: (4, B·A) float32, corners of every anchor's predicted box in pixels; of oriented boxes (5, B·A), x, y, w, h and angle.
        claims: (B·A,) int64, key of the largest overlap at an anchor and of the lowest row that has it; 0 for none.
        pickers: (2, B·A) int32, the lowest row that picked an anchor as N − row, and the highest as row + 1; 0 for none.
        nan_carrier: (1,) int32, 1 if a candidate's metric is NaN: the loss must then be NaN (spec section 10).
        largest: (2, N) int32, bits of the largest metric and of the largest overlap among the anchors that each row holds.
        ranking: (N, topk2) int64, keys of each row's best held anchors; empty if there is no second cut.
        parts: (N, parts, K) int64, keys of the best anchors of each part of a row's candidates; empty if they are not divided.
        metric: (2, S) float32, alignment metric and overlap of each slot's anchor and owner.
        listed: (N, L) int32, the anchors of each row whose masks are compared, −1 for none; L is 0 if no masks are.
        agreement: (N, L) float32, overlap of the masks of each.
    """

    predicted: Tensor
    claims: Tensor
    pickers: Tensor
    nan_carrier: Tensor
    largest: Tensor
    ranking: Tensor
    parts: Tensor
    metric: Tensor
    listed: Tensor
    agreement: Tensor


def kernel_arguments(
    boxes: Tensor,
    scores: Tensor,
    batch: Mapping[str, Tensor],
    spec: LossSpec,
    pyramid: Pyramid,
    conflicts: Conflicts = "overlap",
    angle: Tensor | None = None,
    masks: MaskArguments | None = None,
    points: PointArguments | None = None,
) -> KernelArguments:
    """Arguments from logits of any strides, which are copied if they are not in the kernels' layout, and a checked batch.

    Raises:
        ValueError: the kernels do not support the logits' dtype.
    """
    if boxes.dtype not in KERNEL_DTYPES:
        raise ValueError(f"the Triton kernels take float16, bfloat16 and float32 logits; use backend='torch' for {boxes.dtype}")
    blocks = _image_blocks(boxes.detach())
    return KernelArguments(
        boxes=blocks,
        scores=_image_blocks(scores.detach()),
        batch_idx=batch["batch_idx"],
        cls=batch["cls"],
        bboxes=batch["bboxes"],
        angle=blocks if angle is None else _image_blocks(angle.detach()),
        spec=spec,
        pyramid=pyramid,
        conflicts=conflicts,
        masks=masks,
        points=points,
    )


def without_logits(arguments: KernelArguments) -> KernelArguments:
    """The arguments without logits, to keep between the two passes: autograd keeps the logits, and frees them."""
    nothing = torch.empty(0, dtype=arguments.boxes.dtype, device=arguments.boxes.device)
    return replace(arguments, boxes=nothing, scores=nothing, angle=nothing, masks=None)


def with_logits(arguments: KernelArguments, boxes: Tensor, scores: Tensor, angle: Tensor | None = None) -> KernelArguments:
    """The arguments with the logits that autograd returned, in the layout that the kernels read."""
    blocks = _image_blocks(boxes)
    return replace(arguments, boxes=blocks, scores=_image_blocks(scores), angle=blocks if angle is None else _image_blocks(angle))


def _image_blocks(logits: Tensor) -> Tensor:
    """The logits with adjacent anchors adjacent in memory and adjacent channels A elements apart; any other layout is copied.

    A head's output has this layout, also as a slice of boxes and scores together. A gather with a stride would move a whole memory sector
    for each number.
    """
    _, channels, anchors = logits.shape
    blocks = (anchors == 1 or logits.stride(2) == 1) and (channels == 1 or logits.stride(1) == anchors)
    return logits if blocks else logits.contiguous()
