"""Variants of the definition: the same steps, with some of them replaced.

A variant is what an implementation might compute instead. It changes numbers of the definition, replaces steps of the criterion, or changes
inputs or result; whatever it does not name stays the definition's, of any task. Variants combine: each is applied to what the earlier ones
left. For example::

    inclusive = Variant("borders inclusive", "5.1", steps={"border": lambda exact, sound, *given: sound(*given) + 1e-6})
    one_more = Variant("K + 1 instead of K", "5.4", numbers=lambda spec: {"topk": spec.topk + 1})
    loss, items = VariedCriterion(spec, (inclusive, one_more))(preds, batch)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from oracle.contract.contender import Batch, LossAndItems, Preds
from oracle.definition.criterion import ExactCriterion
from oracle.definition.tasks import DEFINITIONS
from twinloss import Assignment, LossSpec

Step = Callable[..., Any]
"""A replaced step: called with the criterion, the step that it replaces, and that step's arguments."""

AFTER_ASSIGNMENT = frozenset({"held", "term_overlap", "box_terms", "distance_or_distribution", "classification", "extra_terms"})
"""Steps that no assignment depends on."""

NUMBERS_AFTER_ASSIGNMENT = frozenset({"gains", "class_weights", "clamp_margin", "distance_term", "anchor_weights"})
"""Fields of the definition that no assignment depends on."""


@dataclass(frozen=True, eq=False)
class Variant:
    """One departure from the definition.

    Attributes:
        name: what is otherwise, in a few words.
        section: section of the specification that says it right; empty for a release.
        numbers: returns the fields of the definition that are otherwise.
        steps: replaced methods of :class:`~oracle.definition.criterion.ExactCriterion`, by name.
        before: returns changed predictions and targets, given both and the definition.
        after: returns a changed loss (T,), given the loss, predictions and targets.
        tasks: the tasks that it is a departure of; all if empty.
        release: it is the definition of older releases, not a fault.
    """

    name: str
    section: str
    numbers: Callable[[LossSpec], Mapping[str, Any]] | None = None
    steps: Mapping[str, Step] = field(default_factory=dict)
    before: Callable[[Preds, Batch, LossSpec], tuple[Preds, Batch]] | None = None
    after: Callable[[Tensor, Preds, Batch], Tensor] | None = None
    tasks: tuple[str, ...] = ()
    release: bool = False

    def __str__(self) -> str:
        return f"{self.name} [{self.section}]" if self.section else self.name

    def changed(self, spec: LossSpec) -> LossSpec:
        """Returns the definition with this variant's numbers; the same definition where it cannot have them, such as K - 1 for K = 1."""
        try:
            return spec if self.numbers is None else dataclasses.replace(spec, **self.numbers(spec))
        except ValueError:
            return spec

    def applies(self, spec: LossSpec) -> bool:
        """Whether this variant of a definition may give other numbers."""
        if self.tasks and spec.task not in self.tasks:
            return False
        return bool(self.steps or self.before or self.after) or self.changed(spec) != spec

    def keeps_assignment(self, spec: LossSpec) -> bool:
        """Whether the assignment is the definition's, so that one that was computed without this variant can be used again."""
        if self.before is not None or not AFTER_ASSIGNMENT.issuperset(self.steps):
            return False
        changed = self.changed(spec)
        others = (field.name for field in dataclasses.fields(spec) if getattr(changed, field.name) != getattr(spec, field.name))
        return NUMBERS_AFTER_ASSIGNMENT.issuperset(others)


class VariedCriterion:
    """The definition in float64 with some variants.

    Args:
        spec: the definition.
        variants: in the order in which they are applied.
        ties: as for :class:`~oracle.definition.criterion.ExactCriterion`.
        flow: the flow, where the definition has a likelihood term.
    """

    leaf_dtype = torch.float64

    def __init__(
        self, spec: LossSpec, variants: Sequence[Variant], ties: Literal["stable", "reference"] = "stable", flow: nn.Module | None = None
    ) -> None:
        self.spec, self.variants = spec, tuple(variants)
        options: dict[str, Any] = {} if flow is None else {"flow": flow}
        for variant in self.variants:
            spec = variant.changed(spec)
        self.exact: ExactCriterion = DEFINITIONS[spec.task](spec, ties, **options)
        for variant in self.variants:
            for name, step in variant.steps.items():
                setattr(self.exact, name, partial(step, self.exact, getattr(self.exact, name)))

    def __call__(self, preds: Preds, batch: Batch) -> LossAndItems:
        """Returns the variant's loss (T,), and the items that follow from it."""
        preds, batch = self.read(preds, batch)
        return self._finished(self.exact(preds, batch)[0], preds, batch)

    def read(self, preds: Preds, batch: Batch) -> tuple[Preds, Batch]:
        """Returns predictions and targets as the variants read them."""
        for variant in self.variants:
            if variant.before is not None:
                preds, batch = variant.before(preds, batch, self.spec)
        return preds, batch

    def assign(self, preds: Preds, batch: Batch) -> Assignment:
        """Returns the variant's assignment."""
        return self.exact.assign(*self.read(preds, batch))

    def loss_given(self, preds: Preds, batch: Batch, assignment: Assignment) -> LossAndItems:
        """Returns loss and items on a given assignment."""
        preds, batch = self.read(preds, batch)
        return self._finished(self.exact.loss_given(preds, batch, assignment)[0], preds, batch)

    def _finished(self, loss: Tensor, preds: Preds, batch: Batch) -> LossAndItems:
        for variant in self.variants:
            if variant.after is not None:
                loss = variant.after(loss, preds, batch)
        return loss, {name: value / len(preds["scores"]) for name, value in zip(self.spec.term_names, loss.detach(), strict=True)}
