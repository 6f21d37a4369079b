"""The one place from which kernels are launched."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Any

Kernels = dict[int, Any]


@lru_cache(maxsize=64)
def kernels_for(_key: Hashable) -> Kernels:
    """What has been compiled for calls that agree in all that Triton looks at before it compiles; filled by :func:`launch`.

    Triton's own look-up inspects every argument of every launch, and takes longer than a small kernel runs.
    """
    return {}


def launch(kernels: Kernels, kernel: Any, programs: int, warps: int, *arguments: Any, **constants: Any) -> None:
    """Run a kernel over a line of programs; over none, nothing happens.

    Multiplications and additions are not contracted: the torch backend rounds each, and decisions between near values are to agree with it.

    Args:
        kernels: of :func:`kernels_for`.
        kernel: the function.
        programs: how many.
        warps: of each.
        arguments: its arguments but for the constants.
        constants: its compile-time constants, in its own order.
    """
    if programs <= 0:
        return
    built = kernels.get(id(kernel))  # a kernel's own hash is that of its source, and takes longer
    if built is not None:
        built[programs, 1, 1](*arguments, *constants.values())
        return
    # Under the interpreter, nothing is built.
    built = kernel[(programs,)](*arguments, **constants, num_warps=warps, enable_fp_fusion=False)
    if built is not None:
        kernels[id(kernel)] = built


def blocks(elements: int, size: int) -> int:
    """Programs of ``size`` elements each that cover ``elements``."""
    return -(-elements // size)


def power_of_two(value: int) -> int:
    """The least power of two that is not below ``value``: the extent of a block that holds so many."""
    return 1 << max(value - 1, 0).bit_length()
