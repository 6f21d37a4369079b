"""What the definition says about one case in one setting: everything that contenders are held against, computed once and kept."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from oracle.cases.case import Case, Inputs, Setting
from oracle.contract.run import Outcome, run_given
from oracle.definition.criterion import ExactCriterion
from oracle.judge.loss_and_gradients import Layout, Standard
from oracle.judge.stages_before_assignment import Grid
from oracle.tolerance.allowed_assignments import Allowed, Rules, allow
from oracle.tolerance.assignment import Holdings, Weights, holdings_of, weights_of
from oracle.tolerance.coordinates import decoded
from oracle.tolerance.loss_and_gradients import allowance
from oracle.tolerance.margins import Ints, Margins, measure
from oracle.tolerance.precision import Arithmetic
from twinloss import Assignment


class Decided(NamedTuple):
    """The definition's assignment, and the box (B·A,) that holds each anchor with a weight of 0, or -1."""

    assignment: Assignment
    zero_held: Ints
    held: Holdings


class Definition:
    """The definition's answers for one case, in float64 on the CPU, each computed when it is first asked for.

    Args:
        case: the batch.
        setting: the logits' dtype, whose rounded values are the inputs of everybody.
    """

    def __init__(self, case: Case, setting: Setting) -> None:
        self.case, self.setting = case, setting
        self.layout = Layout(case.spec, case.grids)
        self.inputs: Inputs = case.build(Setting(setting.dtype, device="cpu"))
        self._exact: dict[tuple[str, str], ExactCriterion] = {}
        self._margins: dict[Arithmetic, Margins] = {}
        self._allowed: dict[tuple[Arithmetic, Rules], Allowed] = {}
        self._decided: dict[tuple[str, str], Decided] = {}
        self._weights: dict[tuple[bytes, Arithmetic, Rules], Weights] = {}
        self._truths: dict[bytes, Outcome] = {}
        self._standards: dict[tuple[bytes, bytes, Arithmetic], Standard] = {}

    @property
    def finite(self) -> bool:
        """Whether every logit is a finite number: others are bad input, which is not a matter of judgement."""
        return all(bool(self.inputs.preds[name].isfinite().all()) for name in ("boxes", "scores"))

    @cached_property
    def grid(self) -> Grid:
        """Anchors, and the distances decoded at them."""
        exact = self.exact(Rules())
        centres, strides = exact.anchors(self.inputs.preds)
        return Grid(centres, strides, decoded(self.inputs.preds["boxes"].transpose(1, 2), self.case.spec.reg_max))

    @cached_property
    def labels(self) -> Tensor:
        """Class of each row of the batch (N,)."""
        labels: Tensor = self.inputs.batch["cls"].reshape(-1).long()
        return labels

    @cached_property
    def scores(self) -> Tensor:
        """Class logits (B, C, A) in float64."""
        scores: Tensor = self.inputs.preds["scores"].detach().double()
        return scores

    def exact(self, rules: Rules) -> ExactCriterion:
        """The criterion that settles open questions as a contender does."""
        key = (rules.ties, rules.conflicts)
        if key not in self._exact:
            self._exact[key] = ExactCriterion(self.case.spec, rules.ties, rules.conflicts)
        return self._exact[key]

    def margins(self, arithmetic: Arithmetic) -> Margins:
        """Boxes and pairs with the intervals of an arithmetic."""
        if arithmetic not in self._margins:
            self._margins[arithmetic] = measure(self.exact(Rules()), *self.inputs, arithmetic)
        return self._margins[arithmetic]

    def allowed(self, arithmetic: Arithmetic, rules: Rules) -> Allowed:
        """What a contender may answer."""
        key = (arithmetic, rules)
        if key not in self._allowed:
            self._allowed[key] = allow(self.margins(arithmetic), self.case.spec, rules)
        return self._allowed[key]

    def decided(self, arithmetic: Arithmetic, rules: Rules) -> Decided:
        """The definition's own assignment."""
        # Ties are settled alike by everybody where there are none.
        tied = rules.ties == "reference" and self.allowed(arithmetic, rules).open_to_ties
        key = (rules.ties if tied else "stable", rules.conflicts)
        if key not in self._decided:
            self._decided[key] = self._decide(arithmetic, replace(rules, ties=key[0]))
        return self._decided[key]

    def _decide(self, arithmetic: Arithmetic, rules: Rules) -> Decided:
        allowed = self.allowed(arithmetic, rules)
        index = {int(row): g for g, row in enumerate(allowed.margins.boxes.row)}
        details = self.exact(rules).examine(*self.inputs)
        image, anchor, row, weight = [], [], [], []
        zero_held = torch.full((len(details), self.case.num_anchors), -1, dtype=torch.int64)
        for detail in details:
            (held,) = (detail.weight > 0).nonzero(as_tuple=True)
            (unseen,) = ((detail.holder >= 0) & (detail.weight == 0)).nonzero(as_tuple=True)
            image.append(torch.full_like(held, detail.image))
            anchor.append(held)
            row.append(detail.rows[detail.holder[held]])
            weight.append(detail.weight[held])
            zero_held[detail.image, unseen] = torch.tensor([index[int(r)] for r in detail.rows[detail.holder[unseen]]], dtype=torch.int64)
        assignment = Assignment(*(torch.cat(parts) for parts in (image, anchor, row, weight)))
        return Decided(assignment, zero_held.reshape(-1).numpy(), holdings_of(allowed, assignment))

    def weights(self, held: Holdings, arithmetic: Arithmetic, rules: Rules) -> Weights:
        """The soft targets that the definition demands of allowed holdings."""
        key = (held.key, arithmetic, rules)
        if key not in self._weights:
            zero_held = self.decided(arithmetic, rules).zero_held
            self._weights[key] = weights_of(self.allowed(arithmetic, rules), held, self.case.spec, arithmetic, zero_held)
        return self._weights[key]

    def standard(self, held: Holdings, weights: Weights, arithmetic: Arithmetic, *, given: bool) -> Standard:
        """The loss and its gradients on holdings, and the rounding of each number.

        Args:
            held: which box holds which anchor.
            weights: the soft targets; their slack is granted to a contender that computed them itself.
            arithmetic: the contender's.
            given: whether it was handed them instead.
        """
        key = (held.key, weights.slack.tobytes() * (not given), arithmetic)
        if key not in self._standards:
            assignment = held.assignment(self.case.num_anchors, weights.value)
            truth = self.truth(held, assignment)
            slack = torch.zeros_like(assignment.weight) if given else torch.from_numpy(weights.slack)
            classification = float(truth.loss[1])
            granted = allowance(self.exact(Rules()), *self.inputs, assignment, slack, classification, arithmetic)
            self._standards[key] = Standard(assignment, truth, granted, self.labels[assignment.box], self.scores)
        return self._standards[key]

    def truth(self, held: Holdings, assignment: Assignment) -> Outcome:
        """The definition's loss and gradients on an assignment."""
        if held.key not in self._truths:
            self._truths[held.key] = run_given(self.exact(Rules()), self.inputs, self.setting, assignment)
        return self._truths[held.key]
