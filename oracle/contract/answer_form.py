"""Checks of the form of a contender's answers and attributes: plain tensors of the right shape and dtype, readable attributes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from oracle.tools.printable import exception_text, printable

WRONG_SHAPE, WRONG_DTYPE, WRONG_TENSOR, WRONG_ATTRIBUTE = "wrong shape", "wrong dtype", "wrong tensor", "wrong attribute"

WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer types by their size in bytes, as which tensors are compared bit by bit."""


class MalformedError(ValueError):
    """An answer or an attribute violates the contract.

    Attributes:
        mode: the failure mode, a key of :data:`oracle.comparison.conduct.MODES`.
    """

    def __init__(self, what: str, mode: str = WRONG_SHAPE) -> None:
        super().__init__(what)
        self.mode = mode


def read_attribute(holder: object, name: str, default: Any = None, among: Collection[Any] | None = None) -> Any:
    """Returns an optional attribute of a factory or criterion, or the default.

    Raises:
        MalformedError: reading it raises another error than AttributeError, or its value is not in ``among``.
    """
    try:
        found = getattr(holder, name, default)
    except Exception as error:
        raise MalformedError(f"its attribute `{name}` cannot be read: it raised {exception_text(error)}", WRONG_ATTRIBUTE) from error
    if among is not None and not (isinstance(found, str) and found in among):
        allowed = " or ".join(repr(one) for one in among)
        raise MalformedError(f"its attribute `{name}` is {describe(found)}; it must be {allowed}", WRONG_ATTRIBUTE)
    return found


def leaf_dtype(criterion: object) -> torch.dtype | None:
    """Returns the dtype in which a criterion wants its logits, or ``None`` for the setting's.

    Raises:
        MalformedError: the attribute is no floating-point dtype.
    """
    found = read_attribute(criterion, "leaf_dtype")
    if found is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise MalformedError(
            f"its attribute `leaf_dtype` is {describe(found)}; it must be a floating-point dtype, or None", WRONG_ATTRIBUTE
        )
    return found


def loss_and_items(answer: Any, device: torch.device, terms: Sequence[str]) -> tuple[Tensor, dict[str, float]]:
    """Returns the loss (T,) and its items as Python numbers.

    Args:
        answer: the return value of a criterion.
        device: device of the predictions.
        terms: names of the terms, in the order of the result.

    Raises:
        MalformedError: the answer is not (loss (T,), items by name) with plain tensors or numbers.
    """
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise MalformedError(f"the answer is {describe(answer)}; it must be a pair (loss, items)")
    loss, items = answer
    demand = f"it must be a tensor of shape ({len(terms)},): {', '.join(terms)}"
    if not issubclass(type(loss), Tensor):
        raise MalformedError(f"the loss is {describe(loss)}; {demand}")
    check_tensor("the loss", loss, device)
    if loss.shape != (len(terms),):
        raise MalformedError(f"the loss is {describe(loss)}; {demand}")
    if not loss.is_floating_point():
        raise MalformedError(f"the loss is {loss.dtype}; it must be float32 or float64", WRONG_DTYPE)
    if not isinstance(items, Mapping):
        raise MalformedError(f"the items are {describe(items)}; they must be a mapping of the logged terms by name")
    return loss, {printable(str(name)): _number(printable(str(name)), value) for name, value in items.items()}


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise MalformedError(f"item {name!r} is {describe(value)}; it must be one number")
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise MalformedError(f"item {name!r} is {describe(value)}; it must be a number", WRONG_DTYPE) from None


def check_tensor(what: str, found: Tensor, device: torch.device | None = None) -> None:
    """Checks that a tensor is plain, dense, holds data and, if a device is given, is on that device.

    Raises:
        MalformedError: a check fails.
    """
    if type(found) not in (Tensor, torch.nn.Parameter):
        raise MalformedError(f"{what} is of type {type_name(found)}, a subclass of torch.Tensor; it must be a plain tensor", WRONG_TENSOR)
    if found.layout != torch.strided or found.is_quantized:
        raise MalformedError(f"{what} is stored as {found.layout}; it must be a dense tensor", WRONG_TENSOR)
    if found.is_meta:
        raise MalformedError(f"{what} is on the device meta, where there are no numbers", WRONG_TENSOR)
    if device is not None and found.device != device:
        raise MalformedError(f"{what} is on {found.device}; it must be on the logits' device, {device}", WRONG_TENSOR)


def describe(value: object) -> str:
    """Describes a value without calling its methods: tensor by dtype and shape, a tuple by length, short values as text, others by type."""
    if type(value) is Tensor:
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    if type(value) in (str, bool, int, float, type(None)):
        return printable(repr(value), 80)
    return f"a tuple of {len(value)}" if type(value) is tuple else f"of type {type_name(value)}"


def type_name(value: object) -> str:
    """Returns the name of a value's type."""
    return printable(str(type(value).__name__), 80)
