"""Changes of keypoints and of their predictions in a built batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from oracle.cases.case import Inputs
from properties.divergences.input_edits import Edit

Change = Callable[[Tensor], Tensor]


def keypoints(change: Change) -> Edit:
    """Replaces the target keypoints by what ``change`` makes of a copy."""
    return lambda inputs: Inputs(inputs.preds, {**inputs.batch, "keypoints": change(inputs.batch["keypoints"].clone())})


def coordinate(value: float, keypoint: int = 0, column: int = 0) -> Edit:
    """Sets one number of a keypoint of the first box: 0 is x, 2 the visibility."""

    def change(points: Tensor) -> Tensor:
        points[0, keypoint, column] = value
        return points

    return keypoints(change)


def without_keypoints(inputs: Inputs) -> Inputs:
    """Removes the target keypoints."""
    return Inputs(inputs.preds, {name: value for name, value in inputs.batch.items() if name != "keypoints"})


def raw(key: str, value: float, *channels: int) -> Edit:
    """Sets channels of ``kpts`` or ``kpts_sigma`` at every anchor."""

    def change(values: Tensor) -> Tensor:
        values[:, list(channels)] = value
        return values

    return predictions(key, change)


def predictions(key: str, change: Change) -> Edit:
    """Replaces ``kpts`` or ``kpts_sigma`` by what ``change`` makes of a copy."""

    def edit(inputs: Inputs) -> Inputs:
        return Inputs({**inputs.preds, key: change(inputs.preds[key].detach().clone()).requires_grad_()}, inputs.batch)

    return edit


def repeated(times: int, axis: int) -> Change:
    """Returns a change that repeats a tensor along an axis."""
    return lambda values: torch.cat([values] * times, axis)
