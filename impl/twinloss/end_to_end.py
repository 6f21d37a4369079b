"""The loss of end-to-end heads, which predict twice: one2many to learn from, one2one to answer with.

Of detection it is section 12 of the specification, of segmentation and oriented boxes section 12 of theirs, of pose section 11.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from twinloss.loss import LOSSES, Batch, Predictions
from twinloss.spec import LossSpec

Generation = Literal[1, 2]
LossAndItems = tuple[Tensor, dict[str, Tensor]]

_ONE_TO_ONE: dict[Generation, tuple[int, int | None]] = {1: (1, None), 2: (7, 1)}  # topk and topk2
_SHARE_AT_START, _SHARE_AT_END = 0.8, 0.1


class EndToEndLoss:
    """Two losses of one task, each with an assignment of its own, on two prediction sets of one head.

    Args:
        spec: the definition's numbers, which say what the task is; its ``topk`` is that of one2many, and one2one has its own: 1 in the
            first generation, in the second 7, of which the second cut leaves 1.
        generation: 1 adds the two losses and their items (YOLOv10); 2 weights them by a share that moves from one2many to one2one
            as the epochs pass, and logs one2one's items (YOLO26). Only detection has a first one.
        epochs: length of the training, over which the second generation's share moves.
        options: of the task's loss, such as ``ties`` and ``conflicts``, and pose's ``flow``, the same for both.

    Attributes:
        updates: how often :meth:`update` was called; may be set when training resumes.

    Raises:
        ValueError: ``generation`` is neither 1 nor 2, or the task has no first one, or an option's value is unknown.
        TypeError: ``options`` has a name that the task's loss does not know.
    """

    def __init__(self, spec: LossSpec, *, generation: Generation = 2, epochs: int = 100, **options: Any) -> None:
        if generation not in _ONE_TO_ONE:
            raise ValueError(f"generation is {generation!r}; it must be 1 (YOLOv10) or 2 (YOLO26)")
        if generation == 1 and spec.task != "detect":
            raise ValueError(f"generation is 1 (YOLOv10), which has no loss of the task {spec.task!r}; use 2 (YOLO26)")
        topk, topk2 = _ONE_TO_ONE[generation]
        self.generation = generation
        self.epochs = epochs
        self.updates = 0  # a property, whose share a tracer takes for an input
        self.one2many = LOSSES[spec.task](spec, **options)
        self.one2one = LOSSES[spec.task](replace(spec, topk=topk, topk2=topk2), **options)

    def __call__(self, preds: Mapping[str, Predictions], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        Args:
            preds: ``one2many`` and ``one2one``, each as the task's loss takes its predictions.
            batch: targets, as there.

        Returns:
            (T,): the task's terms, times the number of images; and the logged items by name.

        Raises:
            ValueError: one of the two sets is missing, or an input is not what it must be.
        """
        missing = [name for name in ("one2many", "one2one") if name not in preds]
        if missing:
            raise ValueError(f"preds has {', '.join(preds)} but not {' and '.join(missing)}; an end-to-end head gives one2many and one2one")
        return self.combine(self.one2many(preds["one2many"], batch), self.one2one(preds["one2one"], batch))

    def combine(self, many: LossAndItems, one: LossAndItems, share: Tensor | float | None = None) -> LossAndItems:
        """Loss and items of both sets together, from those of one2many and of one2one (spec section 12).

        ``share`` is that of one2many, a number or a tensor () on the host, where it is not this loss's own.
        """
        if self.generation == 1:
            return many[0] + one[0], {name: item + one[1][name] for name, item in many[1].items()}
        if share is None:
            share = self._share if torch.compiler.is_compiling() else self.one2many_share
        return share * many[0] + (1 - share) * one[0], one[1]

    @property
    def one2many_share(self) -> float:
        """Weight λ of one2many in the second generation; one2one's is the rest (spec section 12)."""
        return self._scheduled_share()

    def _scheduled_share(self) -> float:
        left = max(1 - self.updates / max(self.epochs - 1, 1), 0)
        return left * (_SHARE_AT_START - _SHARE_AT_END) + _SHARE_AT_END

    @property
    def updates(self) -> int:
        """How often :meth:`update` was called; may be set."""
        return self._updates

    @updates.setter
    def updates(self, count: int) -> None:
        self._updates = count
        # A number that changes would be a constant of a traced graph, and each epoch another graph.
        self._share = torch.tensor(self._scheduled_share(), dtype=torch.float64, device="cpu")

    def update(self) -> None:
        """Say that an epoch has ended."""
        self.updates += 1
