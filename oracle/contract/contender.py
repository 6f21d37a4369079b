"""The contract of an implementation under test.

``--candidate package.module:factory`` names a factory: ``factory(spec) -> criterion``. It is called for every batch, with a
:class:`~twinloss.LossSpec`: ``num_classes`` C, ``reg_max`` R, ``strides``, ``gains`` (box, classification, distribution), ``topk`` K,
``topk2``, ``alpha``, ``beta``, ``class_weights``. With R = 1 the head predicts distances themselves.

The criterion is a callable ``(preds, batch) -> (loss, items)``, as the reference's own:

- ``preds["boxes"]`` (B, 4R, A) and ``preds["scores"]`` (B, C, A) are logits that require a gradient, in any of the dtypes;
  ``preds["feats"]`` is a list of (B, ·, H, W), one a level, of which the shapes count.
- ``batch["batch_idx"]`` (N,), ``batch["cls"]`` (N, 1) and ``batch["bboxes"]`` (N, 4), centre and size in shares of the image, are float32,
  or float64 with float64 logits, sorted by image.
- ``loss`` (3,) holds box, classification and distribution (R = 1: distance) terms, each multiplied by the number of images B, in float32 or
  float64, differentiable with respect to both logits.
- ``items`` gives the same terms, not multiplied by B, by name: ``box_loss``, ``cls_loss``, and ``dfl_loss``, or ``l1_loss`` for R = 1.

The factory may carry attributes:

- ``factory.declines``: a function ``(spec, inputs, setting)`` that returns a sentence if the criterion cannot take a batch, or ``None``.
  ``inputs.preds`` and ``inputs.batch`` are the arguments of the criterion; ``setting`` has ``dtype``, ``autocast`` and ``device``.
- ``factory.assumes``: names of assumptions, as ``--assume`` takes them, for the common reasons.
- ``factory.arithmetic = "float32"``: the criterion computes half-precision logits in float32, and gets the tolerance of float32. The
  default, ``"logits"``, gives it the tolerance of the logits' dtype.

All that is detection. With ``--task`` the factory gets the definition of that task, and the criterion what the task adds. Its predictions
are logits too, so that their gradients are compared; ``loss`` (T,) and ``items`` hold the terms in this order:

- segment: ``SegmentationSpec``, with ``overlap_mask`` and ``mask_aware``. ``preds["mask_coefficient"]`` (B, P, A); ``preds["proto"]``
  (B, P, h, w), or a tuple of that and semantic logits (B, C, h, w), whose grids may differ. ``batch["masks"]`` are index maps (B, h, w), or
  instance masks (N, h, w) where ``overlap_mask`` is false; with semantic logits ``batch["sem_masks"]`` has classes of pixels, (B, h, w).
  Terms: box_loss, seg_loss, cls_loss, dfl_loss, sem_loss.
- oriented: ``OrientedSpec``, with ``angle_scale``, ``term_floor``, ``probiou_eps`` and a fourth gain. ``preds["angle"]`` (B, 1, A) and the
  fifth column of ``batch["bboxes"]`` (N, 5) are radians. Terms: box_loss, cls_loss, dfl_loss, angle_loss.
- pose: ``PoseSpec``, with ``keypoint_shape`` (n, E), ``generation``, ``sigmas``, ``flow`` and six gains. ``preds["kpts"]`` (B, n·E, A) and,
  in the second generation unless the model is in evaluation, ``preds["kpts_sigma"]`` (B, 2n, A); ``batch["keypoints"]`` (N, n, 2 or 3) in
  shares of the image, the third number a visibility. Terms: box_loss, pose_loss, kobj_loss, cls_loss, dfl_loss, and rle_loss where
  ``spec.flow`` is true. There the factory is called as ``factory(spec, flow=module)``: ``module.log_prob`` takes normalised errors (P, 2)
  and returns their log-densities (P,), and the gradients of its parameters are compared too.

With R = 1 dfl_loss is l1_loss in every task.

A criterion may also offer ``assign(preds, batch)`` and ``loss_given(preds, batch, assignment)``, and the further stages of
:class:`OffersStages`. Each stage that it offers is compared, and a difference is reported for its stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from oracle.cases.case import Inputs, Setting
from twinloss import Assignment, LossSpec

Preds = dict[str, Any]
Batch = dict[str, Tensor]
LossAndItems = tuple[Tensor, dict[str, Tensor]]


class Criterion(Protocol):
    """The complete loss: (T,), one number a term, multiplied by the number of images, differentiable with respect to the logits."""

    def __call__(self, preds: Preds, batch: Batch) -> LossAndItems:
        """Returns loss and logged items of a batch."""


@runtime_checkable
class OffersAssignment(Protocol):
    """A criterion that returns its assignment, and takes one: the minimum for verdicts by stage."""

    def assign(self, preds: Preds, batch: Batch) -> Assignment:
        """Returns the assigned anchors with positive weight; ``box`` is the row of the batch."""

    def loss_given(self, preds: Preds, batch: Batch, assignment: Assignment) -> LossAndItems:
        """Returns loss and items on this assignment instead of the criterion's own."""


class Targets(NamedTuple):
    """Valid ground truth in order of image, then arrival: row of the batch, image, label (each (n,)), pixel corners (n, 4)."""

    row: Tensor
    image: Tensor
    label: Tensor
    corners: Tensor


class Metrics(NamedTuple):
    """Candidate pairs: row of the batch and anchor within the image (each (P,)), overlap and alignment metric (each (P,))."""

    row: Tensor
    anchor: Tensor
    overlap: Tensor
    metric: Tensor


@runtime_checkable
class OffersStages(OffersAssignment, Protocol):
    """A criterion whose stages can be called one by one."""

    def anchors(self, preds: Preds) -> tuple[Tensor, Tensor]:
        """Centres (A, 2) in grid units and strides (A,) in pixels."""

    def targets(self, preds: Preds, batch: Batch) -> Targets:
        """Prepared ground truth."""

    def decode(self, preds: Preds) -> Tensor:
        """Predicted corners (B, A, 4) in grid units."""

    def metrics(self, preds: Preds, batch: Batch) -> Metrics:
        """Every candidate pair, in any order."""


@dataclass(frozen=True)
class Contender:
    """An implementation under test.

    Attributes:
        name: short name in tables, such as ``twin``.
        version: what exactly is tested, such as ``twinloss 0.1.0``.
        factory: returns the criterion for a definition; where that has a pose flow, also given as ``flow``.
        declines: returns the reason if it cannot take a batch in a setting, which is then "not compared"; otherwise ``None``.
        arithmetic: ``"float32"`` if half-precision logits are computed in float32, ``"logits"`` if in their own dtype; the tolerance
            follows from it.
        time_limit: seconds of one call after which the contender counts as hanging; ``None``, as for the shipped ones, sets no limit.
        isolated: whether its code runs in a process of its own (:mod:`oracle.isolated`), and not in the judge's.
    """

    name: str
    version: str
    factory: Callable[..., Criterion]
    arithmetic: str = "logits"
    declines: Callable[[LossSpec, Inputs, Setting], str | None] | None = None
    time_limit: float | None = None
    isolated: bool = False

    @property
    def is_candidate(self) -> bool:
        """Whether this is a user's candidate, whose code may do anything; candidates have a time limit."""
        return self.time_limit is not None
