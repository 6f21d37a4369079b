"""Infers the assignment of a contender that shows none from its gradients (spec section 7).

Only open anchors are in question: elsewhere one answer is allowed, and a wrong one shows in the numbers. Example: one open anchor, two
boxes that are mirror images of each other, box 0 of class 0 and box 1 of class 1; the definition's own answer is box 0.

    ==========================  =========================================  ===============
    at the anchor               gradient of left, top, right, bottom       score 0, 1
    ==========================  =========================================  ===============
    observed                    -1.81   1.31   0.64  -1.48                 0.440, 0.335
    box 0, of weight 1          -8.56  -6.99   3.05   6.19                 -0.060, 0.440
    box 1, of weight 1          -8.56   6.19   3.05  -6.99                 0.440, -0.060
    ==========================  =========================================  ===============

The soft target of either box is 0.2113, and 0.2113 times the last row's gradient is the observed one: the misfit of box 1 is below 1
rounding, that of box 0 about 1e6, so box 1 holds the anchor. Where several boxes fit, the definition's own is taken.

A soft target depends on what else its box holds, so this is repeated until nothing changes. An anchor whose prediction is exact has no
box gradient, held or not; there the number of held anchors follows from S. An inferred assignment is judged exactly like a reported one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from oracle.contract.run import Outcome
from oracle.definition.assignment_trace import UNASSIGNED
from oracle.inference.evidence import Misfit, PairEvidence, pair_evidence, weight_intervals
from oracle.judge.indistinguishable import NO_ALTERNATIVES, Alternatives, TermBounds, term_bounds
from oracle.judge.truth import DefinitionAnswers
from oracle.tolerance.allowed_assignments import AllowedAssignments
from oracle.tolerance.assignment import IndexedAssignment
from oracle.tolerance.intervals import Floats
from oracle.tolerance.margins import Ints
from oracle.tolerance.precision import Precision

_PASSES = 6
_FIT_ROUNDINGS = 2.0  # A hypothesis fits up to this misfit, or this many times the best misfit where none fits.
_LOG_LIKELIHOOD_RATIO = 30.0  # A hypothesis less likely than another by this factor, as a logarithm, is dropped.
_NORMALISER_ROUNDINGS = 64.0  # Roundings of S within which it equals the observed one.


class InferredAssignment(NamedTuple):
    """An assignment that explains the gradients, and bounds on the terms over all others that give the same gradients."""

    assignment: IndexedAssignment
    bounds: TermBounds


class _Hypothesis(NamedTuple):
    """That a box holds an anchor, and its misfits in roundings; the lower, the more likely.

    Attributes:
        box: index of the box, or ``UNASSIGNED``.
        expected, fitted, nll, weight_deviation: as in :class:`~oracle.inference.evidence.Misfit`.
    """

    box: int
    expected: float
    fitted: float
    nll: float
    weight_deviation: float


@dataclass(frozen=True)
class AssignmentInference:
    """Infers an assignment from a contender's gradients.

    Args:
        outcome: the contender's loss and gradients, on the CPU.
        allowed: the assignments that it may give.
        exact: the definition's assignment; it stands wherever no other is allowed.
        definition: the definition's answers for the case.
        precision: the contender's.
    """

    outcome: Outcome
    allowed: AllowedAssignments
    exact: IndexedAssignment
    definition: DefinitionAnswers
    precision: Precision

    def assignments(self) -> Iterator[InferredAssignment]:
        """Yields assignments that explain the gradients, with rough weights; those closest to the definition's come first."""
        pairs, may_be_unassigned = self.allowed.margins.pairs, self.allowed.may_be_unassigned
        answers = np.bincount(pairs.cell[self.allowed.pair], minlength=len(may_be_unassigned))
        is_open = (answers > 1) | ((answers == 1) & may_be_unassigned)
        (open_pairs,) = np.nonzero(self.allowed.pair & is_open[pairs.cell])
        if not len(open_pairs):
            return
        evidence = pair_evidence(self.outcome, self.allowed, open_pairs, self.definition, self.precision)
        found = set()
        for prefer_unassigned in (False, True):
            holder = self._iterate(evidence, prefer_unassigned=prefer_unassigned)
            for answer in (holder, self._match_normaliser(evidence, holder)):
                assignment = self._indexed(answer)
                if assignment.key not in found:
                    found.add(assignment.key)
                    yield InferredAssignment(assignment, self._term_bounds(evidence, answer))

    def _exact_holder(self) -> Ints:
        return self.exact.holder(len(self.allowed.may_be_unassigned))

    def _indexed(self, holder: Ints) -> IndexedAssignment:
        (held,) = np.nonzero(holder != UNASSIGNED)
        box = holder[held]
        weight = self._weights(holder)
        return IndexedAssignment(held, box, self.allowed.margins.boxes.row[box], np.maximum(weight, np.finfo(np.float64).tiny))

    def _weights(self, holder: Ints) -> Floats:
        """Returns the soft targets (H,) of the anchors that ``holder`` (B·A,) assigns."""
        (held,) = np.nonzero(holder != UNASSIGNED)
        return weight_intervals(self.allowed, self.allowed.margins.lookup(held, holder[held]), holder, self.definition.case.spec).value

    def _rate(self, evidence: PairEvidence, holder: Ints) -> float:
        """Returns B / S as the scores' gradients show it, else for the assignment ``holder`` (B·A,) [7]."""
        return evidence.rate or self.definition.case.batch_size / max(float(self._weights(holder).sum()), 1.0)

    def _iterate(self, evidence: PairEvidence, *, prefer_unassigned: bool) -> Ints:
        """Returns the box (B·A,) of each anchor, or ``UNASSIGNED``, chosen repeatedly until it stays the same.

        Of several plausible hypotheses the definition's own is chosen, or, with ``prefer_unassigned``, that no box holds the anchor.
        """
        holder = self._exact_holder()
        for _ in range(_PASSES):
            before, holder = holder, self._exact_holder()
            for cell, hypotheses in self._hypotheses(evidence, before):
                holder[cell] = _likeliest(hypotheses, UNASSIGNED if prefer_unassigned else int(holder[cell]))
            if (holder == before).all():
                break
        return holder

    def _hypotheses(self, evidence: PairEvidence, holder: Ints) -> Iterator[tuple[int, list[_Hypothesis]]]:
        """Yields each open anchor and the hypotheses on its box, with soft targets computed for the assignment ``holder`` (B·A,)."""
        pairs, may_be_unassigned = self.allowed.margins.pairs, self.allowed.may_be_unassigned
        expected = weight_intervals(self.allowed, evidence.pair, holder, self.definition.case.spec)
        misfit = evidence.misfit(expected, self._rate(evidence, holder))
        vanished = (evidence.observed_boxes == 0).all(1)
        box = pairs.box[evidence.pair]
        for cell, here in _by_cell(pairs.cell[evidence.pair]):
            hypotheses = _hypotheses_at(box, here, evidence, misfit, vanished=bool(vanished[here[0]]))
            if may_be_unassigned[cell] and vanished[here[0]]:
                off = float(misfit.unassigned[here].max())
                hypotheses.append(_Hypothesis(UNASSIGNED, off, off, 0.0, 0.0))
            yield cell, hypotheses

    def _match_normaliser(self, evidence: PairEvidence, holder: Ints) -> Ints:
        """Returns ``holder`` (B·A,) with boxes exchanged among plausible ones, one anchor at a time, until S is the observed one."""
        answer = holder.copy()
        if evidence.rate is None:
            return answer
        wanted, spec = self.definition.case.batch_size / evidence.rate, self.definition.case.spec
        expected = weight_intervals(self.allowed, evidence.pair, holder, spec).value
        entries = self._entries(evidence)
        weight = {key: float(expected[at]) for key, at in entries.items()}
        left = wanted - float(self._weights(holder).sum())
        free = [(cell, box) for cell, boxes in self._plausible_boxes(evidence, holder) for box in boxes]
        pairs, uncontested = self.allowed.margins.pairs, self.allowed.alone
        alone = {key for key, at in entries.items() if uncontested[evidence.pair[at]]}
        number = Counter(pairs.box[uncontested & (holder[pairs.cell] == pairs.box)].tolist())
        for _ in free:
            able = [one for one in free if one not in alone or number[one[1]] < spec.topk]
            steps = [(weight.get(one, 0.0) - weight.get((one[0], int(answer[one[0]])), 0.0), one) for one in able]
            change, (cell, box) = min(steps, key=lambda step: abs(left - step[0]), default=(0.0, (0, UNASSIGNED)))
            if abs(left) <= _NORMALISER_ROUNDINGS * evidence.roundoff * wanted or abs(left - change) >= abs(left):
                break
            number[int(answer[cell])] -= (cell, int(answer[cell])) in alone
            number[box] += (cell, box) in alone
            left, answer[cell] = left - change, box
        return answer

    def _entries(self, evidence: PairEvidence) -> dict[tuple[int, int], int]:
        """Returns the index into the evidence (Q,) by anchor and box."""
        pairs = self.allowed.margins.pairs
        keys = zip(pairs.cell[evidence.pair].tolist(), pairs.box[evidence.pair].tolist(), strict=True)
        return {key: at for at, key in enumerate(keys)}

    def _term_bounds(self, evidence: PairEvidence, holder: Ints) -> TermBounds:
        """Returns bounds on the terms over all assignments that give the same gradients as ``holder`` (B·A,)."""
        undecided = [
            (cell, boxes) for cell, boxes in self._plausible_boxes(evidence, holder) if len(boxes) > 1 and int(holder[cell]) in boxes
        ]
        if not undecided:
            return NO_ALTERNATIVES
        spec, entries, rate = self.definition.case.spec, self._entries(evidence), self._rate(evidence, holder)
        weight = weight_intervals(self.allowed, evidence.pair, holder, spec).value
        share = weight if spec.anchor_weights == "own" else np.full_like(weight, self._weights(holder).sum())
        # A last row of zeros stands for an anchor without box.
        terms = np.concatenate([rate * share[:, None] * evidence.term_values, np.zeros((1, evidence.term_values.shape[1]))])
        weight = np.append(weight, 0.0)
        alternatives = []
        for cell, boxes in undecided:
            at = np.array([entries.get((cell, box), -1) for box in boxes])
            alternatives.append(Alternatives(weight[at], terms[at], boxes.index(int(holder[cell]))))
        return term_bounds(alternatives)

    def _plausible_boxes(self, evidence: PairEvidence, holder: Ints) -> Iterator[tuple[int, list[int]]]:
        """Yields each open anchor and its plausible boxes, ``UNASSIGNED`` included."""
        for cell, hypotheses in self._hypotheses(evidence, holder):
            yield cell, [hypothesis.box for hypothesis in _plausible(hypotheses)]


