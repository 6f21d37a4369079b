"""The whole detection loss, read from top to bottom as the definition is (spec sections 1 to 8a and 13)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from twinloss.anchors import make_anchors
from twinloss.assignment import PAIRS_AT_ONCE, Assignment, Conflicts, PairMetrics, PredictedBoxes, Ties, align, assign
from twinloss.backends.choice import Backend, choose_backend
from twinloss.candidates import candidate_pairs
from twinloss.gather_anchors import held_columns
from twinloss.geometry.upright import decode_boxes
from twinloss.inputs import Inputs, admit, admit_assignment, layout_of, pyramid_of
from twinloss.plain_numbers import whole
from twinloss.spec import LossSpec
from twinloss.targets import GroundTruth, pixel_corners, prepare_targets
from twinloss.terms.boxes import box_term, clamped_target, distance_term, distribution_term, distributions
from twinloss.terms.classification import classification_term, working_dtype

if TYPE_CHECKING:
    from twinloss.backends.native.loss import NativeCall
    from twinloss.backends.triton.loss import FusedCall

Batch = Mapping[str, Tensor]
Predictions = Mapping[str, Any] | Sequence[Tensor]


class DetectionLoss:
    """Anchors, ground truth, decoding, task-aligned assignment, and the box, classification and distribution terms.

    Args:
        spec: the definition's numbers.
        ties: "stable" is deterministic on every device; "reference" reproduces the choice that ``torch.topk`` makes among equals (spec
            section 9).
        conflicts: "overlap" gives an anchor that several boxes picked to the candidate box of largest overlap, as the reference does;
            "pickers" chooses among the boxes that picked it.
        validate: ``True`` checks the targets' values wherever they are, at the cost of a synchronisation on a GPU; ``False`` never does;
            ``None`` does when they are on the host.
        pairs_at_once: candidate pairs judged at once on torch, which bounds the scratch memory of crowded batches (150 bytes a pair); the
            kernels keep no pairs. It decides nothing but where metrics are equal to their rounding: torch's vectorised functions round a
            number otherwise at the end of a tensor than before it, so that weights may differ in their last bits.
        backend: "auto" runs the Triton kernels on CUDA logits and the native ones on logits on the host, where they can serve them, and
            torch on all others; "torch", "native" and "triton" are taken at their word. Stages called alone always run on torch.

    Logits may be float16, bfloat16, float32 or float64. Arithmetic is float32 or better (float64 for float64 logits), inside autocast and
    outside; gradients come back in the logits' dtype (spec section 8a).

    Targets are data: they are copied at the call, so that changing the batch afterwards changes nothing, and no gradient is passed to them
    (nor to the weights of a given assignment), whether they ask for one or not. Logits are not copied; changing them before the backward
    pass is an error, as anywhere in torch. The loss can be differentiated once: its gradients have none of their own.
    """

    def __init__(
        self,
        spec: LossSpec,
        *,
        ties: Ties = "stable",
        conflicts: Conflicts = "overlap",
        validate: bool | None = None,
        pairs_at_once: int = PAIRS_AT_ONCE,
        backend: Backend = "auto",
    ) -> None:
        choices = {
            "ties": (ties, ("stable", "reference")),
            "conflicts": (conflicts, ("overlap", "pickers")),
            "backend": (backend, ("auto", "torch", "native", "triton")),
            "validate": (validate, (None, True, False)),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, known))}")
        self.spec = spec
        self.ties: Ties = ties
        self.conflicts: Conflicts = conflicts
        self.validate = validate
        self.pairs_at_once = whole("pairs_at_once", pairs_at_once)
        self.backend: Backend = backend

    def __call__(self, preds: Predictions, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        Args:
            preds: ``boxes`` (B, 4R, A) and ``scores`` (B, C, A) logits and ``feats``, per-level maps of which the shapes alone are used;
                or the older list of per-level maps (B, 4R + C, H_l, W_l).
            batch: ``batch_idx`` (N,), ``cls`` (N,) or (N, 1), ``bboxes`` (N, 4) as centre and size divided by the image's width and height.

        Returns:
            (3,): box, classification and distribution (R = 1: distance) term, each times its gain and the number of images; and the same
            three without the number of images, detached, by name.

        Raises:
            TypeError: an input is no tensor.
            ValueError: an input is not what it must be, or the backend that was asked for cannot serve it; the message names the row or
                the shapes or the reason, and the remedy.
        """
        inputs = self._admit(preds, batch)
        if fused := self._fused(inputs):
            return fused.loss()
        with _evaluate(self, inputs) as evaluation:
            return evaluation.loss(evaluation.assignment())

    def assign(self, preds: Predictions, batch: Batch) -> Assignment:
        """The assignment alone (spec section 5)."""
        inputs = self._admit(preds, batch)
        if fused := self._fused(inputs):
            return fused.assignment()
        with _evaluate(self, inputs) as evaluation:
            return evaluation.assignment()

    def loss_given(self, preds: Predictions, batch: Batch, assignment: Assignment) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on an assignment made elsewhere, whose weights are data, without a gradient (spec sections 6 and 7).

        Raises:
            ValueError: as :meth:`__call__`; or the assignment's columns disagree, or an entry of it is not what it must be.
        """
        inputs = self._admit(preds, batch)
        held = admit_assignment(assignment, inputs, self.validate)
        if fused := self._fused(inputs):
            return fused.loss(held)
        with _evaluate(self, inputs) as evaluation:
            return evaluation.loss(held)

    def anchors(self, preds: Predictions) -> tuple[Tensor, Tensor]:
        """Centres (A, 2) in grid units and strides (A,) in pixels (spec section 2)."""
        layout = layout_of(preds, self.spec)
        pyramid, boxes = pyramid_of(layout, self.spec), layout["boxes"]
        return make_anchors(pyramid.grids, pyramid.strides, dtype=working_dtype(boxes), device=boxes.device)

    def targets(self, preds: Predictions, batch: Batch) -> GroundTruth:
        """Prepared ground truth (spec section 3)."""
        with _evaluate(self, self._admit(preds, batch)) as evaluation:
            return evaluation.truth

    def decode(self, preds: Predictions) -> Tensor:
        """Predicted corners (B, A, 4) in grid units, in the working dtype (spec section 4)."""
        boxes = layout_of(preds, self.spec)["boxes"]
        with torch.autocast(boxes.device.type, enabled=False):  # the expectation is a matrix product, which autocast would round
            return decode_boxes(boxes.to(working_dtype(boxes)), self.anchors(preds)[0], self.spec.reg_max)

    def metrics(self, preds: Predictions, batch: Batch) -> PairMetrics:
        """Every candidate pair with overlap and alignment metric (spec sections 5.1 to 5.3); ``row`` counts the batch's rows."""
        with _evaluate(self, self._admit(preds, batch)) as evaluation, torch.no_grad():
            return evaluation.pairs()

    def _admit(self, preds: Predictions, batch: Batch) -> Inputs:
        return admit(preds, batch, self.spec, self.validate)

    def _fused(self, inputs: Inputs) -> FusedCall | NativeCall | None:
        backend = choose_backend(self.backend, inputs.boxes, inputs.scores, self.spec, self.ties)
        if backend == "torch":
            return None
        call: type[FusedCall | NativeCall]
        if backend == "native":
            from twinloss.backends.native.loss import NativeCall as call  # noqa: N813
        else:
            from twinloss.backends.triton.loss import FusedCall as call  # noqa: N813
        return call(inputs.boxes, inputs.scores, inputs.batch, self.spec, inputs.pyramid, self.conflicts)


