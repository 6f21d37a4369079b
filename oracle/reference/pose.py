"""The reference's pose losses of both generations as contenders, called as black boxes (pose specification, section 13)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from oracle.reference import criterion
from oracle.reference.end_to_end import ReferenceEndToEnd
from oracle.reference.stand_ins import StandInModel
from twinloss import PoseSpec


def pose_model(model: StandInModel, spec: PoseSpec, flow: nn.Module | None) -> StandInModel:
    """Returns the stand-in model with what the reference reads for pose; the shape of keypoints has to be a list [13]."""
    model.args.pose, model.args.kobj, model.args.rle = spec.gains[3:]
    model.model[-1].kpt_shape = list(spec.keypoint_shape)
    if spec.flow:
        model.model[-1].flow_model = flow
    if spec.sigmas is not None:
        setattr(model, "kpt_oks_sigmas", list(spec.sigmas))  # noqa: B010 - a module declares its attributes as tensors
    return model


def model_flow(seed: int = 0) -> nn.Module:
    """Returns a new flow as the head of a model has, with the parameters that a seed gives it."""
    from ultralytics.nn.modules.block import RealNVP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow: nn.Module = RealNVP()
    return flow


class ReferencePose(criterion.ReferenceCriterion):
    """The reference's pose loss, and its stages; with float64 logits it computes in float64 throughout.

    Args:
        spec: the numbers of the definition, and its generation.
        flow: the module whose ``log_prob`` is the log-density; needed where ``spec.flow`` is true.

    Raises:
        ReferenceDeclines: the spec changes a number that the reference has no parameter for.
    """

    spec: PoseSpec
    counts_weightless = True  # The keypoint terms count them [5].

    def __init__(self, spec: PoseSpec, *, flow: nn.Module | None = None) -> None:
        super().__init__(spec)
        self.flow = flow

    def _make(self, model: StandInModel) -> Any:
        from ultralytics.utils.loss import PoseLoss26, v8PoseLoss  # after oracle.reference.criterion, which handles its import

        kind = v8PoseLoss if self.spec.generation == 1 else PoseLoss26
        return kind(pose_model(model, self.spec, self.flow), tal_topk=self.spec.topk, tal_topk2=self.spec.topk2)

    def _of_overlap(self, options: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the keypoints; the strides matter for the candidates alone, and the assigner keeps them from the last call [13]."""
        return {name: value for name, value in options.items() if name != "anc_strides"}


class ReferenceEndToEndPose(ReferenceEndToEnd):
    """The reference's loss of an end-to-end head, ``Pose26``, or of two branches of ``Pose``, by the generation of the definition [11].

    Args:
        spec: the numbers of the definition.
        epochs: number of epochs of the training.
        flow: as for :class:`ReferencePose`.
    """

    spec: PoseSpec

    def __init__(self, spec: PoseSpec, *, epochs: int, flow: nn.Module | None = None) -> None:
        super().__init__(spec, generation=2, epochs=epochs)
        self.flow = flow

    def _model(self, model: StandInModel) -> StandInModel:
        return pose_model(model, self.spec, self.flow)
