"""What a call is given, admitted once for every backend: checked, and in memory that stays as it was checked.

Logits are read where they lie, so that autograd's own check notices a change between the two passes. Targets are few, and copied: a caller
who goes on to change the batch, a loader that fills its buffers again, or another thread, changes neither pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.assignment.assign import Assignment
from twinloss.backends.call import Call
from twinloss.backends.saved_tensors import in_memory
from twinloss.geometry.registry import GEOMETRIES
from twinloss.inputs.checks import (
    PLAIN,
    check_assignment_shapes,
    check_assignment_values,
    check_feature_maps,
    check_predictions,
    check_present,
    check_readable,
    check_target_shapes,
    check_target_values,
)
from twinloss.inputs.given import Given
from twinloss.inputs.level_maps import predictions_from_maps
from twinloss.inputs.tasks import FURTHER_IN_OLD_LAYOUT, FURTHER_INPUTS
from twinloss.spec import LossSpec
from twinloss.terms.classification import working_dtype

TARGETS = ("batch_idx", "cls", "bboxes")


def admit(preds: Any, batch: Mapping[str, Tensor], spec: LossSpec, validate: bool | None, **options: Any) -> Call:
    """Returns a call with checked inputs: targets are copies that nobody else has, contiguous, on the logits' device.

    Args:
        preds: as :class:`twinloss.DetectionLoss` takes them.
        batch: targets, as there.
        spec: the definition.
        validate: whether the targets' values are read; ``None`` where they are on the host.
        options: the other attributes of the call.

    Raises:
        TypeError: an input is no tensor.
        ValueError: an input is not what it must be; the message names it.
    """
    layout = layout_of(preds, spec)
    pyramid = pyramid_of(layout, spec)
    check_predictions(layout, spec, pyramid.num_anchors)
    boxes, scores = (in_memory(layout[name]) for name in ("boxes", "scores"))
    check_present("batch", batch, TARGETS)
    columns = GEOMETRIES[spec.geometry].targets
    check_target_shapes(batch, columns)
    copies = _copied(batch, len(columns))
    targets = dict(zip(TARGETS, copies, strict=True))
    if validate or (validate is None and all(column.device.type == "cpu" for column in copies)):
        check_target_values(targets, len(boxes), spec.num_classes, len(columns))
    further = FURTHER_INPUTS.get(spec.task)
    extras = further(Given(layout, batch, targets, boxes, spec, pyramid, validate)) if further else {}
    # The copies lie in pageable memory, which is read before the call returns: the host may go on, and does not wait.
    sent = (column.to(boxes.device, non_blocking=True) for column in copies)
    return Call(boxes, scores, dict(zip(TARGETS, sent, strict=True)), spec, pyramid, extras=extras, **options)


def admit_assignment(held: Assignment, call: Call, validate: bool | None) -> Assignment:
    """An assignment made elsewhere, in memory of its own on the logits' device, with int64 indices and weights in the working dtype.

    Raises:
        ValueError: its columns disagree; or, where values are read, an entry is out of range, out of order, or there twice.
    """
    check_assignment_shapes(held)
    dtypes = {"image": torch.int64, "anchor": torch.int64, "box": torch.int64, "weight": working_dtype(call.boxes)}
    columns = {name: _fresh(getattr(held, name).detach(), dtype, call.boxes.device) for name, dtype in dtypes.items()}
    ours = Assignment(**columns)
    if validate or (validate is None and call.boxes.device.type == "cpu"):
        check_assignment_values(ours, call.batch["batch_idx"], len(call.boxes), call.pyramid.num_anchors)
    return ours


def layout_of(preds: Any, spec: LossSpec) -> Mapping[str, Any]:
    """Predictions in the current layout, whichever they came in."""
    if not isinstance(preds, Mapping):
        return from_old_layout(preds, spec)
    check_present("preds", preds, ("boxes", "scores", "feats"))
    for name in ("boxes", "scores"):
        check_readable(f"preds[{name!r}]", preds[name])
    return preds


def from_old_layout(preds: Sequence[Any], spec: LossSpec) -> dict[str, Any]:
    """Predictions from per-level maps, with the task's further ones after them where it has any."""
    further = FURTHER_IN_OLD_LAYOUT[spec.task]
    if not further:
        return predictions_from_maps(preds, spec.num_classes, spec.reg_max)
    if len(preds) != 1 + len(further):
        raise ValueError(f"preds has {len(preds)} parts; the older layout has per-level maps and {' and '.join(further)}")
    return predictions_from_maps(preds[0], spec.num_classes, spec.reg_max) | dict(zip(further, preds[1:], strict=True))


def pyramid_of(layout: Mapping[str, Any], spec: LossSpec) -> Pyramid:
    """The grids, from the shapes of the feature maps.

    Raises:
        ValueError: there is not one map per stride, or one of them has no rows and columns, or more than can be told apart.
    """
    check_feature_maps(layout["feats"])
    return Pyramid(tuple((int(level.shape[-2]), int(level.shape[-1])) for level in layout["feats"]), spec.strides)


def _copied(batch: Mapping[str, Tensor], box_columns: int) -> list[Tensor]:
    """The three columns of a batch, flat but for the boxes, each where it was."""
    columns = [batch[key].detach().reshape(-1) for key in TARGETS]
    first, rows = columns[0], len(columns[0])
    alike = all(column.dtype == first.dtype and column.device == first.device for column in columns)
    if alike and all(type(column) in PLAIN for column in columns):
        flat = _together(columns, (-rows) % 16)
    else:
        flat = [_fresh(column, column.dtype, column.device) for column in columns]
    return [flat[0], flat[1], flat[2].view(-1, box_columns)]


def _together(columns: list[Tensor], gap: int) -> list[Tensor]:
    """Copies by one operation: on a GPU each is a launch. With ``gap`` elements between, each begins as aligned as an allocation does."""
    if gap:
        spare = torch.empty(gap, dtype=columns[0].dtype, device=columns[0].device)
        columns = [columns[0], spare, columns[1], spare, columns[2]]
    parts = torch.cat(columns).split([len(column) for column in columns])
    return list(parts[:: 2 if gap else 1])


def _fresh(source: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A plain tensor of the same numbers, whatever the type of the source."""
    copy = torch.empty(source.shape, dtype=dtype, device=device)
    copy.copy_(source)  # the answer of a subclass would be one too
    return copy
