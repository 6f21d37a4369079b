"""The form that the contract asks of a contender: plain tensors of the right shape and kind, and attributes that can be read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from oracle.tools.printable import described, plain

WRONG_SHAPE, WRONG_DTYPE, WRONG_TENSOR, WRONG_ATTRIBUTE = "wrong shape", "wrong dtype", "wrong tensor", "wrong attribute"


class MalformedError(ValueError):
    """An answer or an attribute is not what the contract says.

    Attributes:
        mode: which of the failure modes of :mod:`oracle.comparison.conduct` that is.
    """

    def __init__(self, what: str, mode: str = WRONG_SHAPE) -> None:
        super().__init__(what)
        self.mode = mode


def attribute(holder: object, name: str, default: Any = None, among: Collection[Any] | None = None) -> Any:
    """An optional attribute of a factory or criterion.

    Raises:
        MalformedError: reading it raises something else than AttributeError, or it is none of ``among``.
    """
    try:
        found = getattr(holder, name, default)
    except Exception as error:
        raise MalformedError(f"its attribute `{name}` cannot be read: it raised {described(error)}", WRONG_ATTRIBUTE) from error
    if among is not None and not (isinstance(found, str) and found in among):
        allowed = " or ".join(repr(one) for one in among)
        raise MalformedError(f"its attribute `{name}` is {shown(found)}; it must be {allowed}", WRONG_ATTRIBUTE)
    return found


def leaf_dtype(criterion: object) -> torch.dtype | None:
    """The dtype in which a criterion wants its logits, or ``None`` for the setting's.

    Raises:
        MalformedError: it is no dtype of real numbers.
    """
    found = attribute(criterion, "leaf_dtype")
    if found is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise MalformedError(f"its attribute `leaf_dtype` is {shown(found)}; it must be a floating-point dtype, or None", WRONG_ATTRIBUTE)
    return found


def whole_loss(answer: Any, device: torch.device) -> tuple[Tensor, dict[str, float]]:
    """The loss (3,) and its items as numbers.

    Args:
        answer: what a criterion returned.
        device: of the logits.

    Raises:
        MalformedError: it is not (loss (3,), items by name), all of them plain tensors or numbers.
    """
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise MalformedError(f"the answer is {shown(answer)}; it must be a pair (loss, items)")
    loss, items = answer
    if not issubclass(type(loss), Tensor):
        raise MalformedError(f"the loss is {shown(loss)}; it must be a tensor of shape (3,): box, classification, distribution")
    expect_plain("the loss", loss, device)
    if loss.shape != (3,):
        raise MalformedError(f"the loss is {shown(loss)}; it must be a tensor of shape (3,): box, classification, distribution")
    if not loss.is_floating_point():
        raise MalformedError(f"the loss is {loss.dtype}; it must be float32, or float64", WRONG_DTYPE)
    if not isinstance(items, Mapping):
        raise MalformedError(f"the items are {shown(items)}; they must be a mapping of the logged terms by name")
    return loss, {plain(str(name)): _number(plain(str(name)), value) for name, value in items.items()}


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise MalformedError(f"item {name!r} is {shown(value)}; it must be one number")
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise MalformedError(f"item {name!r} is {shown(value)}; it must be a number", WRONG_DTYPE) from None


def expect_plain(what: str, found: Tensor, device: torch.device | None = None) -> None:
    """Refuse a tensor subclass, a sparse tensor, one without data, and one on another device than the logits' where that is given.

    Raises:
        MalformedError: it is one of these.
    """
    if type(found) not in (Tensor, torch.nn.Parameter):
        raise MalformedError(f"{what} is of type {kind(found)}, a subclass of torch.Tensor; it must be a plain tensor", WRONG_TENSOR)
    if found.layout != torch.strided or found.is_quantized:
        raise MalformedError(f"{what} is stored as {found.layout}; it must be a dense tensor", WRONG_TENSOR)
    if found.is_meta:
        raise MalformedError(f"{what} is on the device meta, where there are no numbers", WRONG_TENSOR)
    if device is not None and found.device != device:
        raise MalformedError(f"{what} is on {found.device}; it must be on the logits' device, {device}", WRONG_TENSOR)


def shown(value: object) -> str:
    """What something is, without asking it: a tensor's dtype and shape, a tuple's length, a short text or number, else the type."""
    if type(value) is Tensor:
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    if type(value) in (str, bool, int, float, type(None)):
        return plain(repr(value), 80)
    return f"a tuple of {len(value)}" if type(value) is tuple else f"of type {kind(value)}"


def kind(value: object) -> str:
    """The name of its type."""
    return plain(str(type(value).__name__), 80)
