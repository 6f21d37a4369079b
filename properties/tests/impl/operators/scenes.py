"""Losses of every task with predictions and batches, for what torch traces: a name says which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from properties.tests.impl import oriented_inputs, pose_loops
from properties.tests.impl import test_segmentation_loss as segment
from twinloss import EndToEndLoss, LossSpec, OrientedSpec, PoseSpec, SegmentationSpec
from twinloss.loss import LOSSES

Loss = Callable[[Any, Any], tuple[Tensor, dict[str, Tensor]]]

SPECS: dict[str, LossSpec] = {
    "detect": LossSpec(num_classes=3),
    "detect, second cut, class weights": LossSpec(num_classes=3, reg_max=1, topk=7, topk2=1, class_weights=(0.5, 1.0, 3.0)),
    "segment": SegmentationSpec(num_classes=3),
    "segment, mask-aware, instance masks": SegmentationSpec(num_classes=3, reg_max=1, mask_aware=True, overlap_mask=False),
    "oriented": OrientedSpec(num_classes=3),
    "pose": PoseSpec(num_classes=2, keypoint_shape=(5, 3)),
    "pose, flow": PoseSpec(num_classes=2, reg_max=1, keypoint_shape=(5, 3), generation=2, flow=True),
}


class Answer(NamedTuple):
    """What came of a step: loss, logged items, and gradients of predictions and of a flow's parameters by name."""

    loss: Tensor
    items: dict[str, Tensor]
    gradients: dict[str, Tensor | None]


class Scene(NamedTuple):
    """A loss, and predictions and a batch of ``rows`` boxes for it."""

    loss: Any
    preds: dict[str, Any]
    batch: dict[str, Tensor]

    @property
    def flow(self) -> Any:
        """The loss's flow, or ``None``."""
        return getattr(getattr(self.loss, "one2many", self.loss), "flow", None)

    def answer(self, function: Loss | None = None, upstream: Tensor | None = None) -> Answer:
        """A step of the loss, or of another function with its arguments."""
        leaves = _leaves(self.preds)
        inputs = {**leaves, **(dict(self.flow.named_parameters()) if isinstance(self.flow, nn.Module) else {})}
        loss, items = (function or self.loss)(_with(self.preds, leaves), self.batch)
        weighted = (loss * (1 if upstream is None else upstream)).sum()
        found = torch.autograd.grad(weighted, tuple(inputs.values()), allow_unused=True)
        return Answer(loss.detach(), items, dict(zip(inputs, found, strict=True)))


def scene(name: str, rows: int = 6, dtype: torch.dtype = torch.float32, **options: Any) -> Scene:
    """A scene of :data:`SPECS`."""
    spec = SPECS[name]
    preds, batch = _INPUTS[spec.task](spec, rows)
    if isinstance(spec, PoseSpec) and spec.flow:
        options["flow"] = pose_loops.Flow()
    return Scene(LOSSES[spec.task](spec, **options), _as(preds, dtype), batch)


def end_to_end(name: str, rows: int = 6, **options: Any) -> Scene:
    """A scene with two prediction sets."""
    spec = SPECS[name]
    (many, batch), (one, _) = (_INPUTS[spec.task](spec, rows) for _ in range(2))
    if isinstance(spec, PoseSpec) and spec.flow:
        options["flow"] = pose_loops.Flow()
    one = {key: value * 0.9 if key in ("boxes", "scores") else value for key, value in one.items()}
    return Scene(EndToEndLoss(spec, epochs=5, **options), {"one2many": many, "one2one": one}, batch)


def _detect(spec: LossSpec, rows: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    preds, batch = _oriented(replace(SPECS["oriented"], reg_max=spec.reg_max), rows)
    return {key: value for key, value in preds.items() if key != "angle"}, {**batch, "bboxes": batch["bboxes"][:, :4].clone()}


def _oriented(spec: LossSpec, rows: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return oriented_inputs.predictions(spec), oriented_inputs.targets(rows)


def _segment(spec: LossSpec, rows: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    assert isinstance(spec, SegmentationSpec)
    return segment.predictions(spec), segment.targets(spec, rows)


def _pose(spec: LossSpec, rows: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    assert isinstance(spec, PoseSpec)
    given = pose_loops.batch(spec, seed=3, boxes=rows, noise=0.1)
    return {key: value.detach() if isinstance(value, Tensor) else value for key, value in given.preds.items()}, given.targets


_INPUTS = {"detect": _detect, "oriented": _oriented, "segment": _segment, "pose": _pose}


def _as(preds: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {key: _each(value, lambda tensor: tensor.to(dtype)) if key != "feats" else value for key, value in preds.items()}


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return tuple(map(change, value)) if isinstance(value, tuple) else change(value)


def _leaves(preds: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Copies of the predictions that ask for gradients, by their place."""
    found: dict[str, Tensor] = {}
    for key, value in preds.items():
        if isinstance(value, Mapping):
            found |= _leaves(value, f"{prefix}{key}.")
        elif key != "feats":
            for place, tensor in enumerate(value if isinstance(value, tuple) else (value,)):
                found[f"{prefix}{key}.{place}"] = tensor.detach().clone().requires_grad_()
    return found


def _with(preds: Mapping[str, Any], leaves: Mapping[str, Tensor], prefix: str = "") -> dict[str, Any]:
    """The predictions with these tensors in their places."""
    found: dict[str, Any] = {}
    for key, value in preds.items():
        if isinstance(value, Mapping):
            found[key] = _with(value, leaves, f"{prefix}{key}.")
        elif key == "feats":
            found[key] = value
        else:
            parts = [leaves[f"{prefix}{key}.{place}"] for place in range(len(value) if isinstance(value, tuple) else 1)]
            found[key] = tuple(parts) if isinstance(value, tuple) else parts[0]
    return found
