"""The further predictions and targets of each task, admitted as :mod:`twinloss.inputs` admits detection's.

A task's function takes what the call was given, checks the rest of it (section 10 of the task's specification) and returns it by key:
predictions where they lie, targets as copies on the logits' device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.backends.saved_tensors import in_memory
from twinloss.input_checks import FLOATS, INTEGERS, check_present, check_readable
from twinloss.spec import LossSpec


class Given(NamedTuple):
    """What a call was given, as far as it is checked.

    Attributes:
        preds: predictions in the current layout; ``boxes`` and ``scores`` are checked.
        batch: targets.
        targets: copies of ``batch_idx`` (N,), ``cls`` (N,) and ``bboxes`` (N, columns), where they came, checked.
        boxes: (B, 4R, A) logits.
        spec: the definition.
        pyramid: the grids.
        validate: whether values are read; ``None`` where they are on the host.
    """

    preds: Mapping[str, Any]
    batch: Mapping[str, Any]
    targets: Mapping[str, Tensor]
    boxes: Tensor
    spec: LossSpec
    pyramid: Pyramid
    validate: bool | None

    @property
    def images(self) -> int:
        """B."""
        return len(self.boxes)

    @property
    def rows(self) -> int:
        """N."""
        return len(self.targets["batch_idx"])

    def reads(self, tensor: Tensor) -> bool:
        """Whether the values of a target are checked."""
        return bool(self.validate) or (self.validate is None and tensor.device.type == "cpu")

    def logits(self, key: str, channels: int) -> Tensor:
        """A prediction (B, channels, A) in the dtype of the others.

        Raises:
            ValueError: it is missing, or has another shape, dtype or device; the message names both.
        """
        expected = (self.images, channels, self.pyramid.num_anchors)
        check_present("preds", self.preds, (key,))
        check_like(f"preds[{key!r}]", self.preds[key], self.boxes)
        if tuple(self.preds[key].shape) != expected:
            raise ValueError(f"preds[{key!r}] has shape {tuple(self.preds[key].shape)}; expected {expected}")
        return in_memory(self.preds[key])

    def copied(self, target: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A plain copy of a target, in a dtype of its own or another, that nobody else has, on the logits' device."""
        copy = torch.empty(target.shape, dtype=dtype or target.dtype, device=target.device)
        return copy.copy_(target.detach()).to(self.boxes.device, non_blocking=True)


def check_like(name: str, logits: Any, boxes: Tensor) -> None:
    """A prediction of the dtype and on the device of the box logits.

    Raises:
        TypeError: it is no tensor.
        ValueError: it has another dtype or device; the message names both.
    """
    check_readable(name, logits)
    for what in ("dtype", "device"):
        ours, theirs = getattr(boxes, what), getattr(logits, what)
        if ours != theirs:
            raise ValueError(f"preds['boxes'] has {what} {ours} and {name} {theirs}; give both the same")


def check_real(key: str, target: Any) -> None:
    """A target that is a dense tensor of real numbers.

    Raises:
        TypeError: it is no tensor.
        ValueError: it is not dense, or of another dtype.
    """
    check_readable(f"batch[{key!r}]", target)
    if target.dtype not in (*FLOATS, *INTEGERS, torch.bool):
        raise ValueError(f"batch[{key!r}] has dtype {target.dtype}; targets are float16 to float64, or int8 to int64 and uint8")


def oriented(given: Given) -> dict[str, Tensor]:
    """The predicted angles (B, 1, A).

    Raises:
        ValueError: they are missing or have another shape, dtype or device; or the boxes of an empty batch have other columns; or, with
            ``validate=True``, an angle of the ground truth is more than a turn.
    """
    boxes, angle = given.batch["bboxes"], given.targets["bboxes"][:, 4]
    if boxes.shape[1:] not in ((), (5,)):
        raise ValueError(f"batch['bboxes'] has shape {tuple(boxes.shape)}; expected (N, 5): centre x, centre y, width, height, angle")
    if given.validate and (turned := (angle.abs() > 2 * math.pi).nonzero()).numel():
        row = int(turned[0])
        raise ValueError(
            f"batch['bboxes'] row {row} has the angle {angle[row].item()}, more than a turn; angles are in radians: is it in degrees?"
        )
    return {"angle": given.logits("angle", 1)}


FURTHER_INPUTS: dict[str, Callable[[Given], dict[str, Tensor]]] = {"detect": lambda _: {}, "oriented": oriented}
"""By ``spec.task``."""

FURTHER_IN_OLD_LAYOUT: dict[str, tuple[str, ...]] = {
    "detect": (),
    "segment": ("mask_coefficient", "proto"),
    "oriented": ("angle",),
    "pose": ("kpts",),
}
"""What followed the per-level maps in the layout until 8.3.x, by ``spec.task``."""
