"""The losses of end-to-end heads by their definition, of every task (spec section 12)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch

from oracle.contract.contender import Batch, LossAndItems, Preds
from oracle.definition.tasks import DEFINITIONS
from twinloss import LossSpec

_ONE_TO_ONE: dict[int, tuple[int, int | None]] = {1: (1, None), 2: (7, 1)}  # K and topk2 of one2one.


class ExactEndToEnd:
    """Two losses with assignments of their own, on the prediction sets ``one2many`` and ``one2one``.

    Args:
        spec: the numbers of the definition; K is that of one2many.
        generation: 1 adds the two losses and their items, 2 mixes them by a share that :meth:`update` moves, and logs one2one's items.
        epochs: number of epochs of the training.
        ties: as for :class:`~oracle.definition.criterion.ExactCriterion`.
        options: further arguments of the task's criterion, for both: a pose flow.
    """

    leaf_dtype = torch.float64

    def __init__(
        self, spec: LossSpec, *, generation: int, epochs: int, ties: Literal["stable", "reference"] = "stable", **options: Any
    ) -> None:
        topk, topk2 = _ONE_TO_ONE[generation]
        make = DEFINITIONS[spec.task]
        self.many, self.one = make(spec, ties, **options), make(replace(spec, topk=topk, topk2=topk2), ties, **options)
        self.generation, self.epochs, self.updates = generation, epochs, 0

    def __call__(self, preds: dict[str, Preds], batch: Batch) -> LossAndItems:
        """Returns the loss (T,), times the number of images, and the logged items."""
        many, many_items = self.many(preds["one2many"], batch)
        one, one_items = self.one(preds["one2one"], batch)
        if self.generation == 1:
            return many + one, {name: item + one_items[name] for name, item in many_items.items()}
        share = max(1 - self.updates / max(self.epochs - 1, 1), 0) * 0.7 + 0.1
        return share * many + (1 - share) * one, one_items

    def update(self) -> None:
        """Ends an epoch."""
        self.updates += 1
