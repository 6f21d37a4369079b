"""Ultralytics' instance-segmentation losses as a contender, called as black boxes (segmentation spec sections 2 and 14)."""

from __future__ import annotations

from typing import Any

from oracle.cases.case import Inputs, Setting
from oracle.reference.criterion import ReferenceCriterion, declines
from oracle.reference.stand_ins import StandInModel
from twinloss import LossSpec, SegmentationSpec


class ReferenceSegmentation(ReferenceCriterion):
    """The reference's segmentation loss and its stages: ``v8SegmentationLoss``, or ``SegmentLoss26`` for the mask-aware assignment.

    Args:
        spec: the numbers of the definition.

    Raises:
        ReferenceDeclines: the spec changes a number that the reference has no parameter for.
    """

    spec: SegmentationSpec
    counts_weightless = True  # The mask term counts them [4].

    def _make(self, model: StandInModel) -> Any:
        from ultralytics.utils.loss import SegmentLoss26, v8SegmentationLoss  # after oracle.reference.criterion, which handles its import

        model.args.overlap_mask = self.spec.overlap_mask
        made = SegmentLoss26 if self.spec.mask_aware else v8SegmentationLoss
        return made(model, tal_topk=self.spec.topk, tal_topk2=self.spec.topk2)


def declines_segmentation(spec: LossSpec, inputs: Inputs, setting: Setting) -> str | None:
    """Returns the reason why the reference cannot compute this batch in this setting, for "not compared", or ``None``."""
    boxes = inputs.batch["bboxes"].reshape(-1, 4)
    if bool((boxes[:, 2:] == 0).any()):
        return "the reference's mask term is NaN where a box without area holds an anchor"
    return declines(spec, inputs, setting)
