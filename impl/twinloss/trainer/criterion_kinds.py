"""The classes of the reference's criteria that the twin stands for, and what it reads of each beside what all of them have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from twinloss.spec import LossSpec
from twinloss.task_specs import OrientedSpec, PoseSpec, SegmentationSpec
from twinloss.terms.keypoints import likelihood_weights

_HALVES = {"weight_bce": 0.5, "weight_dice": 0.5}
_BY_KEYPOINTS = "PoseTaskAlignedAssigner"
_LIKELIHOOD = {"size_average": True, "use_target_weight": True, "residual": True}

Read = Callable[[str, Tensor], tuple[float, ...]]
"""Takes the name of a tensor of a criterion and the tensor, and returns its values."""


def _same(_: Any, __: Read) -> None:
    """Nothing more to compare."""


def _nothing(_: Any, __: Read) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Kind:
    """A class of criteria.

    Attributes:
        name: of the class.
        spec: kind of the definition that it computes.
        made_of: classes of its parts by their attributes, of one release or another; ``None`` where a release's has no such part.
        gains: names of its further gains, in the definition's order, with the value of one that the model's arguments lack, or ``None``.
        targets: what else of a batch it reads, by key; of ``masks`` and ``sem_masks`` one an image rather than one a box.
        fields: further fields of the definition, read from a criterion.
        differs: what sets a criterion apart from the class, in words, beside its parts; ``None`` where nothing does.
    """

    name: str
    spec: type[LossSpec]
    made_of: Mapping[str, tuple[str | None, ...]]
    gains: Mapping[str, float | None] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    fields: Callable[[Any, Read], dict[str, Any]] = _nothing
    differs: Callable[[Any, Read], str | None] = _same


def flow_of(part: Any) -> Callable[[Tensor], Tensor] | None:
    """Log-density of a pose criterion's flow, of whichever it has when it is asked; ``None`` where it has none."""
    if getattr(part, "flow_model", None) is None:
        return None

    def log_density(points: Tensor) -> Tensor:
        found: Tensor = part.flow_model.log_prob(points)
        return found

    return log_density


def plain_bce(name: str, bce: Any, reduction: str) -> str | None:
    """What sets a part apart from binary cross-entropy with this reduction and no weights, in words."""
    if type(bce) is not torch.nn.BCEWithLogitsLoss:
        return f"its {name} is a {type(bce).__name__}, not a plain BCEWithLogitsLoss"
    settings = {"reduction": (bce.reduction, reduction), "weight": (bce.weight, None), "pos_weight": (bce.pos_weight, None)}
    for setting, (found, usual) in settings.items():
        if found is not usual and (usual is None or found != usual):
            return f"its {name} has {setting} = {found} instead of {usual}"
    return None


def _set_otherwise(name: str, part: Any, usual: Mapping[str, Any]) -> str | None:
    found = {setting: getattr(part, setting, None) for setting in usual}
    return next((f"its {name} has {key} = {found[key]} instead of {usual[key]}" for key in usual if found[key] != usual[key]), None)


def _segmentation(part: Any, _: Read) -> dict[str, Any]:
    semantic = getattr(part, "bcedice_loss", None) is not None
    return {"overlap_mask": bool(part.overlap), "mask_aware": type(part).__name__ == "SegmentLoss26", "semantic_term": semantic}


def _semantic_differs(part: Any, _: Read) -> str | None:
    if getattr(part, "bcedice_loss", None) is None:
        return None
    return _set_otherwise("bcedice_loss", part.bcedice_loss, _HALVES) or _set_otherwise("dice", part.bcedice_loss.dice, {"smooth": 1})


def _pose(part: Any, read: Read) -> dict[str, Any]:
    second = type(part).__name__ == "PoseLoss26"
    return {
        "keypoint_shape": tuple(map(int, part.kpt_shape)),
        "generation": 2 if second else 1,
        "sigmas": read("sigmas", part.keypoint_loss.sigmas),
        "flow": second and flow_of(part) is not None,
        "keypoint_aware": not second or type(part.assigner).__name__ == _BY_KEYPOINTS,
    }


def _keypoints_differ(part: Any, read: Read) -> str | None:
    shape = part.kpt_shape
    if not isinstance(shape, list):
        return f"its kpt_shape is the {type(shape).__name__} {shape}, with which the constants are others than with a list"
    sigmas = getattr(part.assigner, "sigmas", None)
    if sigmas is not None and read("assigner.sigmas", sigmas) != read("sigmas", part.keypoint_loss.sigmas):
        return "its assigner has other sigmas than its keypoint_loss"
    if flow_of(part) is not None:
        weights = read("target_weights", part.target_weights)
        if list(weights) != likelihood_weights((int(shape[0]), int(shape[1])), torch.device("cpu")).tolist():
            return f"its target_weights are {list(weights)}, not those of {shape}"
        if different := _set_otherwise("rle_loss", part.rle_loss, _LIKELIHOOD):
            return different
    return plain_bce("bce_pose", part.bce_pose, "mean")


_PLAIN: Mapping[str, tuple[str | None, ...]] = {"assigner": ("TaskAlignedAssigner",), "bbox_loss": ("BboxLoss",)}
_KEYPOINT_GAINS = {"pose": None, "kobj": None, "rle": 1.0}


def _masks(name: str, assigner: str) -> Kind:
    made_of = {**_PLAIN, "assigner": (assigner,), "bcedice_loss": ("BCEDiceLoss", None)}
    return Kind(name, SegmentationSpec, made_of, {}, ("masks", "sem_masks"), _segmentation, _semantic_differs)


def _keypoints(name: str, *assigners: str) -> Kind:
    made_of = {**_PLAIN, "assigner": assigners, "keypoint_loss": ("KeypointLoss",)}
    return Kind(name, PoseSpec, made_of, _KEYPOINT_GAINS, ("keypoints",), _pose, _keypoints_differ)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("v8DetectionLoss", LossSpec, _PLAIN),
        _masks("v8SegmentationLoss", "TaskAlignedAssigner"),
        _masks("SegmentLoss26", "SegTaskAlignedAssigner"),
        Kind(
            "v8OBBLoss",
            OrientedSpec,
            {"assigner": ("RotatedTaskAlignedAssigner",), "bbox_loss": ("RotatedBboxLoss",)},
            {"angle": 1.0},
        ),
        _keypoints("v8PoseLoss", "TaskAlignedAssigner"),
        _keypoints("PoseLoss26", _BY_KEYPOINTS, "TaskAlignedAssigner"),
    )
}
"""By the name of the class."""
