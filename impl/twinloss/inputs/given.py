"""What a call was given beside boxes and scores, and the checks that every task's further inputs share.

:mod:`twinloss.inputs.tasks` names each task's own function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.backends.saved_tensors import in_memory
from twinloss.inputs.checks import FLOATS, INTEGERS, check_present, check_readable
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
