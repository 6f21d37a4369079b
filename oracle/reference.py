"""Ultralytics behind the contract of contenders, as a black box: the only module of the oracle that imports it.

Nothing of it is looked into. Its stages are called through their public names, and what passes between its stages in a real call is
recorded at the one seam where a part can be exchanged from outside: the assigner.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from oracle.case import Inputs, Setting
from oracle.contender import Batch, LossAndItems, Metrics, Preds, Targets
from twinloss import Assignment, LossSpec

# On import the package greets, writes its settings where YOLO_CONFIG_DIR points to, silences warnings, and sets variables such as
# OMP_NUM_THREADS=1, which would slow down every process started from here. Of all this only the folder may last.
_settings = tempfile.TemporaryDirectory(prefix="reference-settings-")
os.environ.setdefault("YOLO_CONFIG_DIR", _settings.name)
_environment = dict(os.environ)
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
    import ultralytics
    from ultralytics.utils.loss import v8DetectionLoss
    from ultralytics.utils.tal import make_anchors
for _name in set(os.environ) - set(_environment):
    del os.environ[_name]
os.environ.update(_environment)

VERSION: str = ultralytics.__version__

__all__ = ["VERSION", "ReferenceCriterion", "ReferenceDeclines", "declines", "double_precision"]


class ReferenceDeclines(Exception):  # noqa: N818 - it is an answer, "not compared, because", rather than an error
    """The reference cannot compute this; its one argument says why."""


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Make float64 the default dtype, in which the reference then computes from end to end (spec section 8a)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class StandInModel(nn.Module):
    """What the reference reads of a model, and no more: a parameter, the gains, the head's numbers, class weights."""

    def __init__(self, spec: LossSpec, device: torch.device) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(1, device=device))
        box, cls, dfl = spec.gains
        self.args = SimpleNamespace(box=box, cls=cls, dfl=dfl)
        strides = torch.tensor([float(s) for s in spec.strides], device=device)
        self.model = [SimpleNamespace(stride=strides, nc=spec.num_classes, reg_max=spec.reg_max)]
        if spec.class_weights is not None:
            self.class_weights = torch.tensor(spec.class_weights, device=device)


@dataclass(frozen=True)
class Recording:
    """What the assigner was given in a real call, and what it answered: shapes as in the reference, M boxes an image with padding.

    Attributes:
        scores: (B, A, C) probabilities.
        boxes: (B, A, 4) predicted corners in pixels.
        anchors: (A, 2) centres in pixels.
        labels, corners, valid: (B, M, 1), (B, M, 4), (B, M, 1).
        target_scores, foreground, index: (B, A, C), (B, A), (B, A).
    """

    scores: Tensor
    boxes: Tensor
    anchors: Tensor
    labels: Tensor
    corners: Tensor
    valid: Tensor
    target_scores: Tensor
    foreground: Tensor
    index: Tensor

    def arguments(self) -> tuple[Tensor, ...]:
        """What the assigner was given, in its order."""
        return self.scores, self.boxes, self.anchors, self.labels, self.corners, self.valid


class RecordingAssigner:
    """The reference's assigner with a memory of its last call."""

    def __init__(self, assigner: Any) -> None:
        self.assigner = assigner
        self.last: Recording | None = None

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        answer = cast(tuple[Tensor, ...], self.assigner(*given))
        self.last = Recording(*(t.detach() for t in (*given, *answer[2:])))
        return answer


