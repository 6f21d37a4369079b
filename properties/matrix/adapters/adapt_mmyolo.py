"""The loss of MMYOLO's YOLOv8 head: its files and those of MMDetection that it uses, with stand-ins for the frameworks beneath."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import conventions
import torch
from stand_ins import load
from torch import Tensor

FRAMEWORKS = ("mmcv", "mmengine", "mmdet", "mmyolo")
REGISTRIES = ("MODELS", "TASK_UTILS")


class _Registry:
    """Takes the place of a registry of classes, and registers none."""

    def register_module(self, *names: Any, **_: Any) -> Any:
        """Returns a class decorator, or the class where it is used without arguments."""
        return names[0] if names and isinstance(names[0], type) else lambda kind: kind


class _Framework(ModuleType):
    """A module whose every attribute exists: registries by their names, else an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value: Any = _Registry() if name in REGISTRIES else type(name, (torch.nn.Module,), {})
        setattr(self, name, value)
        return value


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module of the frameworks as a :class:`_Framework`."""

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> Any:
        """Returns a specification for modules of the frameworks."""
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in FRAMEWORKS else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Returns the stand-in."""
        module = _Framework(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: ModuleType) -> None:
        """A stand-in has no code."""


sys.meta_path.insert(0, _Finder())  # before the installed packages, whose own modules import the frameworks


def _real(name: str, *exported: str, to: str = "") -> Any:
    """Loads a module from its installed file, and exports some of its names to a package."""
    parent, _, leaf = name.rpartition(".")
    importlib.import_module(parent)
    module = load(name, f"{name.replace('.', '/')}.py")
    setattr(sys.modules[parent], leaf, module)
    for one in exported:
        setattr(importlib.import_module(to or parent), one, getattr(module, one))
    return module


importlib.import_module("mmengine.dist").get_dist_info = lambda: (0, 1)  # type: ignore[attr-defined]
_real("mmdet.models.losses.utils")
_real("mmdet.models.losses.accuracy")
_distribution = _real("mmdet.models.losses.gfocal_loss")
_classification = _real("mmdet.models.losses.cross_entropy_loss")
_structures: Any = importlib.import_module("mmdet.structures.bbox")
_structures.BaseBoxes, _structures.HorizontalBoxes = type("BaseBoxes", (), {}), type("HorizontalBoxes", (), {})
_real("mmdet.structures.bbox.transforms", "bbox2distance", "distance2bbox", "get_box_tensor")
_coders = "models.task_modules.coders"
_real(f"mmdet.{_coders}.base_bbox_coder")
_real(f"mmdet.{_coders}.distance_point_bbox_coder", "DistancePointBBoxCoder")
_points = _real("mmdet.models.task_modules.prior_generators.point_generator")
_overlap = _real("mmyolo.models.losses.iou_loss", "bbox_overlaps")
_real("mmyolo.models.utils.misc", "gt_instances_preprocess", "make_divisible")
_real("mmyolo.models.task_modules.assigners.utils")
_assigner = _real("mmyolo.models.task_modules.assigners.batch_task_aligned_assigner")
_coder = _real(f"mmyolo.{_coders}.distance_point_bbox_coder")
_head = _real("mmyolo.models.dense_heads.yolov8_head")


class Criterion:
    """The package's loss under the suite's conventions."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec
        box, classification, distribution = spec.gains
        self.bins = torch.arange(spec.reg_max, dtype=torch.float)
        self.head = SimpleNamespace(
            featmap_sizes_train=None,
            prior_generator=_points.MlvlPointGenerator(list(spec.strides), offset=0.5),
            num_classes=spec.num_classes,
            head_module=SimpleNamespace(reg_max=spec.reg_max),
            bbox_coder=_coder.DistancePointBBoxCoder(),
            assigner=_assigner.BatchTaskAlignedAssigner(spec.num_classes, spec.topk, spec.alpha, spec.beta, eps=1e-9, use_ciou=True),
            loss_cls=_classification.CrossEntropyLoss(use_sigmoid=True, reduction="none", loss_weight=classification),
            loss_bbox=_overlap.IoULoss(iou_mode="ciou", bbox_format="xyxy", reduction="sum", loss_weight=box, return_iou=False),
            loss_dfl=_distribution.DistributionFocalLoss(reduction="mean", loss_weight=distribution / 4),
        )

    def __call__(self, preds: Any, batch: Any) -> conventions.Answer:
        """Returns the loss and its items."""
        images = len(preds["boxes"])
        boxes = conventions.corners({"bboxes": batch["bboxes"] * batch["bboxes"].new_tensor(conventions.pixels(preds, self.spec))})
        found = _head.YOLOv8Head.loss_by_feat(self.head, *self._outputs(preds), conventions.rows(batch, boxes), [{}] * images)
        # Its terms are multiplied by the number of images, as those of the suite's loss are; the items are not.
        terms = [found[name].reshape(()) / images for name in ("loss_bbox", "loss_cls", "loss_dfl")]
        return conventions.answer(self.spec, preds, terms)

    def _outputs(self, preds: Any) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Returns scores, distances and logits of the distances by level, as the head in training gives them."""
        scores, distances, logits = [], [], []
        for level in conventions.level_maps(preds):
            images, _, height, width = level.shape
            sides = level[:, : 4 * self.spec.reg_max].reshape(images, 4, self.spec.reg_max, height * width).permute(0, 3, 1, 2)
            mean = sides.softmax(3).matmul(self.bins.to(sides.dtype).view(-1, 1)).squeeze(-1)
            logits.append(sides)
            scores.append(level[:, 4 * self.spec.reg_max :])
            distances.append(mean.transpose(1, 2).reshape(images, -1, height, width))
        return scores, distances, logits


def make(spec: Any) -> Criterion:
    """Returns the criterion of a definition."""
    return Criterion(spec)


def _declines(spec: Any, inputs: Any, _: Any) -> str | None:
    reason: str | None = conventions.lacks(spec, distances=False) or conventions.too_few_for_boxes(spec, inputs)
    return reason


make.declines = _declines  # type: ignore[attr-defined]
