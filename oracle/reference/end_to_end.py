"""The reference's losses of end-to-end heads, both generations, as black boxes (spec section 12)."""

from __future__ import annotations

from typing import Any, cast

import torch

from oracle.contract.contender import Batch, LossAndItems, Preds
from oracle.reference.criterion import ReferenceDeclines, declines_spec, precision_of
from oracle.reference.stand_ins import StandInModel
from twinloss import LossSpec


class ReferenceEndToEnd:
    """The reference's loss of an end-to-end head; in float64 from end to end when the logits are.

    Args:
        spec: the numbers of the definition.
        generation: 1 or 2 (spec section 12).
        epochs: of the training.

    Raises:
        ReferenceDeclines: the definition departs from a number that the reference has no opening for.
    """

    def __init__(self, spec: LossSpec, *, generation: int, epochs: int) -> None:
        if reason := declines_spec(spec) or _declines_candidates(spec):
            raise ReferenceDeclines(reason)
        self.spec, self.generation, self.epochs = spec, generation, epochs
        self._made: dict[torch.dtype, Any] = {}

    def __call__(self, preds: dict[str, Preds], batch: Batch) -> LossAndItems:
        """Loss (3,), times the number of images, and the logged items."""
        with precision_of(preds["one2many"]):
            return cast(LossAndItems, self.criterion()(preds, batch))

    def update(self) -> None:
        """Say that an epoch has ended."""
        for criterion in self._made.values():
            criterion.update()

    def criterion(self) -> Any:
        """The reference's own object for the default dtype, made once."""
        from ultralytics.utils.loss import E2EDetectLoss, E2ELoss  # oracle.reference.criterion has to prepare the surroundings first

        dtype = torch.get_default_dtype()
        if dtype not in self._made:
            model = StandInModel(self.spec, torch.device("cpu"))
            model.args.epochs = self.epochs
            self._made[dtype] = E2EDetectLoss(model) if self.generation == 1 else E2ELoss(model)
        return self._made[dtype]


def _declines_candidates(spec: LossSpec) -> str | None:
    standard = LossSpec(num_classes=1)
    for field in ("topk", "topk2", "alpha", "beta"):
        if getattr(spec, field) != getattr(standard, field):
            return f"the reference's end-to-end losses have no opening for {field} = {getattr(spec, field)}"
    return None
