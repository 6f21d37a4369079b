"""The functions that instructions compute, on arrays of bits with one element for each thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from oracle.ptx.approximate import exponential, full_division, logarithm, reciprocal
from oracle.ptx.conversions import HALVES, conversion
from oracle.ptx.integer_operations import field, integer_quotient, permutation, remainder, shift, upper_half, widened
from oracle.ptx.parser import Instruction
from oracle.ptx.register_types import Bits, Function, UnknownInstructionError, has_only, on_numbers, typed


def function_of(instruction: Instruction) -> Function:
    """Returns the function from the bits of an instruction's sources to the bits of its target.

    Raises:
        UnknownInstructionError: the instruction, or one of its modifiers, is not implemented.
    """
    make = MAKERS.get(instruction.operation)
    halves = HALVES if instruction.operation in ("cvt", "abs", "setp") else ()
    found = make(instruction) if make and has_only(instruction, {*MODIFIERS, *COMPARISONS, *UNORDERED, *halves}) else None
    if found is None:
        raise UnknownInstructionError(instruction)
    return found


def _elementwise(function: Callable[..., Any]) -> Callable[[Instruction], Function]:
    return lambda instruction: on_numbers(instruction, function)


def _to_nearest(function: Callable[..., Any]) -> Callable[[Instruction], Function | None]:
    """Require the modifier ``rn`` of floats: without it the assembler may fuse a multiplication and an addition."""
    return lambda instruction: on_numbers(instruction, function) if instruction.type[0] != "f" or "rn" in instruction.modifiers else None


def _minimum_maximum(instruction: Instruction) -> Function:
    lesser = instruction.operation == "min"
    if instruction.type[0] != "f" or "NaN" in instruction.modifiers:
        return on_numbers(instruction, np.minimum if lesser else np.maximum)
    return on_numbers(instruction, np.fmin if lesser else np.fmax)


def _division(instruction: Instruction) -> Function | None:
    if "full" in instruction.modifiers:
        return on_numbers(instruction, full_division)
    if instruction.type[0] != "f":
        return on_numbers(instruction, integer_quotient)
    return on_numbers(instruction, np.divide) if "rn" in instruction.modifiers else None


def _product(instruction: Instruction) -> Function | None:
    part = instruction.modifiers[0]
    if instruction.type[0] == "f":
        return on_numbers(instruction, np.multiply) if "rn" in instruction.modifiers else None
    if part == "wide":
        return lambda a, b: widened(a, b, instruction.type)
    if part == "hi" and instruction.type == "s64":
        return None
    return on_numbers(instruction, np.multiply if part == "lo" else upper_half)


def _multiply_add(instruction: Instruction) -> Function:
    kind = instruction.type
    if instruction.operation == "fma":
        return on_numbers(instruction, _fused)
    if instruction.modifiers[0] == "wide":
        return lambda a, b, c: widened(a, b, kind) + c
    return on_numbers(instruction, lambda a, b, c: a * b + c)


def _fused(a: Any, b: Any, c: Any) -> Any:
    """Returns a · b + c, computed in a wider type: the product is exact there, and only the sum can round twice, in rare cases."""
    wide = np.float64 if a.dtype == np.float32 else np.longdouble
    return (a.astype(wide) * b.astype(wide) + c.astype(wide)).astype(a.dtype)


# Other modifiers, such as other roundings and saturation, change the result; instructions with them are refused.
MODIFIERS = {"rn", "rzi", "rni", "rmi", "rpi", "ftz", "approx", "full", "lo", "hi", "wide", "NaN"}
UNORDERED = tuple(f"{name}u" for name in ("eq", "ne", "lt", "le", "gt", "ge"))
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
}


def _comparison(instruction: Instruction) -> Function | None:
    name, kind = instruction.modifiers[0], instruction.type
    if len(instruction.modifiers) != 2 or kind.endswith("x2"):  # Two comparisons at once have two targets.
        return None
    unordered = name in UNORDERED
    compare = COMPARISONS[name[:-1] if unordered else name]

    def compared(a: Bits, b: Bits) -> Bits:
        x, y = typed(a, kind), typed(b, kind)
        result = compare(x, y)
        if x.dtype.kind != "f" or name in ("num", "nan"):
            return result
        either = np.isnan(x) | np.isnan(y)
        return result | either if unordered else result & ~either

    return compared


def _selection(_: Instruction) -> Function:
    return lambda a, b, chosen: np.where(chosen, a, b)


def _logical(function: Callable[..., Any]) -> Callable[[Instruction], Function]:
    return lambda _: function


def _magnitude(instruction: Instruction) -> Function:
    if instruction.type == "bf16":
        return lambda bits: bits & np.uint16(0x7FFF)
    return on_numbers(instruction, np.abs)


def _negation(instruction: Instruction) -> Function:
    if instruction.type[0] == "f":
        sign = {"f16": np.uint16(0x8000), "f32": np.uint32(0x80000000), "f64": np.uint64(1 << 63)}[instruction.type]
        return lambda bits: bits ^ sign
    return on_numbers(instruction, np.negative)


def _requiring(modifier: str, function: Callable[..., Any]) -> Callable[[Instruction], Function | None]:
    return lambda instruction: on_numbers(instruction, function) if modifier in instruction.modifiers else None


MAKERS: dict[str, Callable[[Instruction], Function | None]] = {
    "add": _to_nearest(np.add),
    "sub": _to_nearest(np.subtract),
    "mul": _product,
    "mad": _multiply_add,
    "fma": _multiply_add,
    "div": _division,
    "rem": _elementwise(remainder),
    "min": _minimum_maximum,
    "max": _minimum_maximum,
    "abs": _magnitude,
    "neg": _negation,
    "sqrt": _requiring("rn", np.sqrt),
    "ex2": _requiring("approx", exponential),
    "lg2": _requiring("approx", logarithm),
    "rcp": _requiring("approx", reciprocal),
    "and": _logical(np.bitwise_and),
    "or": _logical(np.bitwise_or),
    "xor": _logical(np.bitwise_xor),
    "not": _logical(np.invert),
    "shl": shift,
    "shr": shift,
    "bfe": field,
    "prmt": permutation,
    "setp": _comparison,
    "selp": _selection,
    "cvt": conversion,
}
