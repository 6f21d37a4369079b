"""The one place from which kernels are launched."""

from __future__ import annotations

from typing import Any


def launch(kernel: Any, programs: int, warps: int, *arguments: Any, **constants: Any) -> None:
    """Run a kernel over a line of programs; over none, nothing happens.

    Multiplications and additions are not contracted: the torch backend rounds each, and decisions between near values are to agree with it.
    """
    if programs > 0:
        kernel[(programs,)](*arguments, **constants, num_warps=warps, enable_fp_fusion=False)


def blocks(elements: int, size: int) -> int:
    """Programs of ``size`` elements each that cover ``elements``."""
    return -(-elements // size)


def power_of_two(value: int) -> int:
    """The least power of two that is not below ``value``: the extent of a block that holds so many."""
    return 1 << max(value - 1, 0).bit_length()