@dataclass(frozen=True)
class FixedAssigner:
    """Answers a given assignment in place of the reference's assigner; ``slot`` (H,) counts the boxes of each entry's own image."""

    assignment: Assignment
    slot: Tensor

    def __call__(
        self, scores: Tensor, boxes: Tensor, anchors: Tensor, labels: Tensor, corners: Tensor, valid: Tensor
    ) -> tuple[Tensor, ...]:
        image, anchor, weight = self.assignment.image, self.assignment.anchor, self.assignment.weight
        index = torch.zeros(boxes.shape[:2], dtype=torch.int64, device=boxes.device)
        foreground = torch.zeros_like(index, dtype=torch.bool)
        target_boxes = corners.new_zeros(boxes.shape)
        target_scores = corners.new_zeros(scores.shape)
        target_labels = torch.zeros_like(index)
        index[image, anchor] = self.slot
        foreground[image, anchor] = True
        target_boxes[image, anchor] = corners[image, self.slot]
        target_labels[image, anchor] = labels[image, self.slot, 0].long()
        target_scores[image, anchor, target_labels[image, anchor]] = weight.to(corners.dtype)
        return target_labels, target_boxes, target_scores, foreground, index


class ReferenceCriterion:
    """The reference's detection loss, and its stages.

    With float64 logits it computes in float64 from end to end, whatever the default dtype. In any other dtype it computes as it does in
    a trainer: most of the arithmetic in the logits' dtype, what ground truth has entered in float32 (spec section 8a).

    Args:
        spec: the numbers of the definition.

    Raises:
        ReferenceDeclines: the definition departs from a number that the reference has no opening for.
    """

    def __init__(self, spec: LossSpec) -> None:
        self.spec = spec
        self.recorder: RecordingAssigner | None = None
        if reason := declines_spec(spec):
            raise ReferenceDeclines(reason)

    def __call__(self, preds: Preds, batch: Batch) -> LossAndItems:
        """Loss (3,), times the number of images, and the logged items, in the reference's own dtypes."""
        with precision_of(preds):
            criterion = self._criterion(preds)
            self.recorder = criterion.assigner = RecordingAssigner(criterion.assigner)
            return cast(LossAndItems, criterion(preds, batch))

    def _criterion(self, preds: Preds) -> Any:
        criterion = v8DetectionLoss(StandInModel(self.spec, preds["boxes"].device), tal_topk=self.spec.topk, tal_topk2=self.spec.topk2)
        criterion.assigner.alpha, criterion.assigner.beta = self.spec.alpha, self.spec.beta
        criterion.assigner.eps = self.spec.assign_eps
        return criterion

    def last_assignment(self, batch: Batch) -> Assignment:
        """The assignment of the last whole call, which was made with this batch: anchors whose target score is positive."""
        recording = self._recording()
        weight = recording.target_scores.amax(2)
        image, anchor = ((weight > 0) & recording.foreground).nonzero(as_tuple=True)
        row = rows_by_slot(batch, *recording.valid.shape[:2])[image, recording.index[image, anchor].long()]
        return Assignment(image=image, anchor=anchor, box=row, weight=weight[image, anchor])

    def _recording(self) -> Recording:
        if self.recorder is None or self.recorder.last is None:
            raise RuntimeError("there is no assignment yet: call the criterion first")
        return self.recorder.last

    def assign(self, preds: Preds, batch: Batch) -> Assignment:
        """The assignment that a whole call makes."""
        with torch.no_grad():
            self(preds, batch)
        return self.last_assignment(batch)

    def loss_given(self, preds: Preds, batch: Batch, assignment: Assignment) -> LossAndItems:
        """Loss and items on a given assignment, through the reference's own decoding and terms."""
        images = batch["batch_idx"].reshape(-1).long()
        # Arrivals of the same image before each row: its place in the padded layout.
        slot = (images[:, None] == images).tril(-1).sum(1)
        device = preds["boxes"].device
        moved = Assignment(*(getattr(assignment, f.name).detach().to(device) for f in fields(assignment)))
        with precision_of(preds):
            criterion = self._criterion(preds)
            criterion.assigner = FixedAssigner(moved, slot.to(device)[moved.box])
            return cast(LossAndItems, criterion(preds, batch))

    def anchors(self, preds: Preds) -> tuple[Tensor, Tensor]:
        """Centres (A, 2) in grid units and strides (A,) in pixels."""
        with precision_of(preds):
            centres, strides = make_anchors(preds["feats"], torch.tensor([float(s) for s in self.spec.strides]), 0.5)
        return cast(Tensor, centres), cast(Tensor, strides)[:, 0]

    def targets(self, preds: Preds, batch: Batch) -> Targets:
        """Valid ground truth as the assigner is given it in a whole call."""
        self.assign(preds, batch)
        recording = self._recording()
        image, slot, _ = recording.valid.nonzero(as_tuple=True)
        row = rows_by_slot(batch, *recording.valid.shape[:2])[image, slot]
        return Targets(row, image, recording.labels[image, slot, 0].long(), recording.corners[image, slot])

    @torch.no_grad()
    def decode(self, preds: Preds) -> Tensor:
        """Predicted corners (B, A, 4) in grid units."""
        with precision_of(preds):
            centres, _ = self.anchors(preds)
            return cast(Tensor, self._criterion(preds).bbox_decode(centres, preds["boxes"].transpose(1, 2).contiguous()))

    @torch.no_grad()
    def metrics(self, preds: Preds, batch: Batch) -> Metrics:
        """Candidate pairs of valid boxes, from the assigner's own steps on what a whole call gives it."""
        self.assign(preds, batch)
        assert self.recorder is not None
        assigner, recording = self.recorder.assigner, self._recording()
        with precision_of(preds):
            inside = assigner.select_candidates_in_gts(recording.anchors, recording.corners, recording.valid)
            mask = inside.bool() & recording.valid.bool()
            metric, overlap = assigner.get_box_metrics(recording.scores, recording.boxes, recording.labels, recording.corners, mask)
        image, slot, anchor = mask.nonzero(as_tuple=True)
        row = rows_by_slot(batch, *recording.valid.shape[:2])[image, slot]
        return Metrics(row, anchor, overlap[image, slot, anchor], metric[image, slot, anchor])


