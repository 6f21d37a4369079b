"""Ultralytics' detection loss as a contender, called as a black box.

Its stages are called through their public names. The values between its stages are recorded at its assigner, the one part that can be
replaced from outside.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, cast

import torch
from torch import Tensor

from oracle.cases.case import Inputs, Setting
from oracle.contract.contender import Batch, Criterion, LossAndItems, Metrics, Preds, Targets
from oracle.contract.run import double_precision
from oracle.reference.stand_ins import FixedAssigner, Recording, RecordingAssigner, StandInModel, rows_by_slot, slot_by_row
from twinloss import Assignment, LossSpec

# On import the package prints, writes its settings to YOLO_CONFIG_DIR, silences warnings, and sets variables such as OMP_NUM_THREADS=1,
# which would slow down every process started from here. All of this is undone, except for the folder of settings.
_settings = tempfile.TemporaryDirectory(prefix="reference-settings-")
os.environ.setdefault("YOLO_CONFIG_DIR", _settings.name)
_environment = dict(os.environ)
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
    import ultralytics
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils.loss import v8DetectionLoss
    from ultralytics.utils.tal import make_anchors
for _name in set(os.environ) - set(_environment):
    del os.environ[_name]
os.environ.update(_environment)

VERSION: str = ultralytics.__version__

_FIXED = {"oriented": ("angle_scale", "term_floor", "probiou_eps")}  # Numbers of a task for which the reference has no parameter.

__all__ = ["VERSION", "ReferenceCriterion", "ReferenceDeclines", "declines", "detection_model", "installed_criterion"]


class ReferenceDeclines(Exception):  # noqa: N818 - a reason for "not compared", not an error
    """The reference cannot compute this; the argument is the reason."""


class ReferenceCriterion:
    """The reference's detection loss, and its stages.

    With float64 logits it computes in float64 throughout, with any default dtype. In other dtypes it computes as in a trainer: mostly in
    the logits' dtype, and in float32 where ground truth takes part (spec section 8a).

    Args:
        spec: the numbers of the definition.

    Raises:
        ReferenceDeclines: the spec changes a number that the reference has no parameter for.

    Attributes:
        counts_weightless: whether held anchors of weight 0 count in a term of the loss, so that they are part of the assignment.
    """

    counts_weightless = False

    def __init__(self, spec: LossSpec) -> None:
        self.spec = spec
        self.recorder: RecordingAssigner | None = None
        self._made: dict[tuple[torch.dtype, torch.device], Any] = {}
        if reason := declines_spec(spec):
            raise ReferenceDeclines(reason)

    def __call__(self, preds: Preds, batch: Batch) -> LossAndItems:
        """Returns loss (3,), multiplied by the number of images, and the logged items, in the reference's dtypes."""
        with precision_context(preds):
            criterion = self._criterion(preds)
            return cast(LossAndItems, criterion(preds, batch))

    def _criterion(self, preds: Preds) -> Any:
        """Returns the reference's object, created once per default dtype and device."""
        key = (torch.get_default_dtype(), preds["boxes"].device)
        if key not in self._made:
            criterion = self._made[key] = self._make(StandInModel(self.spec, key[1]))
            criterion.assigner.alpha, criterion.assigner.beta = self.spec.alpha, self.spec.beta
            criterion.assigner = RecordingAssigner(criterion.assigner)
        self.recorder = self._made[key].assigner
        return self._made[key]

    def installed(self, device: str) -> Criterion:
        """Returns a new object of the reference as a trainer creates it, for measurements: nothing of it is recorded."""
        criterion = self._make(StandInModel(self.spec, torch.device(device)))
        criterion.assigner.alpha, criterion.assigner.beta, criterion.assigner.eps = self.spec.alpha, self.spec.beta, self.spec.assign_eps
        return cast(Criterion, criterion)

    def _make(self, model: StandInModel) -> Any:
        """Returns a new object of the reference."""
        return v8DetectionLoss(model, tal_topk=self.spec.topk, tal_topk2=self.spec.topk2)

    def _kept(self, batch: Batch) -> Tensor:
        """Returns whether each row of the batch (N,) takes part in the padded layout."""
        return torch.ones_like(batch["batch_idx"].reshape(-1), dtype=torch.bool)

    def _of_overlap(self, options: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns those of the assigner's arguments by name on which overlaps depend."""
        return options

    def last_assignment(self, batch: Batch) -> Assignment:
        """Returns the assignment of the last complete call, which got this batch: the anchors that count in the loss."""
        recording = self._recording()
        weight = recording.target_scores.amax(2)
        counting = recording.foreground.bool() if self.counts_weightless else (weight > 0) & recording.foreground
        image, anchor = counting.nonzero(as_tuple=True)
        row = rows_by_slot(batch, self._kept(batch), *recording.valid.shape[:2])[image, recording.index[image, anchor].long()]
        return Assignment(image=image, anchor=anchor, box=row, weight=weight[image, anchor])

    def _recording(self) -> Recording:
        if self.recorder is None or self.recorder.last is None:
            raise RuntimeError("no call is recorded yet: call the criterion first")
        return self.recorder.last

    def assign(self, preds: Preds, batch: Batch) -> Assignment:
        """Returns the assignment of a complete call."""
        with torch.no_grad():
            self(preds, batch)
        return self.last_assignment(batch)

    def loss_given(self, preds: Preds, batch: Batch, assignment: Assignment) -> LossAndItems:
        """Returns loss and items on a given assignment, computed with the reference's decoding and terms."""
        device = preds["boxes"].device
        moved = Assignment(*(getattr(assignment, f.name).detach().to(device) for f in fields(assignment)))
        with precision_context(preds):
            criterion = self._criterion(preds)
            own, criterion.assigner = criterion.assigner, FixedAssigner(moved, slot_by_row(batch, self._kept(batch)).to(device)[moved.box])
            try:
                return cast(LossAndItems, criterion(preds, batch))
            finally:
                criterion.assigner = own

    def anchors(self, preds: Preds) -> tuple[Tensor, Tensor]:
        """Centres (A, 2) in grid units and strides (A,) in pixels."""
        with precision_context(preds):
            centres, strides = make_anchors(preds["feats"], torch.tensor([float(s) for s in self.spec.strides]), 0.5)
        return cast(Tensor, centres), cast(Tensor, strides)[:, 0]

    def targets(self, preds: Preds, batch: Batch) -> Targets:
        """Returns valid ground truth as the assigner gets it in a complete call."""
        self.assign(preds, batch)
        recording = self._recording()
        image, slot, _ = recording.valid.nonzero(as_tuple=True)
        row = rows_by_slot(batch, self._kept(batch), *recording.valid.shape[:2])[image, slot]
        return Targets(row, image, recording.labels[image, slot, 0].long(), recording.corners[image, slot])

    def dtypes(self, preds: Preds, batch: Batch) -> dict[str, torch.dtype]:
        """Returns the dtype of each stage's result in a complete call."""
        with torch.no_grad():
            loss, _ = self(preds, batch)
        seen = self._recording()
        stages = {
            "anchors": seen.anchors,
            "decode": self.decode(preds),
            "boxes": seen.boxes,
            "probability": seen.scores,
            "targets": seen.corners,
            "weight": seen.target_scores,
            "loss": loss,
        }
        return {name: tensor.dtype for name, tensor in stages.items()}

    @torch.no_grad()
    def decode(self, preds: Preds) -> Tensor:
        """Returns predicted corners (B, A, 4) in grid units."""
        with precision_context(preds):
            centres, _ = self.anchors(preds)
            return cast(Tensor, self._criterion(preds).bbox_decode(centres, preds["boxes"].transpose(1, 2).contiguous()))

    @torch.no_grad()
    def metrics(self, preds: Preds, batch: Batch) -> Metrics:
        """Returns the candidate pairs of valid boxes, from the assigner's methods on its inputs in a complete call."""
        self.assign(preds, batch)
        assert self.recorder is not None
        assigner, recording = self.recorder.assigner, self._recording()
        with precision_context(preds):
            inside = assigner.select_candidates_in_gts(recording.anchors, recording.corners, recording.valid)
            mask = inside.bool() & recording.valid.bool()
            inputs = (recording.scores, recording.boxes, recording.labels, recording.corners, mask)
            metric, overlap = assigner.get_box_metrics(*inputs, **self._of_overlap(recording.options))
        image, slot, anchor = mask.nonzero(as_tuple=True)
        row = rows_by_slot(batch, self._kept(batch), *recording.valid.shape[:2])[image, slot]
        return Metrics(row, anchor, overlap[image, slot, anchor], metric[image, slot, anchor])


@contextlib.contextmanager
def precision_context(preds: Preds) -> Iterator[None]:
    """In this context the reference computes in float64 throughout if its logits are float64.

    Its ``Tensor.float`` converts to float64 there, without which it computes masks in float32 (segmentation spec section 8a).
    """
    if preds["boxes"].dtype != torch.float64:
        yield
        return
    narrow = torch.Tensor.float
    with double_precision():
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
        try:
            yield
        finally:
            torch.Tensor.float = narrow  # type: ignore[method-assign]


def declines_spec(spec: LossSpec) -> str | None:
    """Returns the reason why the reference cannot compute this definition, or ``None``."""
    standard = type(spec)(num_classes=1)
    for field in ("assign_eps", "ciou_eps", "clamp_margin", *_FIXED.get(getattr(spec, "task", "detect"), ())):
        if getattr(spec, field) != getattr(standard, field):
            return f"the reference has no parameter for {field} = {getattr(spec, field)}"
    if not spec.newest:
        return "this is the definition of an older release than the installed one; compare with that release by --reference RELEASE"
    return None


def declines(spec: LossSpec, inputs: Inputs, setting: Setting) -> str | None:
    """Returns the reason why the reference cannot compute this batch in this setting, for "not compared", or ``None``."""
    return declines_spec(spec) or declines_inputs(spec, inputs, setting)


def declines_inputs(spec: LossSpec, inputs: Inputs, setting: Setting) -> str | None:
    """Returns the reason why any release of the reference cannot compute this batch in this setting, or ``None``."""
    anchors, batch = inputs.preds["boxes"].shape[2], inputs.batch
    most = max(spec.topk, spec.topk2 or spec.topk)
    expected = torch.float64 if setting.dtype == "float64" else torch.float32
    halves = {"float16", "bfloat16"} & {setting.dtype, setting.autocast}
    if setting.autocast is not None and len(halves) > 1:
        return f"the reference raises on {setting.dtype} logits under autocast to {setting.autocast}"
    if len(batch["bboxes"]) and anchors < most:
        return f"the reference raises when a batch has boxes and fewer anchors ({anchors}) than topk or topk2 ({most})"
    if batch["bboxes"].dtype != expected:
        return f"the reference raises on {batch['bboxes'].dtype} boxes where it expects {expected}"
    if bool((batch["batch_idx"].reshape(-1).diff() < 0).any()):
        return "the reference needs batch_idx sorted"
    return None


def installed_criterion(spec: LossSpec, device: str = "cpu") -> Criterion:
    """Returns the reference's own detection criterion as a trainer creates it, for measurements."""
    return ReferenceCriterion(spec).installed(device)


def detection_model(name: str, num_classes: int) -> torch.nn.Module:
    """Returns a new model of the reference, such as ``yolov8n.yaml``, in training mode; its output is a criterion's ``preds``."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model = DetectionModel(name, nc=num_classes, verbose=False)
    return cast(torch.nn.Module, model.train())
