"""Launches kernels; no other module does."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Any

Kernels = dict[int, Any]


@lru_cache(maxsize=64)
def kernels_for(_key: Hashable) -> Kernels:
    """Returns the compiled kernels of the calls with this key, by ``id`` of the kernel; :func:`launch` fills the mapping.

    The key holds everything that Triton inspects before it compiles. Triton's own look-up inspects every argument of every launch, and
    takes longer than a small kernel runs.
    """
    return {}


def launch(kernels: Kernels, kernel: Any, programs: int, warps: int, *arguments: Any, **constants: Any) -> None:
    """Run a kernel over a line of programs; with 0 programs, do nothing.

    Multiplications and additions are not fused: the torch backend rounds each of them, and both backends must decide alike between near
    values.

    Args:
        kernels: compiled kernels, from :func:`kernels_for`.
        kernel: the function to run.
        programs: number of programs.
        warps: warps of each program.
        arguments: the kernel's arguments, without the constants.
        constants: its compile-time constants, in the order of its signature.
    """
    if programs <= 0:
        return
    built = kernels.get(id(kernel))  # hashing the kernel itself hashes its source, which takes longer
    if built is not None:
        built[programs, 1, 1](*arguments, *constants.values())
        return
    # The interpreter builds nothing and returns None.
    built = kernel[(programs,)](*arguments, **constants, num_warps=warps, enable_fp_fusion=False)
    if built is not None:
        kernels[id(kernel)] = built


def blocks(elements: int, size: int) -> int:
    """Number of programs of ``size`` elements each that cover ``elements`` elements."""
    return -(-elements // size)


def power_of_two(value: int) -> int:
    """Smallest power of two that is at least ``value``: the length of a block that holds ``value`` elements."""
    return 1 << max(value - 1, 0).bit_length()
