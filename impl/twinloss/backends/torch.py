"""The loss on torch's operators, read from top to bottom as the definition is (spec sections 2 to 8a)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from twinloss.anchors import Pyramid, make_anchors
from twinloss.assignment import Assignment, PairMetrics, PredictedBoxes, align, assign
from twinloss.backends.call import Backend, Call, Evaluation
from twinloss.candidates import candidate_pairs
from twinloss.gather_anchors import held_columns
from twinloss.targets import pixel_corners, prepare_targets
from twinloss.terms.boxes import box_term, clamped_target, distance_term, distribution_term, distributions
from twinloss.terms.classification import classification_term, working_dtype


class TorchBackend(Backend):
    """The loss on torch's operators, for every call."""

    name = "torch"

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
        self.dtype = working_dtype(call.boxes)
        self.truth = prepare_targets(batch["batch_idx"], batch["cls"], batch["bboxes"], call.pyramid.image_size, self.dtype)
        self.centres, self.strides = anchors(call.pyramid, call.boxes)

    def pairs(self) -> PairMetrics:
        """Every candidate pair with overlap and alignment metric (spec sections 5.1 to 5.3)."""
        candidates = candidate_pairs(self.truth.corners, self.call.pyramid, self.spec)
        predicted = PredictedBoxes(self.call.boxes, self.dtype)
        pairs = align(predicted, self.call.scores, self.truth, candidates, (self.centres, self.strides), self.spec)
        return PairMetrics(self.truth.row[pairs.box], pairs.anchor, pairs.overlap, pairs.metric)

    def assignment(self) -> Assignment:
        """The assignment (spec section 5)."""
        call = self.call
        return assign(
            call.boxes,
            call.scores,
            self.truth,
            call.pyramid,
            (self.centres, self.strides),
            self.spec,
            ties=call.ties,
            conflicts=call.conflicts,
            pairs_at_once=call.pairs_at_once,
        )

    def loss(self, held: Assignment) -> tuple[Tensor, dict[str, Tensor]]:
        """The three terms on an assignment (spec section 7): each times its gain and B, and without B, detached, by name."""
        call, spec, weight = self.call, self.spec, held.weight.to(self.dtype)
        label = call.batch["cls"][held.box].to(torch.int64)
        class_weights = None if spec.class_weights is None else self.centres.new_tensor(spec.class_weights)
        classification = classification_term(call.scores, held.image, label, held.anchor, weight, class_weights)
        box, distance = self._held_terms(held, weight)
        terms = torch.stack([box, classification, distance]) / weight.sum().clamp(min=1) * self.centres.new_tensor(spec.gains)
        return terms * len(call.boxes), call.by_name(terms.detach())

    def _held_terms(self, held: Assignment, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The box term, and the distribution term (R = 1: the distance term), summed over the held anchors."""
        call, spec = self.call, self.spec
        centres, strides = self.centres[held.anchor], self.strides[held.anchor]
        corners = pixel_corners(call.batch["bboxes"][held.box].to(self.dtype), call.pyramid.image_size) / strides[:, None]
        share = weight if spec.anchor_weights == "own" else torch.ones_like(weight) * weight.sum()
        distances = held_columns(call.boxes, held.image, held.anchor).to(self.dtype)
        if spec.reg_max > 1:
            target = clamped_target(centres, corners, spec.reg_max, spec.clamp_margin)
            distances, cross_entropy = distributions(distances.view(-1, 4, spec.reg_max), target)
            distance = distribution_term(cross_entropy, share)
        else:
            distance = distance_term(distances, centres, corners, strides, weight, call.pyramid.image_size) * spec.distance_term
        return box_term(distances, centres, corners, share, spec.ciou_eps), distance
