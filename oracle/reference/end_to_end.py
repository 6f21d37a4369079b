"""The reference's losses of end-to-end heads, both generations, called as black boxes (spec section 12)."""

from __future__ import annotations

from typing import Any, cast

import torch

from oracle.contract.contender import Batch, LossAndItems, Preds
from oracle.reference.criterion import ReferenceDeclines, declines_spec, precision_context
from oracle.reference.stand_ins import StandInModel
from twinloss import LossSpec, SegmentationSpec

_LOSSES = {"oriented": "v8OBBLoss", "pose": "v8PoseLoss", "segment": "v8SegmentationLoss"}
"""Losses that the second generation can be of, beside that of detection, by task."""
_NEWER = {"pose": "PoseLoss26", "segment": "SegmentLoss26"}
"""Those with another assignment: by keypoints, or by masks."""


class ReferenceEndToEnd:
    """The reference's loss of an end-to-end head; computes in float64 throughout if the logits are float64.

    Args:
        spec: the numbers of the definition.
        generation: 1 or 2 (spec section 12).
        epochs: number of epochs of the training.

    Raises:
        ReferenceDeclines: the spec changes a number that the reference has no parameter for.
    """

    def __init__(self, spec: LossSpec, *, generation: int, epochs: int) -> None:
        if reason := declines_spec(spec) or _declines_candidates(spec):
            raise ReferenceDeclines(reason)
        if generation == 1 and spec.task != "detect":
            raise ReferenceDeclines(f"the first generation has no loss for the task {spec.task}")
        self.spec, self.generation, self.epochs = spec, generation, epochs
        self._made: dict[torch.dtype, Any] = {}

    def __call__(self, preds: dict[str, Preds], batch: Batch) -> LossAndItems:
        """Returns loss (T,), multiplied by the number of images, and the logged items."""
        with precision_context(preds["one2many"]):
            return cast(LossAndItems, self.criterion()(preds, batch))

    def update(self) -> None:
        """Ends an epoch."""
        for criterion in self._made.values():
            criterion.update()

    def _model(self, model: StandInModel) -> StandInModel:
        """Returns the stand-in model with what the reference reads for the task."""
        if isinstance(self.spec, SegmentationSpec):
            model.args.overlap_mask = self.spec.overlap_mask
        return model

    def criterion(self) -> Any:
        """Returns the reference's object, created once per default dtype."""
        from ultralytics.utils import loss  # after oracle.reference.criterion, which handles its import

        dtype = torch.get_default_dtype()
        if dtype not in self._made:
            model = self._model(StandInModel(self.spec, torch.device("cpu")))
            model.args.epochs = self.epochs
            newer = getattr(self.spec, "mask_aware", False) or getattr(self.spec, "generation", 1) == 2
            name = (_NEWER if newer else _LOSSES).get(self.spec.task)
            of_task = (getattr(loss, name),) if name else ()
            self._made[dtype] = loss.E2EDetectLoss(model) if self.generation == 1 else loss.E2ELoss(model, *of_task)
        return self._made[dtype]


def _declines_candidates(spec: LossSpec) -> str | None:
    standard = LossSpec(num_classes=1)
    for field in ("topk", "topk2", "alpha", "beta"):
        if getattr(spec, field) != getattr(standard, field):
            return f"the reference's end-to-end losses have no parameter for {field} = {getattr(spec, field)}"
    return None