def _by_cell(cell: Ints) -> Iterator[tuple[int, Ints]]:
    """Yields each anchor and the indices of its entries (Q,)."""
    order = np.argsort(cell, kind="stable")
    for here in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1):
        yield int(cell[here[0]]), here


def _hypotheses_at(box: Ints, here: Ints, evidence: PairEvidence, misfit: Misfit, *, vanished: bool) -> list[_Hypothesis]:
    """Returns a hypothesis for each entry (Q,) of one anchor; ``vanished``: the anchor's observed box gradient is exactly 0."""
    label, unassigned = evidence.label[here], misfit.unassigned[here]
    # If a box holds the anchor, the scores of the other boxes' classes have no target.
    elsewhere = np.where(label[:, None] != label, unassigned, 0.0).max(1)
    least = np.where(misfit.cannot_vanish[here] & vanished, np.inf, elsewhere)
    fits = (np.maximum(fit[here], least).tolist() for fit in (misfit.expected, misfit.fitted))
    # A likelihood has no density at a gradient that is exactly 0.
    nll = np.zeros(len(here)) if vanished else misfit.nll[here]
    others = (nll.tolist(), misfit.weight_deviation[here].tolist())
    return [_Hypothesis(*one) for one in zip(box[here].tolist(), *fits, *others, strict=True)]


