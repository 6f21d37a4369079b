"""The definitions of segmentation, oriented boxes and pose: detection's numbers and those that the task adds.

What a definition names in words is entered elsewhere: ``terms`` in :data:`twinloss.terms.registry.TERMS`, ``overlap`` in
:data:`twinloss.assignment.registry.OVERLAPS`, ``geometry`` in :data:`twinloss.geometry.registry.GEOMETRIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from twinloss.inputs.numbers import real, several, whole
from twinloss.spec import LossSpec, Term


@dataclass(frozen=True, kw_only=True)
class SegmentationSpec(LossSpec):
    """The definition of the instance-segmentation loss: its numbers and options (segmentation spec sections 1 and 2).

    Attributes:
        overlap_mask: whether ``masks`` are index maps, one per image, rather than instance masks, one per box.
        mask_aware: whether the assigner's overlap is half of the boxes' and half of the masks' (YOLO26), rather than the boxes' alone.
        semantic_term: whether there is a fifth entry, the semantic term.
        mask_grid: grid of the mask term: the "masks"', to which prototypes are resized, or the "prototypes"', to which masks are.
        crop: borders of the mask term's crops: "exact"; or, on the CPU and in an image that holds fewer than 50 anchors, "rounded" to whole
            pixels, or "wrapped", which counts those that are negative once rounded from the far side.

    The last three are as in the newest definition unless :meth:`for_release` asks for an older one. All others are :class:`LossSpec`'s. The
    mask term and the semantic term have the box term's gain.

    Raises:
        ValueError: a field is out of its range; the message names the field, its value and the remedy.
    """

    overlap_mask: bool = True
    mask_aware: bool = False
    semantic_term: bool = True
    mask_grid: Literal["masks", "prototypes"] = "masks"
    crop: Literal["exact", "rounded", "wrapped"] = "exact"

    task: ClassVar[str] = "segment"
    counts_weightless: ClassVar[bool] = True
    newest_switches: ClassVar[Mapping[str, Any]] = {
        **LossSpec.newest_switches,
        "semantic_term": True,
        "mask_grid": "masks",
        "crop": "exact",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("overlap_mask", "mask_aware", "semantic_term"):
            self._check_choice(field, (True, False))
            object.__setattr__(self, field, bool(getattr(self, field)))
        self._check_choice("mask_grid", ("masks", "prototypes"))
        self._check_choice("crop", ("exact", "rounded", "wrapped"))

    @property
    def overlap(self) -> str:
        """The assigner's overlap (segmentation spec section 2)."""
        return "ciou and masks" if self.mask_aware else "ciou"

    def _terms(self) -> tuple[Term, ...]:
        box, classification, distribution = super()._terms()
        found = box, Term("mask", "seg_loss", 0), classification, distribution
        return (*found, Term("semantic", "sem_loss", 0)) if self.semantic_term else found


@dataclass(frozen=True, kw_only=True)
class OrientedSpec(LossSpec):
    """The definition of the oriented-box loss: its numbers and options (oriented spec section 0).

    Attributes:
        gains: factors of the box, classification, distribution (or distance) and angle terms.
        angle_scale: λ, how fast a box's weight in the angle term falls with the logarithm of its sides' ratio; above 0.
        term_floor: f, what ProbIoU's variances are raised by in the box term, in squared grid units; it is 0 in the assignment.
        probiou_eps: ε_p, epsilon of the ProbIoU; above 0.
        angle_term: whether there is a fourth entry, the angle term.
        turned_targets: whether the target distances are those to the sides of the turned box, rather than of the same box unturned.

    The last two are as in the newest definition unless :meth:`for_release` asks for an older one. All others are :class:`LossSpec`'s.

    Raises:
        ValueError: a field is out of its range; the message names the field, its value and the remedy.
    """

    gains: tuple[float, ...] = (7.5, 0.5, 1.5, 1.0)
    angle_scale: float = 3.0
    term_floor: float = 0.01
    probiou_eps: float = 1e-7
    angle_term: bool = True
    turned_targets: bool = True

    task: ClassVar[str] = "oriented"
    geometry: ClassVar[str] = "oriented"
    gain_names: ClassVar[tuple[str, ...]] = (*LossSpec.gain_names, "angle")
    newest_switches: ClassVar[Mapping[str, Any]] = {**LossSpec.newest_switches, "angle_term": True, "turned_targets": True}

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("angle_term", "turned_targets"):
            self._check_choice(field, (True, False))
            object.__setattr__(self, field, bool(getattr(self, field)))
        for field in ("angle_scale", "probiou_eps"):
            if getattr(self, field) <= 0:
                raise ValueError(f"{self._name}.{field} is {getattr(self, field)}; it must be above 0")

    def _real_numbers(self) -> dict[str, Any]:
        own = {name: real(f"{self._name}.{name}", getattr(self, name), least=0) for name in ("angle_scale", "term_floor", "probiou_eps")}
        return super()._real_numbers() | own

    @property
    def overlap(self) -> str:
        """The assigner's overlap (oriented spec section 5.2)."""
        return "probiou"

    def _terms(self) -> tuple[Term, ...]:
        found = super()._terms()
        return (*found, Term("angle", "angle_loss", 3)) if self.angle_term else found

    @property
    def beyond_kernels(self) -> str | None:
        """Why compiled kernels do not compute this definition, or ``None``."""
        if self.angle_term and self.turned_targets:
            return super().beyond_kernels
        return "the kernels compute the angle term and turned targets, which this older definition has not"


