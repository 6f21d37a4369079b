"""Changes of masks, prototypes, coefficients and semantic logits of a built batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from oracle.cases.case import Inputs
from properties.divergences.input_edits import Edit

Change = Callable[[Tensor], Tensor]


def target(key: str, change: Change) -> Edit:
    """Replaces ``masks`` or ``sem_masks`` by what ``change`` makes of a float32 copy."""
    return lambda inputs: Inputs(inputs.preds, {**inputs.batch, key: change(inputs.batch[key].to(torch.float32, copy=True))})


def without(key: str) -> Edit:
    """Removes a target."""
    return lambda inputs: Inputs(inputs.preds, {name: value for name, value in inputs.batch.items() if name != key})


def pixel(key: str, where: tuple[int, int, int], value: float) -> Edit:
    """Sets one pixel of ``masks`` or ``sem_masks``; ``where`` is (mask, row, column)."""

    def change(values: Tensor) -> Tensor:
        values[where] = value
        return values

    return target(key, change)


def coefficients(change: Change) -> Edit:
    """Replaces the coefficients by what ``change`` makes of a copy."""
    return lambda inputs: Inputs({**inputs.preds, "mask_coefficient": _leaf(change, inputs.preds["mask_coefficient"])}, inputs.batch)


def prototypes(change: Change) -> Edit:
    """Replaces the prototypes by what ``change`` makes of a copy."""

    def edit(inputs: Inputs) -> Inputs:
        proto = inputs.preds["proto"]
        changed = (_leaf(change, proto[0]), proto[1]) if isinstance(proto, tuple) else _leaf(change, proto)
        return Inputs({**inputs.preds, "proto": changed}, inputs.batch)

    return edit


def semantic(change: Change) -> Edit:
    """Replaces the semantic logits by what ``change`` makes of a copy."""
    return lambda inputs: Inputs(
        {**inputs.preds, "proto": (inputs.preds["proto"][0], _leaf(change, inputs.preds["proto"][1]))}, inputs.batch
    )


def with_value(where: tuple[int | slice, ...], value: float) -> Change:
    """Returns a change that sets a part of a tensor to a value."""

    def change(values: Tensor) -> Tensor:
        values[where] = value
        return values

    return change


def _leaf(change: Change, values: Tensor) -> Tensor:
    return change(values.detach().clone()).requires_grad_()
