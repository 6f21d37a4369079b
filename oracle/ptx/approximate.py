"""Approximate instructions: the exact result with a pseudo-random relative error of up to the bound in the PTX manual.

Tests that pass with these errors pass with the approximation of any device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.ptx.register_types import bits_of

RELATIVE_ERROR = 2.0**-22  # 2 units in the last place of float32.


def _perturbed(exact: Any, *operands: Any) -> Any:
    """Returns float32 numbers within :data:`RELATIVE_ERROR` of exact ones; the same operands give the same error."""
    seed = np.zeros(np.shape(exact), np.uint32)
    for operand in operands:
        seed = (seed ^ bits_of(operand)) * np.uint32(2654435761)
        seed ^= seed >> np.uint32(15)
    share = (seed * np.uint32(2246822519)).astype(np.float64) / 2.0**31 - 1
    return (exact * (1 + share * RELATIVE_ERROR)).astype(np.float32)


def exponential(x: Any) -> Any:
    """``ex2.approx``: 2^x."""
    exact = np.exp2(x.astype(np.float64))
    return np.where(x == 0, np.float32(1), _perturbed(exact, x))


def logarithm(x: Any) -> Any:
    """``lg2.approx``: the logarithm to base 2."""
    return _perturbed(np.log2(x.astype(np.float64)), x)


def reciprocal(x: Any) -> Any:
    """``rcp.approx``: 1 / x."""
    return _perturbed(1 / x.astype(np.float64), x)


def full_division(a: Any, b: Any) -> Any:
    """``div.full``: a / b, and 0 where the divisor exceeds 2^126."""
    exact = a.astype(np.float64) / b.astype(np.float64)
    beyond = (np.abs(b) > 2.0**126) & np.isfinite(a)
    return np.where(beyond, np.float32(0), _perturbed(exact, a, b))