def _plausible(hypotheses: list[_Hypothesis]) -> list[_Hypothesis]:
    """Returns those that fit with the expected soft target, without those that are far less likely than another.

    >>> near, far = _Hypothesis(1, 0.4, 0.4, -60.0, 0.0), _Hypothesis(0, 1e6, 1e6, 1e12, 0.0)
    >>> [hypothesis.box for hypothesis in _plausible([far, near])]
    [1]
    """
    fits = [hypothesis for hypothesis in hypotheses if hypothesis.expected <= _FIT_ROUNDINGS]
    least = min((hypothesis.nll for hypothesis in fits), default=0.0)
    return [hypothesis for hypothesis in fits if hypothesis.nll <= least + _LOG_LIKELIHOOD_RATIO]


def _likeliest(hypotheses: list[_Hypothesis], own: int) -> int:
    """Returns the box, or ``UNASSIGNED``, of the best hypothesis; ``own`` where it is among several plausible ones."""
    as_expected = [(h.box != own, h.expected, h.box) for h in _plausible(hypotheses)]
    if as_expected:
        return min(as_expected)[-1]
    # What else the boxes hold is unknown or wrong at this stage, and so are the expected soft targets.
    fits = [(min(h.expected, h.fitted), h.weight_deviation, h.box) for h in hypotheses]
    limit = _FIT_ROUNDINGS * max(1.0, min(fits, default=(np.inf,))[0])
    likely = [(deviation, box != own, fit, box) for fit, deviation, box in fits if fit <= limit]
    return min(likely)[-1] if likely else own
