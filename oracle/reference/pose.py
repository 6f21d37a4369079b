"""The reference's pose losses of both generations as contenders, called as black boxes (pose specification, section 13)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from oracle.cases.case import Inputs, Setting
from oracle.contract.contender import Batch, LossAndItems, Metrics, Preds
from oracle.contract.run import double_precision
from oracle.reference import criterion
from oracle.reference.stand_ins import StandInModel
from twinloss import LossSpec, PoseSpec


class PoseModel(StandInModel):
    """The stand-in model with what the reference reads beside it for pose; the keypoints' shape has to be a list [13]."""

    def __init__(self, spec: PoseSpec, device: torch.device, flow: nn.Module | None) -> None:
        super().__init__(spec, device)
        self.args.pose, self.args.kobj, self.args.rle = spec.gains[3:]
        self.model[-1].kpt_shape = list(spec.keypoint_shape)
        if spec.flow:
            self.model[-1].flow_model = flow
        if spec.sigmas is not None:
            self.kpt_oks_sigmas = list(spec.sigmas)


class ReferencePose(criterion.ReferenceCriterion):
    """The reference's pose loss, and its stages; with float64 logits it computes in float64 throughout.

    Args:
        spec: the numbers of the definition, and its generation.
        flow: the module whose ``log_prob`` is the log-density; needed where ``spec.flow`` is true.

    Raises:
        ReferenceDeclines: the spec changes a number that the reference has no parameter for.
    """

    spec: PoseSpec

    def __init__(self, spec: PoseSpec, *, flow: nn.Module | None = None) -> None:
        super().__init__(spec)
        self.flow = flow

    def _new(self, device: torch.device) -> Any:
        from ultralytics.utils.loss import PoseLoss26, v8PoseLoss  # after oracle.reference.criterion, which handles its import

        kind = v8PoseLoss if self.spec.generation == 1 else PoseLoss26
        return kind(PoseModel(self.spec, device, self.flow), tal_topk=self.spec.topk, tal_topk2=self.spec.topk2)

    def _precision(self, preds: Preds) -> contextlib.AbstractContextManager[None]:
        return double_throughout() if preds["boxes"].dtype == torch.float64 else contextlib.nullcontext()

    def _counts(self, weight: Tensor) -> Tensor:
        """Every held anchor counts in the keypoint terms, also one of weight 0 [5]."""
        return torch.ones_like(weight, dtype=torch.bool)


class ReferenceEndToEndPose:
    """The reference's loss of an end-to-end pose head [11].

    Args:
        spec: the numbers of the definition, and its generation.
        epochs: number of epochs of the training.
        flow: as for :class:`ReferencePose`.
    """

    def __init__(self, spec: PoseSpec, *, epochs: int, flow: nn.Module | None = None) -> None:
        self.spec, self.epochs, self.flow = spec, epochs, flow
        self._made: dict[torch.dtype, Any] = {}

    def __call__(self, preds: dict[str, Preds], batch: Batch) -> LossAndItems:
        """Returns the loss, multiplied by the number of images, and the logged items."""
        double = preds["one2many"]["boxes"].dtype == torch.float64
        with double_throughout() if double else contextlib.nullcontext():
            return cast(LossAndItems, self.criterion()(preds, batch))

    def update(self) -> None:
        """Ends an epoch."""
        for made in self._made.values():
            made.update()

    def criterion(self) -> Any:
        """Returns the reference's object, created once per default dtype."""
        from ultralytics.utils.loss import E2ELoss, PoseLoss26, v8PoseLoss

        dtype = torch.get_default_dtype()
        if dtype not in self._made:
            model = PoseModel(self.spec, torch.device("cpu"), self.flow)
            model.args.epochs = self.epochs
            self._made[dtype] = E2ELoss(model, v8PoseLoss if self.spec.generation == 1 else PoseLoss26)
        return self._made[dtype]


@contextlib.contextmanager
def double_throughout() -> Iterator[None]:
    """Makes the reference compute in float64 from end to end: its own conversions to float32 convert to float64 instead [8a]."""
    own = Tensor.float
    Tensor.float = Tensor.double  # type: ignore[method-assign]
    try:
        with double_precision():
            yield
    finally:
        Tensor.float = own  # type: ignore[method-assign]


def declines(spec: LossSpec, inputs: Inputs, setting: Setting) -> str | None:
    """Returns the reason why the reference cannot compute this batch in this setting, for "not compared", or ``None``."""
    return criterion.declines(spec, inputs, setting)