@contextmanager
def _evaluate(owner: DetectionLoss, inputs: Inputs) -> Iterator[_Evaluation]:
    """One call of the loss on torch; autocast is off inside, so that it changes nothing."""
    with torch.autocast(inputs.boxes.device.type, enabled=False):
        yield _Evaluation(owner, inputs)


class _Evaluation:
    """The inputs of one call in working form, and what is computed from them."""

    def __init__(self, owner: DetectionLoss, inputs: Inputs) -> None:
        self.owner, self.spec = owner, owner.spec
        self.boxes, self.scores, self.pyramid, batch = inputs
        self.dtype = working_dtype(self.boxes)
        self.batch = batch
        self.truth = prepare_targets(batch["batch_idx"], batch["cls"], batch["bboxes"], self.pyramid.image_size, self.dtype)
        self.centres, self.strides = make_anchors(self.pyramid.grids, self.pyramid.strides, dtype=self.dtype, device=self.boxes.device)

    def pairs(self) -> PairMetrics:
        candidates = candidate_pairs(self.truth.corners, self.pyramid, self.spec)
        predicted = PredictedBoxes(self.boxes, self.dtype)
        pairs = align(predicted, self.scores, self.truth, candidates, (self.centres, self.strides), self.spec)
        return PairMetrics(self.truth.row[pairs.box], pairs.anchor, pairs.overlap, pairs.metric)

    def assignment(self) -> Assignment:
        return assign(
            self.boxes,
            self.scores,
            self.truth,
            self.pyramid,
            (self.centres, self.strides),
            self.spec,
            ties=self.owner.ties,
            conflicts=self.owner.conflicts,
            pairs_at_once=self.owner.pairs_at_once,
        )

    def loss(self, held: Assignment) -> tuple[Tensor, dict[str, Tensor]]:
        """The three terms (spec section 7)."""
        spec, weight = self.spec, held.weight.to(self.dtype)
        corners = pixel_corners(self.batch["bboxes"][held.box].to(self.dtype), self.pyramid.image_size)
        label = self.batch["cls"][held.box].to(torch.int64)
        centres, strides = self.centres[held.anchor], self.strides[held.anchor]
        corners = corners / strides[:, None]
        class_weights = None if spec.class_weights is None else self.centres.new_tensor(spec.class_weights)
        normaliser = weight.sum().clamp(min=1)
        share = weight if spec.anchor_weights == "own" else torch.ones_like(weight) * weight.sum()

        columns = held_columns(self.boxes, held.image, held.anchor).to(self.dtype)
        if spec.reg_max > 1:
            target = clamped_target(centres, corners, spec.reg_max, spec.clamp_margin)
            distances, cross_entropy = distributions(columns.view(-1, 4, spec.reg_max), target)
            third = distribution_term(cross_entropy, share)
        else:
            distances = columns
            third = distance_term(distances, centres, corners, strides, weight, self.pyramid.image_size) * spec.distance_term
        box = box_term(distances, centres, corners, share, spec.ciou_eps)
        classification = classification_term(self.scores, held.image, label, held.anchor, weight, class_weights)
        terms = torch.stack([box, classification, third]) / normaliser * self.centres.new_tensor(spec.gains)
        items = dict(zip(spec.term_names, terms.detach(), strict=True))
        return terms * len(self.boxes), items
