"""The DFL detection loss of luxonis-train. Its terms come detached: they are taken from its box loss, and from the total of one weight."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import conventions
import torch
from stand_ins import load, stand_in
from torch import Tensor, nn

ROOT = "luxonis_train"


class _Silent:
    """Takes the place of a logger."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


class _BaseLoss(nn.Module):
    """Takes the place of the base class, of which the loss reads attributes of its node."""

    def __init__(self, node: Any = None, **_: Any) -> None:
        super().__init__()
        self.__dict__["node"] = node

    n_classes = property(lambda self: self.node.n_classes)
    original_in_shape = property(lambda self: self.node.original_in_shape)


stand_in("loguru", logger=_Silent())
stand_in("luxonis_ml")
stand_in(
    "luxonis_ml.typing",
    all_not_none=lambda values: all(value is not None for value in values),
    any_not_none=lambda values: any(value is not None for value in values),
)
for _name in ("", ".assigners", ".attached_modules", ".attached_modules.losses"):
    stand_in(f"{ROOT}{_name}")
stand_in(f"{ROOT}.nodes", PrecisionBBoxHead=object)
stand_in(f"{ROOT}.tasks", Tasks=SimpleNamespace(BOUNDINGBOX="bbox"))
_boxes = load(f"{ROOT}.utils.boundingbox", f"{ROOT}/utils/boundingbox.py")
_functions = ("anchors_for_fpn_features", "bbox2dist", "bbox_iou", "dist2bbox")
stand_in(f"{ROOT}.utils", compute_pose_oks=None, **{name: getattr(_boxes, name) for name in _functions})
load(f"{ROOT}.assigners.utils", f"{ROOT}/assigners/utils.py")
_assigner = load(f"{ROOT}.assigners.tal_assigner", f"{ROOT}/assigners/tal_assigner.py")
stand_in(f"{ROOT}.assigners", TaskAlignedAssigner=_assigner.TaskAlignedAssigner)
stand_in(f"{ROOT}.attached_modules.losses.base_loss", BaseLoss=_BaseLoss)
_module = "attached_modules.losses.precision_dfl_detection_loss"
_loss = load(f"{ROOT}.{_module}", f"{ROOT}/{_module.replace('.', '/')}.py")


class Criterion:
    """The package's loss under the suite's conventions."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec

    def __call__(self, preds: Any, batch: Any) -> conventions.Answer:
        """Returns the loss and its items."""
        spec, kept = self.spec, list[Any]()
        node = _node(spec, conventions.image_size(preds, spec))
        weights = {"class_loss_weight": 1.0, "bbox_loss_weight": 0.0, "dfl_loss_weight": 0.0}
        loss = _loss.PrecisionDFLDetectionLoss(node=node, tal_topk=spec.topk, **weights)
        loss.assigner._alpha, loss.assigner._beta = spec.alpha, spec.beta  # noqa: SLF001 - it has no other place for them
        loss.bbox_loss.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        classification, _ = loss(conventions.level_maps(preds), self._targets(batch))
        nothing = preds["boxes"].sum() * 0.0
        box, distribution = kept[-1] if kept else (nothing, nothing)
        if kept:
            classification = classification - 0 * (box + distribution)
        terms = (box, classification, distribution)
        return conventions.answer(spec, preds, [gain * term for gain, term in zip(spec.gains, terms, strict=True)])

    @staticmethod
    def _targets(batch: Any) -> Tensor:
        """Returns rows of image, class, top-left corner and size, in shares of the image."""
        boxes = batch["bboxes"]
        rows: Tensor = conventions.rows(batch, torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], 1))
        return rows


def _node(spec: Any, size: tuple[int, int]) -> Any:
    """Returns what the package's loss reads of a head."""
    return SimpleNamespace(
        stride=torch.tensor(spec.strides),
        grid_cell_size=5.0,
        grid_cell_offset=0.5,
        n_classes=spec.num_classes,
        reg_max=spec.reg_max,
        no=spec.num_classes + 4 * spec.reg_max,
        dfl=True,
        original_in_shape=(3, *size),
    )


def make(spec: Any) -> Criterion:
    """Returns the criterion of a definition."""
    return Criterion(spec)


def _declines(spec: Any, inputs: Any, _: Any) -> str | None:
    reason: str | None = conventions.lacks(spec, distances=False) or conventions.too_few_for_boxes(spec, inputs)
    return reason


make.declines = _declines  # type: ignore[attr-defined]
