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
from twinloss import LossSpec

Step = Callable[..., Any]
"""A replaced step: called with the criterion, the step that it replaces, and that step's arguments."""


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
        """Returns the definition with this variant's numbers.

        Raises:
            ValueError: a number is out of its range.
        """
        return spec if self.numbers is None else dataclasses.replace(spec, **self.numbers(spec))

    def applies(self, spec: LossSpec) -> bool:
        """Whether this variant of a definition exists and may give other numbers."""
        if self.tasks and spec.task not in self.tasks:
            return False
        if self.numbers is None or self.steps or self.before or self.after:
            return True
        try:
            return self.changed(spec) != spec
        except ValueError:
            return False


class VariedCriterion:
    """The definition in float64 with some variants.

    Args:
        spec: the definition.
        variants: in the order in which they are applied.
        ties: as for :class:`~oracle.definition.criterion.ExactCriterion`.
        flow: the flow, where the definition has a likelihood term.

    Raises:
        ValueError: a variant's number is out of its range.
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
        for variant in self.variants:
            if variant.before is not None:
                preds, batch = variant.before(preds, batch, self.spec)
        loss, items = self.exact(preds, batch)
        for variant in self.variants:
            if variant.after is not None:
                loss = variant.after(loss, preds, batch)
        images = preds["scores"].shape[0]
        return loss, {name: value / images for name, value in zip(items, loss.detach(), strict=True)}
