"""Changes of a built batch that no recipe can express."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch

from oracle.cases.case import Inputs

Edit = Callable[[Inputs], Inputs]


def batch_value(key: str, row: int, value: float, column: int = 0) -> Edit:
    """Sets one number of the targets."""

    def edit(inputs: Inputs) -> Inputs:
        inputs.batch[key].view(len(inputs.batch[key]), -1)[row, column] = value
        return inputs

    return edit


def batch_order(*rows: int, keep: Collection[str] = ()) -> Edit:
    """Reorders the rows of the targets, except those named ``keep``."""

    def edit(inputs: Inputs) -> Inputs:
        return Inputs(inputs.preds, {key: values if key in keep else values[list(rows)] for key, values in inputs.batch.items()})

    return edit


def batch_dtype(dtype: torch.dtype, *keys: str) -> Edit:
    """Converts targets to another dtype."""

    def edit(inputs: Inputs) -> Inputs:
        return Inputs(inputs.preds, {key: values.to(dtype) if key in keys else values for key, values in inputs.batch.items()})

    return edit


def logit(key: str, where: tuple[int, int, int], value: float) -> Edit:
    """Sets one logit of ``boxes`` or ``scores``; ``where`` is (image, channel, anchor)."""

    def edit(inputs: Inputs) -> Inputs:
        values = inputs.preds[key].detach().clone()
        values[where] = value
        return _with_preds(inputs, **{key: values.requires_grad_()})

    return edit


def one_more_image(key: str) -> Edit:
    """Appends a copy of the first image to ``boxes`` or ``scores``."""

    def edit(inputs: Inputs) -> Inputs:
        values = inputs.preds[key].detach()
        return _with_preds(inputs, **{key: torch.cat([values, values[:1]]).requires_grad_()})

    return edit


def _with_preds(inputs: Inputs, **changed: Any) -> Inputs:
    return Inputs({**inputs.preds, **changed}, inputs.batch)
