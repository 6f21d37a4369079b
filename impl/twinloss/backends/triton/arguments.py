"""One call of the loss as the kernels see it: the inputs in the layout that they read, and the scratch between two launches."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.assignment import Conflicts
from twinloss.backends.triton.launch import Kernels, kernels_for
from twinloss.backends.triton.tiles import ScanTile, scan_tile
from twinloss.spec import LossSpec

KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Problem:
    """Inputs of one call.

    Attributes:
        boxes: (B, 4R, A) logits; each image's block is contiguous, the stride between images is free.
        scores: (B, C, A) logits, likewise.
        batch_idx: (N,) of any dtype, contiguous, on the logits' device; so are ``cls`` (N,) and ``bboxes`` (N, 4).
        spec: the definition.
        pyramid: the grids.
        conflicts: who may win a contested anchor.
    """

    boxes: Tensor
    scores: Tensor
    batch_idx: Tensor
    cls: Tensor
    bboxes: Tensor
    spec: LossSpec
    pyramid: Pyramid
    conflicts: Conflicts = "overlap"

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
        """Slots per row: K, or A where there are fewer anchors."""
        return min(self.spec.topk, self.anchors)

    @cached_property
    def second_cut(self) -> int:
        """Anchors that a box keeps after conflicts, 0 for no second cut."""
        return min(self.spec.second_topk or 0, self.anchors)

    @cached_property
    def weighted(self) -> bool:
        """Whether classes have weights."""
        return self.spec.class_weights is not None

    @cached_property
    def gains(self) -> tuple[float, float, float]:
        """Factors of the box, classification and third term; the third is 0 where an older definition has none."""
        box, classification, third = self.spec.gains
        return float(box), float(classification), float(third) if self.spec.reg_max > 1 or self.spec.distance_term else 0.0

    @cached_property
    def scan_tile(self) -> ScanTile:
        """The tile of the scan."""
        return scan_tile(self.rows, self.anchors)

    @cached_property
    def key(self) -> Hashable:
        """All that decides which kernels this call needs: what Triton looks at is a function of it."""
        inputs = (self.boxes, self.scores, self.batch_idx, self.cls, self.bboxes)
        layouts = tuple((tensor.dtype, tensor.data_ptr() % 16 == 0) for tensor in inputs)
        shapes = (self.boxes.shape, self.boxes.stride(0), self.scores.shape, self.scores.stride(0), self.scores.is_contiguous())
        return self.boxes.device, layouts, shapes, self.scan_tile, self.spec, self.pyramid, self.conflicts

    @cached_property
    def kernels(self) -> Kernels:
        """What has been compiled for calls like this one."""
        return kernels_for(self.key)

    @cached_property
    def truth(self) -> tuple[Tensor | float, ...]:
        """Rows of the batch, number of images and classes, width and height: as the kernels take them."""
        height, width = map(float, self.pyramid.image_size)
        return self.batch_idx, self.cls, self.bboxes, float(self.images), float(self.spec.num_classes), width, height

    @cached_property
    def levels(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """Rows, columns and strides of the pyramid's levels: as the kernels take them."""
        rows, columns = zip(*self.pyramid.grids, strict=True)
        return tuple(map(float, rows)), tuple(map(float, columns)), tuple(map(float, self.pyramid.strides))


@dataclass(frozen=True)
class Slots:
    """What may be held, one slot a pick: ``anchor`` (S,) in the image, ``owner`` (S,) row or −1 for none, ``weight`` (S,) soft target."""

    anchor: Tensor
    owner: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Gradients:
    """Gradients of the box logits (B, 4R, A) and the class logits (B, C, A), contiguous; empty where not asked for.

    ``kernels`` are those that have been compiled for such gradients.
    """

    boxes: Tensor
    scores: Tensor
    kernels: Kernels


@dataclass(frozen=True)
class Scratch:
    """What the launches before the soft targets leave to one another.

    Attributes:
        predicted: (4, B·A) float32, corners of every anchor's box in pixels.
        claims: (B·A,) int64, the largest overlap published at an anchor with the row that published it; 0 for none.
        pickers: (2, B·A) int32, the lowest row that picked an anchor as N − row, and the highest as row + 1; 0 for none.
        poison: (1,) int32, 1 when a candidate's metric is NaN: the loss has to show it (spec section 10).
        largest: (2, N) int32, bits of the largest metric and the largest overlap that each row holds.
        ranking: (N, topk2) int64, the keys of each row's best held anchors, for the second cut.
        parts: (N, parts, K) int64, the keys of the best anchors of each part of a row's walk; empty where walks have no parts.
        metric: (2, S) float32, alignment metric and overlap of each slot's anchor and owner.
    """

    predicted: Tensor
    claims: Tensor
    pickers: Tensor
    poison: Tensor
    largest: Tensor
    ranking: Tensor
    parts: Tensor
    metric: Tensor


def make_problem(
    boxes: Tensor, scores: Tensor, batch: Mapping[str, Tensor], spec: LossSpec, pyramid: Pyramid, conflicts: Conflicts = "overlap"
) -> Problem:
    """A problem from logits of any strides, copied where they are not in the kernels' layout, and a batch that was admitted.

    Raises:
        ValueError: logits that the kernels do not serve.
    """
    if boxes.dtype not in KERNEL_DTYPES:
        raise ValueError(f"the Triton kernels take float16, bfloat16 and float32 logits; use backend='torch' for {boxes.dtype}")
    return Problem(
        boxes=_image_blocks(boxes.detach()),
        scores=_image_blocks(scores.detach()),
        batch_idx=batch["batch_idx"],
        cls=batch["cls"],
        bboxes=batch["bboxes"],
        spec=spec,
        pyramid=pyramid,
        conflicts=conflicts,
    )


def without_logits(problem: Problem) -> Problem:
    """The problem for keeping between the two passes: autograd keeps the logits, and frees them."""
    nothing = torch.empty(0, dtype=problem.boxes.dtype, device=problem.boxes.device)
    return replace(problem, boxes=nothing, scores=nothing)


def with_logits(problem: Problem, boxes: Tensor, scores: Tensor) -> Problem:
    """The problem with the logits that autograd gave back, in the layout that the kernels read."""
    return replace(problem, boxes=_image_blocks(boxes), scores=_image_blocks(scores))


def _image_blocks(logits: Tensor) -> Tensor:
    """The logits with anchors running fastest and channels next, as a head concatenates them, also as a slice of boxes and scores together.

    Any other layout is copied: a gather with a stride would move a whole sector for each number.
    """
    _, channels, anchors = logits.shape
    blocks = (anchors == 1 or logits.stride(2) == 1) and (channels == 1 or logits.stride(1) == anchors)
    return logits if blocks else logits.contiguous()
