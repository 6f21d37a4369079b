"""Conversions between the bits in registers and the numbers that an instruction's type defines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from oracle.ptx.parser import Immediate, Instruction

Bits = Any  # An array of unsigned numbers or of booleans with one element for each thread, or one element for all threads.
Function = Callable[..., Bits]

TYPES: dict[str, Any] = {
    "pred": np.bool_,
    "f16": np.float16,
    "f32": np.float32,
    "f64": np.float64,
    **{f"s{bits}": np.dtype(f"int{bits}").type for bits in (8, 16, 32, 64)},
    **{f"{kind}{bits}": np.dtype(f"uint{bits}").type for kind in "ub" for bits in (8, 16, 32, 64)},
}
UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class UnknownInstructionError(ValueError):
    """An instruction that the interpreter does not implement."""

    def __init__(self, instruction: Instruction) -> None:
        super().__init__(f"this instruction is not implemented: {instruction.text}")


def has_only(instruction: Instruction, modifiers: Iterable[str]) -> bool:
    """Whether all modifiers of an instruction are types or among ``modifiers``."""
    return set(instruction.modifiers) <= TYPES.keys() | set(modifiers)


def typed(bits: Bits, kind: str) -> Any:
    """Returns bits as numbers of a type; those of bf16 as float32, which holds each of them exactly.

    A byte is the lowest of a wider register, as PTX reads an operand that is wider than the instruction's type.
    """
    if kind.endswith("8"):
        bits = bits.astype(np.uint8)
    if kind == "bf16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return bits if kind == "pred" else bits.view(TYPES[kind])


def bits_of(value: Any) -> Bits:
    """Returns numbers as bits."""
    return value if value.dtype == np.bool_ else value.view(UNSIGNED[value.dtype.itemsize])


def immediate(instruction: Instruction, position: int, operand: Immediate) -> Bits:
    """Returns an immediate number in the width that the instruction takes at a position among its sources."""
    kind, doubled = TYPES[instruction.type], "wide" in instruction.modifiers and position == 2
    if kind is np.bool_:
        return np.bool_(operand.bits)
    if instruction.operation in ("shl", "shr", "bfe", "bfi") and position > 0:
        return np.uint32(operand.bits)
    size = np.dtype(kind).itemsize * (2 if doubled else 1)
    return UNSIGNED[size](operand.bits & ((1 << 8 * size) - 1))


def on_numbers(instruction: Instruction, function: Callable[..., Any]) -> Function:
    """Returns a function of bits from one of numbers; subnormal numbers become zero where the instruction has the modifier ``ftz``."""
    kind = instruction.type
    if "ftz" in instruction.modifiers:
        return lambda *operands: bits_of(flushed(function(*(flushed(typed(each, kind)) for each in operands))))
    return lambda *operands: bits_of(function(*(typed(each, kind) for each in operands)))


def flushed(value: Any) -> Any:
    """Returns the numbers, with subnormal ones replaced by zeros of the same sign."""
    return np.where(np.abs(value) < np.finfo(value.dtype).tiny, np.copysign(value.dtype.type(0), value), value)
