"""The definition's answers for one case in one setting, each computed once and cached."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Case, Inputs, Setting
from oracle.cases.tasks import task_of
from oracle.contract.run import Outcome, leaves_of, run_given
from oracle.definition.assignment_trace import UNASSIGNED
from oracle.definition.criterion import ExactCriterion, Grid
from oracle.definition.tasks import DEFINITIONS
from oracle.judge.loss_and_gradients import Expected, Layout
from oracle.tolerance.allowed_assignments import AllowedAssignments, TieRules, allowed_assignments
from oracle.tolerance.assignment import IndexedAssignment, Weights, indexed_assignment, weights_of
from oracle.tolerance.loss_and_gradients import outcome_tolerance
from oracle.tolerance.margins import Ints, Margins, margins_of
from oracle.tolerance.precision import Precision
from oracle.tolerance.tasks import TASK_STEPS
from twinloss import Assignment


class ExactAssignment(NamedTuple):
    """The definition's assignment, the box (B·A,) that holds each anchor with weight 0 or ``UNASSIGNED``, and the first with indices."""

    assignment: Assignment
    zero_held: Ints
    held: IndexedAssignment


class DefinitionAnswers:
    """The definition's answers for one case, in float64 on the CPU, each computed at its first use.

    Args:
        case: the batch.
        setting: the logits' dtype; all contenders and the definition get the logits rounded to it.
    """

    def __init__(self, case: Case, setting: Setting) -> None:
        self.case, self.setting = case, setting
        self.layout, self.steps = Layout(case.spec, case.grids), TASK_STEPS[case.spec.task]
        self.inputs: Inputs = build(case, Setting(setting.dtype, device="cpu"))
        self.flow = task_of(case).flow(case)
        self._exact: dict[tuple[str, str], ExactCriterion] = {}
        self._margins: dict[Precision, Margins] = {}
        self._allowed: dict[tuple[Precision, TieRules], AllowedAssignments] = {}
        self._decided: dict[tuple[str, str], ExactAssignment] = {}
        self._weights: dict[tuple[bytes, Precision, TieRules], Weights] = {}
        self._truths: dict[bytes, Outcome] = {}
        self._expected: dict[tuple[bytes, bytes, Precision], Expected] = {}

    @property
    def finite(self) -> bool:
        """Whether every logit is finite; a case with others is bad input and is not judged."""
        return all(bool(leaf.isfinite().all()) for leaf in leaves_of(self.inputs.preds).values())

    @cached_property
    def grid(self) -> Grid:
        """The anchors."""
        return self.exact(TieRules()).grid(self.inputs.preds)

    @cached_property
    def predicted(self) -> Tensor:
        """The predicted boxes (B, A, K) in grid units."""
        with torch.no_grad():
            return self.exact(TieRules()).decode(self.inputs.preds)

    def predicted_tolerance(self, precision: Precision) -> Tensor:
        """Returns the tolerance (B, A, K) of the predicted boxes."""
        return self.steps.margins.predicted(self.inputs.preds, self.grid, self.predicted, self.case.spec.reg_max, precision)

    @property
    def box_numbers(self) -> tuple[str, ...]:
        """Names of the K numbers of a box."""
        return self.exact(TieRules()).box_numbers

    @cached_property
    def labels(self) -> Tensor:
        """The class (N,) of each row of the batch."""
        labels: Tensor = self.inputs.batch["cls"].reshape(-1).long()
        return labels

    @cached_property
    def scores(self) -> Tensor:
        """The class logits (B, C, A) in float64."""
        scores: Tensor = self.inputs.preds["scores"].detach().double()
        return scores

    def exact(self, rules: TieRules) -> ExactCriterion:
        """Returns the definition's criterion with a contender's rules for ties and conflicts."""
        key = (rules.ties, rules.conflicts)
        if key not in self._exact:
            options = {} if self.flow is None else {"flow": self.flow}
            self._exact[key] = DEFINITIONS[self.case.spec.task](self.case.spec, rules.ties, rules.conflicts, **options)
        return self._exact[key]

    def margins(self, precision: Precision) -> Margins:
        """Returns boxes and pairs with the intervals of a precision."""
        if precision not in self._margins:
            self._margins[precision] = margins_of(self.exact(TieRules()), *self.inputs, precision, self.steps.margins)
        return self._margins[precision]

    def allowed(self, precision: Precision, rules: TieRules) -> AllowedAssignments:
        """Returns the assignments that a contender may give."""
        key = (precision, rules)
        if key not in self._allowed:
            self._allowed[key] = allowed_assignments(self.margins(precision), self.case.spec, rules)
        return self._allowed[key]

    def decided(self, precision: Precision, rules: TieRules) -> ExactAssignment:
        """Returns the definition's assignment under a contender's rules."""
        # Without ties both rules give the same assignment.
        tied = rules.ties == "reference" and self.allowed(precision, rules).open_to_ties
        key = (rules.ties if tied else "stable", rules.conflicts)
        if key not in self._decided:
            self._decided[key] = self._decide(precision, replace(rules, ties=key[0]))
        return self._decided[key]

    def _decide(self, precision: Precision, rules: TieRules) -> ExactAssignment:
        allowed = self.allowed(precision, rules)
        traces = self.exact(rules).trace(*self.inputs)
        entries = []
        zero_held = torch.full((len(traces), self.case.num_anchors), UNASSIGNED, dtype=torch.int64)
        for one in traces:
            counted = self.exact(rules).counts(one)
            (held,) = counted.nonzero(as_tuple=True)
            (unseen,) = ((one.holder >= 0) & ~counted).nonzero(as_tuple=True)
            entries.append((torch.full_like(held, one.image), held, one.rows[one.holder[held]], one.weight[held]))
            zero_held[one.image, unseen] = torch.from_numpy(allowed.margins.boxes.index_of(one.rows[one.holder[unseen]].tolist()))
        assignment = Assignment(*(torch.cat(column) for column in zip(*entries, strict=True)))
        return ExactAssignment(assignment, zero_held.reshape(-1).numpy(), indexed_assignment(allowed, assignment))

    def weights(self, held: IndexedAssignment, precision: Precision, rules: TieRules) -> Weights:
        """Returns the definition's soft targets on an allowed assignment."""
        key = (held.key, precision, rules)
        if key not in self._weights:
            zero_held = self.decided(precision, rules).zero_held
            self._weights[key] = weights_of(self.allowed(precision, rules), held, self.case.spec, precision, zero_held)
        return self._weights[key]

    def expected(self, held: IndexedAssignment, weights: Weights, precision: Precision, *, given: bool) -> Expected:
        """Returns the loss and its gradients on an assignment, with the tolerance of each number.

        Args:
            held: the assignment.
            weights: its soft targets, with the tolerance for a contender that computes them.
            precision: the contender's.
            given: whether the contender was given the soft targets, which then have no tolerance.
        """
        key = (held.key, weights.tolerance.tobytes() * (not given), precision)
        if key not in self._expected:
            assignment = held.assignment(self.case.num_anchors, weights.value)
            truth = self.truth(held, assignment)
            of_weights = torch.zeros_like(assignment.weight) if given else torch.from_numpy(weights.tolerance)
            classification = float(truth.loss[self.case.spec.terms.index("cls")])
            tolerance = outcome_tolerance(
                self.exact(TieRules()), *self.inputs, assignment, of_weights, classification, precision, self.steps.terms
            )
            self._expected[key] = Expected(assignment, truth, tolerance, self.labels[assignment.box], self.scores)
        return self._expected[key]

    def truth(self, held: IndexedAssignment, assignment: Assignment) -> Outcome:
        """Returns the definition's loss and gradients on an assignment."""
        if held.key not in self._truths:
            exact, terms = self.exact(TieRules()), self.case.spec.terms
            self._truths[held.key] = run_given(exact, self.inputs, self.setting, assignment, terms=terms, flow=self.flow)
        return self._truths[held.key]
