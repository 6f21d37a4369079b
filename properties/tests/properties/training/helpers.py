"""Models of the trainings in these tests, and wrong twins that the checks must notice."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from twinloss import DetectionLoss, LossSpec

FOLDER = Path(__file__).parents[3] / "training"
PLAIN, END_TO_END = FOLDER / "tiny.yaml", FOLDER / "tiny-end-to-end.yaml"


class LargerGradient(DetectionLoss):
    """A twin whose gradient is 1 % too large, from the first step on."""

    def __call__(self, preds: Any, batch: Any) -> Any:
        """Returns the twin's loss with a gradient that is 1 % larger."""
        loss, items = super().__call__(preds, batch)
        return loss + 0.01 * (loss - loss.detach()), items


class FewerCandidates(DetectionLoss):
    """A twin with three candidates fewer."""

    def __init__(self, spec: LossSpec, **options: Any) -> None:
        super().__init__(dataclasses.replace(spec, topk=spec.topk - 3), **options)
