"""Pose's likelihood term while torch traces: its flow is the user's code, which no operator can hold (pose spec sections 6 and 8).

It is traced on all S slots, of which those that hold no anchor count for nothing, as on a device in eager mode.

Shape suffixes: N rows of the batch, S slots, X channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.assignment.assign import Assignment
from twinloss.backends import torch as torch_backend
from twinloss.backends.call import Call, Flow
from twinloss.spec import LossSpec
from twinloss.terms.held import HeldAnchors
from twinloss.terms.pose import keypoint_likelihood_term

READ = ("kpts", "kpts_sigma")
"""Predictions that the term reads at the held anchors."""


def likelihood(
    spec: LossSpec,
    flow: Flow,
    predictions: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    grids: Sequence[tuple[int, int]],
    slots: Sequence[Tensor],
    gathered: Sequence[Tensor],
) -> Tensor:
    """The term without its gain, a scalar, with gradients in what was gathered and in the flow's parameters.

    Args:
        spec: the definition.
        flow: as :class:`twinloss.PoseLoss` takes it.
        predictions: by key.
        targets: by key.
        grids: rows and columns of each level.
        slots: anchor, row, soft target and count, as ``twinloss::step`` returns them.
        gathered: (S, X) each of :data:`READ` at the slots.
    """
    boxes, scores = predictions["boxes"], predictions["scores"]
    call = Call(boxes, scores, targets, spec, Pyramid(tuple(grids), spec.strides), extras={**predictions, **targets}, flow=flow)
    held, there = _assignment(targets["batch_idx"], slots)
    anchors = torch_backend.anchors(call.pyramid, boxes)
    with torch.autocast(boxes.device.type, enabled=False):
        return keypoint_likelihood_term(HeldAnchors(call, held, anchors, dict(zip(READ, gathered, strict=True)), there))


def _assignment(image_of_row: Tensor, slots: Sequence[Tensor]) -> tuple[Assignment, Tensor]:
    """The slots as an assignment, those that hold no anchor with the first anchor and row; and which of them do (S,)."""
    anchor, box, weight, count = slots
    there = torch.arange(len(anchor), device=anchor.device) < count
    anchor, box = (torch.where(there, index, 0).to(torch.int64) for index in (anchor, box))
    return Assignment(image_of_row.reshape(-1).to(torch.int64)[box], anchor, box, weight), there