@dataclass(frozen=True, kw_only=True)
class PoseSpec(LossSpec):
    """The definition of the pose loss: its numbers and options (pose spec section 0).

    Attributes:
        gains: factors of the box, classification, distribution (or distance), location, visibility and likelihood terms.
        keypoint_shape: n, keypoints of a box, and E, numbers of a predicted keypoint: 2 (x, y) or 3 (x, y, visibility logit).
        generation: 1 decodes from the cell's corner and assigns by boxes (YOLOv8 to YOLO12); 2 decodes from its centre and assigns by
            keypoints (YOLO26).
        sigmas: σ of each keypoint, n positive numbers; ``None`` for COCO's where ``keypoint_shape`` is (17, 3), and 1/n otherwise.
        flow: whether there is a likelihood term, which a model has a flow for; only in generation 2.
        keypoint_aware: whether generation 2 assigns by keypoints, as in the newest definition, or by boxes, as that of some releases did.

    All others are :class:`LossSpec`'s.

    Raises:
        ValueError: a field is out of its range; the message names the field, its value and the remedy.
    """

    gains: tuple[float, ...] = (7.5, 0.5, 1.5, 12.0, 1.0, 1.0)
    keypoint_shape: tuple[int, int] = (17, 3)
    generation: Literal[1, 2] = 1
    sigmas: tuple[float, ...] | None = None
    flow: bool = False
    keypoint_aware: bool = True

    task: ClassVar[str] = "pose"
    counts_weightless: ClassVar[bool] = True
    gain_names: ClassVar[tuple[str, ...]] = (*LossSpec.gain_names, "location", "visibility", "likelihood")
    newest_switches: ClassVar[Mapping[str, Any]] = {**LossSpec.newest_switches, "keypoint_aware": True}

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, known in {"generation": (1, 2), "flow": (True, False), "keypoint_aware": (True, False)}.items():
            self._check_choice(field, known)
        for field, kind in {"generation": int, "flow": bool, "keypoint_aware": bool}.items():
            object.__setattr__(self, field, kind(getattr(self, field)))
        if self.keypoint_shape[1:] not in ((2,), (3,)):
            raise ValueError(
                f"{self._name}.keypoint_shape is {self.keypoint_shape}; give the number of keypoints, and 2 (x, y) or 3 (x, y, visibility)"
            )
        if self.sigmas is not None and (len(self.sigmas) != self.keypoint_shape[0] or not min(self.sigmas) > 0):
            raise ValueError(
                f"{self._name}.sigmas is {self.sigmas}; give {self.keypoint_shape[0]} positive numbers, one per keypoint, or None"
            )
        if self.flow and self.generation == 1:
            raise ValueError(f"{self._name}.flow is True with generation 1, which has no likelihood term; use generation=2, or flow=False")

    def _whole_numbers(self) -> dict[str, Any]:
        name = f"{self._name}.keypoint_shape"
        return super()._whole_numbers() | {
            "keypoint_shape": tuple(whole(f"{name}: a number", n) for n in several(name, self.keypoint_shape))
        }

    def _real_numbers(self) -> dict[str, Any]:
        found, name = super()._real_numbers(), f"{self._name}.sigmas"
        if self.sigmas is not None:
            found["sigmas"] = tuple(real(f"{name}: a sigma", sigma) for sigma in several(name, self.sigmas))
        return found

    @property
    def overlap(self) -> str:
        """The assigner's overlap (pose spec section 4)."""
        return "keypoints" if self.generation == 2 and self.keypoint_aware else "ciou"

    def _terms(self) -> tuple[Term, ...]:
        box, classification, distribution = super()._terms()
        found = box, Term("pose", "pose_loss", 3), Term("kobj", "kobj_loss", 4), classification, distribution
        return (*found, Term("likelihood", "rle_loss", 5)) if self.flow else found


SPECS: dict[str, type[LossSpec]] = {kind.task: kind for kind in (LossSpec, SegmentationSpec, OrientedSpec, PoseSpec)}
"""Kinds of definitions by their task."""
