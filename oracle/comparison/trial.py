"""One contender on one case: its answer at each stage, computed once, and the errors against the definition."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import torch

from oracle.cases.case import Inputs
from oracle.cases.tasks import task_of
from oracle.contract.answer_form import WRONG_ATTRIBUTE, read_attribute
from oracle.contract.calls import ContenderFailed, call_contender
from oracle.contract.contender import Contender, Metrics, OffersAssignment, OffersStages, Targets
from oracle.contract.run import Outcome, fresh_leaves, in_setting, make_criterion, run_assign, run_given, run_loss
from oracle.contract.verdict import Judgement
from oracle.definition.tasks import DEFINITIONS
from oracle.inference.assignment import AssignmentInference, InferredAssignment
from oracle.judge.assignment import AssignmentJudgement, judge_assignment, weight_errors
from oracle.judge.indistinguishable import NO_ALTERNATIVES, TermBounds
from oracle.judge.loss_and_gradients import Expected, outcome_errors
from oracle.judge.stages_before_assignment import (
    MatchedPairs,
    anchor_errors,
    decode_errors,
    expect,
    expect_columns,
    judge_candidates,
    judge_target_rows,
    match_pairs,
    metric_errors,
    target_errors,
)
from oracle.judge.truth import DefinitionAnswers, ExactAssignment
from oracle.judge.worst_elements import QuantityError
from oracle.tolerance.allowed_assignments import AllowedAssignments, TieRules
from oracle.tolerance.assignment import IndexedAssignment, indexed_assignment
from oracle.tolerance.margins import Margins
from oracle.tolerance.precision import precision_of
from twinloss import Assignment

Answer = TypeVar("Answer")
_INFERRED = ("detect", "oriented")  # Tasks whose held anchors the gradients of box and class logits show.


class Trial:
    """A contender on a case.

    Args:
        contender: the contender.
        definition: the expected answers.
        inputs: the tensors of the case in its setting, on the setting's device.

    Raises:
        ContenderFailed: its factory raised.
    """

    def __init__(self, contender: Contender, definition: DefinitionAnswers, inputs: Inputs) -> None:
        self.contender, self.definition, self.inputs = contender, definition, inputs
        self.setting = definition.setting
        self.arithmetic = precision_of(self.setting, contender.arithmetic)
        self._kept: dict[str, Any] = {}
        # Its own flow, so that nothing that it does to it reaches the definition's.
        flow = task_of(definition.case).flow(definition.case)
        self.flow = None if flow is None else flow.to(self.setting.device)
        self.criterion = self._asked("factory", lambda: make_criterion(contender, definition.case.spec, self.setting, self.flow))
        # A criterion without a `ties` attribute is judged by the reference's tie rule.
        self.rules = self._asked("rules", self._rules)

    def _rules(self) -> TieRules:
        ties = read_attribute(self.criterion, "ties", "reference", ("stable", "reference"))
        conflicts = read_attribute(self.criterion, "conflicts", "overlap", ("overlap", "pickers"))
        weightless = DEFINITIONS[self.definition.case.spec.task].counts_weightless
        return TieRules(ties, conflicts, self.arithmetic.smallest_score, weightless)

    def _asked(self, name: str, call: Callable[[], Answer]) -> Answer:
        """Returns the contender's answer, or raises its failure; both are cached."""
        if name not in self._kept:
            try:
                self._kept[name] = call_contender(self.contender, call).answer
            except ContenderFailed as failure:
                self._kept[name] = failure
        if isinstance(answer := self._kept[name], ContenderFailed):
            raise answer
        return answer  # type: ignore[no-any-return]

    def _computed(self, name: str, compute: Callable[[], Answer]) -> Answer:
        """Returns a result of our own code, cached; its errors are not the contender's."""
        if name not in self._kept:
            self._kept[name] = compute()
        return self._kept[name]  # type: ignore[no-any-return]

    @property
    def _terms(self) -> tuple[str, ...]:
        return self.definition.case.spec.terms

    @property
    def margins(self) -> Margins:
        """Boxes and pairs with the intervals of this contender's precision."""
        return self.definition.margins(self.arithmetic)

    @property
    def allowed(self) -> AllowedAssignments:
        """What it may answer."""
        return self.definition.allowed(self.arithmetic, self.rules)

    @property
    def decided(self) -> ExactAssignment:
        """What the definition answers."""
        return self.definition.decided(self.arithmetic, self.rules)

    @cached_property
    def offers_assignment(self) -> bool:
        """Whether the criterion returns its assignment."""
        return isinstance(self.criterion, OffersAssignment)

    def _offering(self) -> OffersAssignment:
        if not isinstance(self.criterion, OffersAssignment):
            raise ContenderFailed(WRONG_ATTRIBUTE, f"{self.contender.name} offers no assignment")
        return self.criterion

    @cached_property
    def offers_stages(self) -> bool:
        """Whether every stage of the criterion can be called."""
        return isinstance(self.criterion, OffersStages)

    def _stage(self, name: str, check: Callable[[Any], None], *, targets: bool = True) -> Any:
        def call() -> Any:
            preds, batch = fresh_leaves(self.criterion, self.inputs)
            with in_setting(self.setting, self.criterion), torch.no_grad():
                method = getattr(self.criterion, name)
                answer = method(preds, batch) if targets else method(preds)
            check(answer)
            return answer

        return self._asked(name, call)

    def anchors(self) -> QuantityError:
        """Anchors against the definition."""
        count = self.definition.case.num_anchors

        def check(found: Any) -> None:
            centres, strides = found
            expect("anchors' centres", centres, (count, 2))
            expect("anchors' strides", strides, (count,))

        found = self._stage("anchors", check, targets=False)
        return self._computed("anchor peaks", lambda: anchor_errors(found, self.definition.grid, self.arithmetic, self.definition.layout))

    def decode(self) -> QuantityError:
        """Decoded boxes against the definition."""
        truth, layout, numbers = self.definition.predicted, self.definition.layout, self.definition.box_numbers
        found = self._stage("decode", lambda found: expect("decoded corners", found, tuple(truth.shape)), targets=False)
        allowed = self.definition.predicted_tolerance(self.arithmetic)
        return self._computed("decode peaks", lambda: decode_errors(found, truth, allowed, layout, numbers))

    def target_rows(self) -> Judgement:
        """Returns the verdict on the set of valid rows."""
        return judge_target_rows(self._targets(), self.margins.boxes)

    def target_corners(self) -> QuantityError:
        """Prepared boxes against the definition."""
        found = self._targets()
        return self._computed("target peaks", lambda: target_errors(found, self.margins.boxes, self.definition.box_numbers))

    def _targets(self) -> Targets:
        columns: dict[str, tuple[int, ...]] = {"row": (), "image": (), "label": (), "corners": (len(self.definition.box_numbers),)}
        whole = ("row", "image", "label")
        found: Targets = self._stage("targets", lambda found: expect_columns("targets", found, columns, whole))
        return found

    def candidates(self) -> Judgement:
        """Returns the verdict on the set of candidate pairs."""
        return judge_candidates(self._metrics(), self._matched(), self.margins, self.definition.layout)

    def metrics(self) -> list[QuantityError]:
        """Overlaps and metrics against the definition."""
        found, matched = self._metrics(), self._matched()
        return self._computed("metric peaks", lambda: metric_errors(found, matched, self.margins, self.definition.layout, self.arithmetic))

    def _metrics(self) -> Metrics:
        columns: dict[str, tuple[int, ...]] = {"row": (), "anchor": (), "overlap": (), "metric": ()}
        found: Metrics = self._stage("metrics", lambda found: expect_columns("metrics", found, columns, ("row", "anchor")))
        return found

    def _matched(self) -> MatchedPairs:
        found = self._metrics()
        return self._computed("matched", lambda: match_pairs(found, self.margins))

    def outcome(self) -> Outcome:
        """Returns loss and gradients of a complete call."""
        return self._asked("loss", lambda: run_loss(self.criterion, self.inputs, self.setting, terms=self._terms, flow=self.flow))

    def own_assignment(self) -> IndexedAssignment:
        """Its own assignment."""
        criterion = self._offering()

        allowed = self.allowed

        def call() -> IndexedAssignment:
            found = run_assign(criterion, self.inputs, self.setting)
            columns: dict[str, tuple[int, ...]] = {"image": (), "anchor": (), "box": (), "weight": ()}
            expect_columns("the assignment", found, columns, ("image", "anchor", "box"))
            return indexed_assignment(allowed, found)

        return self._asked("assign", call)

    def ruling(self, reference: IndexedAssignment | None = None) -> AssignmentJudgement:
        """Verdict on its assignment."""
        held = self.own_assignment()
        return self._computed("ruling", lambda: self.rule_on(held, reference))

    def rule_on(self, held: IndexedAssignment, reference: IndexedAssignment | None = None) -> AssignmentJudgement:
        """Verdict on an assignment that is, or may be, its own."""
        return judge_assignment(self.allowed, self.decided.held, held, reference, self.definition.layout)

    def weights(self) -> QuantityError:
        """Soft targets of its own, allowed, assignment."""
        held = self.own_assignment()

        def compute() -> QuantityError:
            demanded = self.definition.weights(held, self.arithmetic, self.rules)
            return weight_errors(held, demanded, self.definition.layout, self.allowed.margins.anchors)

        return self._computed("weight peaks", compute)

    def standard(self, held: IndexedAssignment | None = None, *, given: bool = False) -> Expected:
        """The expected numbers on an assignment that it is allowed, or on the definition's own."""
        held = held if held is not None else self.decided.held
        demanded = self.definition.weights(held, self.arithmetic, self.rules)
        return self.definition.expected(held, demanded, self.arithmetic, given=given)

    def given(self) -> dict[str, QuantityError]:
        """The loss and its gradients on the definition's assignment."""
        criterion, standard = self._offering(), self.standard(given=True)
        fields = (getattr(standard.assignment, name).to(self.setting.device) for name in ("image", "anchor", "box", "weight"))
        handed = Assignment(*fields)
        outcome = self._asked(
            "loss_given", lambda: run_given(criterion, self.inputs, self.setting, handed, terms=self._terms, flow=self.flow)
        )
        return self._computed("given peaks", lambda: outcome_errors(outcome.on_host(), standard, self.definition.layout))

    def loss(self, held: IndexedAssignment | None = None, alternatives: TermBounds = NO_ALTERNATIVES) -> dict[str, QuantityError]:
        """The loss and its gradients end to end.

        Args:
            held: an assignment that it is allowed; by default the definition's own.
            alternatives: bounds of the terms over assignments that its gradients do not tell apart.
        """
        outcome = self.outcome().on_host()
        key = f"loss peaks {'own' if held is None else held.key!r} {alternatives is NO_ALTERNATIVES}"

        def compute() -> dict[str, QuantityError]:
            return outcome_errors(outcome, self.standard(held).widened(outcome, alternatives), self.definition.layout)

        return self._computed(key, compute)

    def missing_items(self, *, given: bool = False) -> str:
        """Returns a sentence on the logged terms that are missing; empty if there are none."""
        names, items = self.definition.case.spec.term_names, self._kept["loss_given" if given else "loss"].items
        if not (missing := [name for name in names if name not in items]):
            return ""
        return f"missing: {', '.join(missing)}; its items are {', '.join(map(str, items)) or 'empty'}, and must have {', '.join(names)}"

    @property
    def hidden_decisions(self) -> int:
        """Number of open decisions, of which nothing is inferred for a task other than detection."""
        counts = self.allowed.decision_counts.values()
        return 0 if self.definition.case.spec.task == "detect" else sum(count.open for count in counts)

    def inferred(self) -> list[InferredAssignment]:
        """Assignments other than the definition's that its gradients show or leave open, and that are allowed."""
        if self.definition.case.spec.task not in _INFERRED:
            return []  # the other tasks' criteria show their assignment
        inference = AssignmentInference(self.outcome().on_host(), self.allowed, self.decided.held, self.definition, self.arithmetic)
        own = self.decided.held.key

        def compute() -> list[InferredAssignment]:
            others = (one for one in inference.assignments() if one.assignment.key != own or one.bounds is not NO_ALTERNATIVES)
            return [one for one in others if self.rule_on(one.assignment).usable]

        return self._computed("inferred", compute)