def precision_of(preds: Preds) -> contextlib.AbstractContextManager[None]:
    """The context in which the reference computes in float64 throughout when its logits are float64."""
    return double_precision() if preds["boxes"].dtype == torch.float64 else contextlib.nullcontext()


def rows_by_slot(batch: Batch, images: int, slots: int) -> Tensor:
    """Row of the batch (B, M) at each place of the padded layout, where an image's rows stand in order of arrival; -1 is padding."""
    rows = torch.full((images, slots), -1, dtype=torch.int64)
    index = batch["batch_idx"].reshape(-1).long().cpu()
    for image in range(images):
        arrived = (index == image).nonzero().reshape(-1)
        rows[image, : len(arrived)] = arrived
    return rows.to(batch["batch_idx"].device)


def declines_spec(spec: LossSpec) -> str | None:
    """Why the reference cannot be told this definition, or ``None``."""
    standard = LossSpec(num_classes=1)
    for field in ("ciou_eps", "clamp_margin"):
        if getattr(spec, field) != getattr(standard, field):
            return f"the reference has no opening for {field} = {getattr(spec, field)}"
    return None


def declines(spec: LossSpec, inputs: Inputs, setting: Setting) -> str | None:
    """Why the reference cannot compute this batch in this setting, or ``None`` when it can: to be reported as "not compared"."""
    if reason := declines_spec(spec):
        return reason
    anchors, index = inputs.preds["boxes"].shape[2], inputs.batch["batch_idx"].reshape(-1)
    if setting.autocast is not None and setting.device == "cpu" and setting.dtype == "float16":
        return "the reference raises on float16 logits under autocast on the CPU"
    if len(index) and anchors < spec.topk:
        return f"the reference raises when a batch has boxes and fewer anchors ({anchors}) than topk ({spec.topk})"
    if bool((index.diff() < 0).any()):
        return "the reference needs batch_idx sorted"
    return None
