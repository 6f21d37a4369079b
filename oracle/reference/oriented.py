"""Ultralytics' oriented loss as a contender, called as a black box; numbers in brackets are sections of the oriented specification."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.reference.criterion import ReferenceCriterion, precision_context
from oracle.reference.stand_ins import StandInModel
from twinloss import OrientedSpec

_SMALLEST_SIDE = 2  # [3.1] Pixels.


class ReferenceOriented(ReferenceCriterion):
    """The reference's oriented loss, and its stages; ``decode`` and ``targets`` have boxes (x, y, w, h, θ) in place of corners."""

    spec: OrientedSpec

    def _make(self, model: StandInModel) -> Any:
        from ultralytics.utils.loss import v8OBBLoss  # after oracle.reference.criterion, which handles its import

        return v8OBBLoss(model, tal_topk=self.spec.topk, tal_topk2=self.spec.topk2)

    def _criterion(self, preds: Preds) -> Any:
        rows, columns = preds["feats"][0].shape[2:]
        self._image_size = (columns * self.spec.strides[0], rows * self.spec.strides[0])
        return super()._criterion(preds)

    def _kept(self, batch: Batch) -> Tensor:
        """[3.1] Rows with a side below 2 px are removed before the layout."""
        sides = batch["bboxes"][:, 2:4]
        return (sides * sides.new_tensor(self._image_size) >= _SMALLEST_SIDE).all(1)

    @torch.no_grad()
    def decode(self, preds: Preds) -> Tensor:
        """Returns predicted boxes (B, A, 5) in grid units."""
        with precision_context(preds):
            centres, _ = self.anchors(preds)
            columns = (preds[name].transpose(1, 2).contiguous() for name in ("boxes", "angle"))
            return cast(Tensor, self._criterion(preds).bbox_decode(centres, *columns))
