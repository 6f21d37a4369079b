"""Numbers as they are given, brought to plain ``int`` and ``float``: Python's own, NumPy's, or a tensor with one element."""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterable
from typing import Any

MOST = 2**31 - 1
"""Largest whole number of a definition: every backend can hold it, and no image has as many anchors."""


def whole(name: str, value: Any, least: int = 1, most: int = MOST) -> int:
    """A whole number from ``least`` to ``most``, given as an integer or as a float without a fraction.

    Raises:
        ValueError: it is none; the message names it.
    """
    number = _whole(value)
    if number is None:
        raise ValueError(f"{name} is {value!r}; it must be a whole number")
    if number < least:
        raise ValueError(f"{name} is {value!r}; it must be at least {least}")
    if number > most:
        raise ValueError(f"{name} is {value!r}; it must be at most {most}")
    return number


def real(name: str, value: Any, least: float | None = None) -> float:
    """A number that float32 can hold, and that is not below ``least``.

    Raises:
        ValueError: it is none; the message names it.
    """
    number = _float(value)
    if number is None:
        raise ValueError(f"{name} is {value!r}; it must be a number")
    try:
        struct.pack("<f", number)
    except OverflowError:
        number = float("inf")
    if not abs(number) < float("inf"):
        raise ValueError(f"{name} is {value!r}; it must be finite in float32")
    if least is not None and number < least:
        raise ValueError(f"{name} is {value!r}; it must be at least {least:g}")
    return number


def several(name: str, values: Any) -> list[Any]:
    """The numbers of a tuple, a list, an array or a tensor.

    Raises:
        ValueError: these are not several numbers; the message names them.
    """
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes, dict)) or getattr(values, "ndim", 1) != 1:
        raise ValueError(f"{name} is {values!r}; give a tuple of numbers")
    return list(values)


def in_float32(number: float) -> float:
    """The number as float32 rounds it."""
    (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    return float(rounded)


def _whole(value: Any) -> int | None:
    if _is_bool(value):
        return None
    try:
        return operator.index(value)
    except (TypeError, RuntimeError, ValueError):
        number = _float(value)
    return int(number) if number is not None and number.is_integer() else None


def _float(value: Any) -> float | None:
    if _is_bool(value) or not hasattr(value, "__float__"):  # text has none, although float() would read it
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")
    except (TypeError, ValueError, RuntimeError):
        return None


def _is_bool(value: Any) -> bool:
    return "bool" in str(getattr(value, "dtype", type(value)))
