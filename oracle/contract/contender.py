"""The contract that every implementation under test satisfies.

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

- ``factory.declines``: a function ``(spec, inputs, setting)`` that says in a sentence why a batch cannot be put to it, or ``None``.
  ``inputs.preds`` and ``inputs.batch`` are what the criterion would get; ``setting.dtype``, ``.autocast`` and ``.device`` are in what.
- ``factory.assumes``: names of assumptions, as ``--assume`` takes them, for the common reasons.
- ``factory.arithmetic = "float32"``: half-precision logits are computed in float32. It is then held to that; ``"logits"``, which stands
  where nothing is said, is held to the logits' own dtype.

A criterion may also offer ``assign(preds, batch)`` and ``loss_given(preds, batch, assignment)``, and the further stages of
:class:`OffersStages`: what it offers is compared, and a difference is then told by stage.
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
    """The loss, whole: ``loss`` is (3,), already multiplied by the number of images, differentiable in the logits."""

    def __call__(self, preds: Preds, batch: Batch) -> LossAndItems:
        """Loss and logged items of a batch."""


@runtime_checkable
class OffersAssignment(Protocol):
    """A criterion that lets its assignment be seen, and takes one: the minimum for a verdict by stage."""

    def assign(self, preds: Preds, batch: Batch) -> Assignment:
        """Anchors held with positive weight; ``box`` counts rows of the batch as they arrived."""

    def loss_given(self, preds: Preds, batch: Batch, assignment: Assignment) -> LossAndItems:
        """Loss and items on this assignment instead of the criterion's own."""


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
    """A criterion whose every stage can be called alone, as ours, the reference and the exact one can."""

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
        factory: makes the criterion for a definition.
        declines: why it cannot take part in a batch in a setting, or ``None``: reported as "not compared", never as a difference.
        arithmetic: ``"float32"`` when half-precision logits are computed in float32, ``"logits"`` when in their own dtype; it
            decides which margins excuse a decision, so a contender that claims float32 is held to float32.
        time_limit: seconds that one call may take before its verdict is that it hangs, or ``None``; ours need no limit.
    """

    name: str
    version: str
    factory: Callable[[LossSpec], Criterion]
    arithmetic: str = "logits"
    declines: Callable[[LossSpec, Inputs, Setting], str | None] | None = None
    time_limit: float | None = None

    @property
    def stranger(self) -> bool:
        """Whether this is somebody else's code, of which anything may be expected: what has a time limit."""
        return self.time_limit is not None
