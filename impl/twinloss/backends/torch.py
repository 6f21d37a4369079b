"""The loss on torch's operators, read from top to bottom as the definition is (spec sections 2 to 8a)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from twinloss.anchors import Pyramid, make_anchors
from twinloss.assignment.assign import Assignment, PairMetrics, align, assign
from twinloss.assignment.candidates import candidate_pairs
from twinloss.assignment.ground_truth import prepare_targets
from twinloss.assignment.log_numbers import logarithm
from twinloss.assignment.registry import OVERLAPS
from twinloss.assignment.scene import Scene
from twinloss.backends.call import Backend, Call, Evaluation
from twinloss.geometry.registry import GEOMETRIES
from twinloss.spec import LossSpec
from twinloss.terms.boxes import distribution_term, distributions
from twinloss.terms.classification import classification_term, working_dtype
from twinloss.terms.held import HeldAnchors
from twinloss.terms.registry import DETECTION_TERMS, further_terms, in_order


class TorchBackend(Backend):
    """The loss on torch's operators, for every call."""

    name = "torch"
    geometries = tuple(GEOMETRIES)
    overlaps = tuple(OVERLAPS)

    def computes(self, spec: LossSpec) -> tuple[str, ...]:
        """All terms."""
        return spec.terms

    def is_default_for(self, call: Call) -> bool:
        """Returns True: the registry asks this backend last."""
        return True

    def why_not(self, call: Call) -> None:
        """Returns None: torch serves every call."""

    def assignment(self, call: Call) -> Assignment:
        """The assignment alone."""
        with evaluate(call) as evaluation:
            return evaluation.assignment()

    def loss(self, call: Call, assignment: Assignment | None = None) -> Evaluation:
        """The loss in the working dtype: float32, or float64 for float64 logits."""
        with evaluate(call) as evaluation:
            held = evaluation.assignment() if assignment is None else assignment
            loss, items = evaluation.loss(held)
        return Evaluation(loss, items, lambda: held)


def anchors(pyramid: Pyramid, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (A, 2) in grid units and strides (A,) in pixels, in the working dtype and on the device of box logits (spec section 2)."""
    return make_anchors(pyramid.grids, pyramid.strides, dtype=working_dtype(boxes), device=boxes.device)


@contextmanager
def evaluate(call: Call) -> Iterator[TorchEvaluation]:
    """One call on torch; autocast is off inside, so that it changes nothing."""
    with torch.autocast(call.boxes.device.type, enabled=False):
        yield TorchEvaluation(call)


class TorchEvaluation:
    """The inputs of one call in the working dtype, and what is computed from them."""

    def __init__(self, call: Call) -> None:
        self.call, self.spec, batch = call, call.spec, call.batch
        self.dtype, geometry = working_dtype(call.boxes), GEOMETRIES[call.spec.geometry]
        truth = prepare_targets(
            batch["batch_idx"],
            batch["cls"],
            batch["bboxes"],
            call.pyramid.image_size,
            call.target_dtype,
            geometry,
            num_images=len(call.boxes),
            num_classes=self.spec.num_classes,
        )
        self.truth = replace(truth, boxes=truth.boxes.to(self.dtype))
        self.centres, self.strides = anchors(call.pyramid, call.boxes)
        self.scene = Scene(
            call.boxes, call.scores, self.truth, call.pyramid, self.centres, self.strides, self.spec, geometry, call.extras, batch
        )

    def pairs(self) -> PairMetrics:
        """Every candidate pair with overlap and alignment metric (spec sections 5.1 to 5.3)."""
        anchors = self.centres, self.strides
        candidates = candidate_pairs(self.truth.boxes, self.call.pyramid, self.spec, self.scene.geometry, anchors)
        pairs = align(OVERLAPS[self.spec.overlap](self.scene, self.call.ties), candidates)
        numbers = [pairs.overlap, pairs.metric]
        if pairs.scale == "logarithms":
            numbers = [logarithm(number).exp().to(self.dtype) for number in numbers]
        return PairMetrics(self.truth.row[pairs.box], pairs.anchor, *numbers)

    def assignment(self) -> Assignment:
        """The assignment (spec section 5)."""
        call = self.call
        return assign(self.scene, ties=call.ties, conflicts=call.conflicts, pairs_at_once=call.pairs_at_once)

    def loss(self, assignment: Assignment) -> tuple[Tensor, Tensor]:
        """The terms of the definition on an assignment (spec section 7), times gain and B, and without B, detached."""
        call, spec = self.call, self.spec
        held = HeldAnchors(call, assignment, (self.centres, self.strides))
        class_weights = None if spec.class_weights is None else self.centres.new_tensor(spec.class_weights)
        classification = classification_term(call.scores, held.image, held.label, held.anchor, held.weight, class_weights)
        box, distance = self._held_terms(held)
        terms = torch.stack([box, classification, distance]) / held.normaliser * self.centres.new_tensor(spec.gains[:3])
        if spec.terms != DETECTION_TERMS:
            terms = in_order(spec, dict(zip(DETECTION_TERMS, terms.unbind(), strict=True)) | further_terms(held, DETECTION_TERMS))
        return terms * len(call.boxes), terms.detach()

    def _held_terms(self, held: HeldAnchors) -> tuple[Tensor, Tensor]:
        """The box term, and the distribution term (R = 1: the distance term), summed over the held anchors."""
        geometry, spec, distances = held.geometry, self.spec, held.columns("boxes")
        if spec.reg_max > 1:
            distances, cross_entropy = distributions(distances.view(-1, 4, spec.reg_max), geometry.clamped_target(held))
            distance = distribution_term(cross_entropy, held.share)
        else:
            distance = geometry.distance_term(distances, held) * spec.distance_term
        return geometry.box_term(distances, held), distance
