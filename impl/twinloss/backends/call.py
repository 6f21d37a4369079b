"""One call of the loss, as the kernels of every backend are given it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.assignment import Conflicts
from twinloss.spec import LossSpec


@dataclass(frozen=True)
class Call:
    """What the loss is asked about.

    Attributes:
        boxes: (B, 4R, A) logits: float16, bfloat16 or float32.
        scores: (B, C, A) logits.
        batch: ``batch_idx`` (N,), ``cls`` (N,) or (N, 1), ``bboxes`` (N, 4).
        spec: the definition.
        pyramid: the grids.
        conflicts: "overlap" or "pickers", as in :class:`twinloss.DetectionLoss`.
    """

    boxes: Tensor
    scores: Tensor
    batch: Mapping[str, Tensor]
    spec: LossSpec
    pyramid: Pyramid
    conflicts: Conflicts = "overlap"

    def named(self, items: Tensor) -> dict[str, Tensor]:
        """The three terms (3,) by the names under which they are logged."""
        return dict(zip(self.spec.term_names, items.unbind(), strict=True))
