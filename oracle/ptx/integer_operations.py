"""Functions of integers and of their bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.ptx.parser import Instruction
from oracle.ptx.register_types import TYPES, Bits, Function, bits_of, typed


def integer_quotient(a: Any, b: Any) -> Any:
    """Returns the quotient rounded towards zero; all bits are set where the divisor is 0."""
    safe = np.where(b == 0, b.dtype.type(1), b)
    floor = a // safe
    towards_zero = (floor * safe != a) & ((a < 0) != (safe < 0))
    quotient = (floor + towards_zero).astype(b.dtype)
    return np.where(b == 0, ~b.dtype.type(0), quotient)


def remainder(a: Any, b: Any) -> Any:
    """Returns the remainder of the quotient that is rounded towards zero."""
    return a - integer_quotient(a, b) * b


def widened(a: Bits, b: Bits, kind: str) -> Bits:
    """Returns the product of two numbers of a type, in twice as many bits."""
    wide = TYPES[f"{kind[0]}{2 * int(kind[1:])}"]
    return bits_of(typed(a, kind).astype(wide) * typed(b, kind).astype(wide))


def upper_half(a: Any, b: Any) -> Any:
    """Returns the upper half of a product; that of unsigned 64-bit numbers is computed by parts, since no type is wider."""
    if a.dtype.itemsize == 4:
        wide = np.int64 if a.dtype.kind == "i" else np.uint64
        return ((a.astype(wide) * b.astype(wide)) >> wide(32)).astype(a.dtype)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1, b0, b1 = a & low, a >> half, b & low, b >> half
    middle = (a0 * b0 >> half) + (a0 * b1 & low) + (a1 * b0 & low)
    return a1 * b1 + (a0 * b1 >> half) + (a1 * b0 >> half) + (middle >> half)


def shift(instruction: Instruction) -> Function:
    """Returns a shift to the left, or to the right (arithmetic for signed types); a shift by more than the width leaves no bits."""
    kind = instruction.type
    width = 8 * np.dtype(TYPES[kind]).itemsize

    def shifted(value: Bits, by: Bits) -> Bits:
        number = typed(value, kind)
        most = np.minimum(by, np.uint32(width - 1)).astype(number.dtype)
        if instruction.operation == "shl":
            result = np.where(by < width, number << most, number.dtype.type(0))
        else:
            result = np.where((by < width) | (kind[0] == "s"), number >> most, number.dtype.type(0))
        return bits_of(result)

    return shifted


def field(instruction: Instruction) -> Function:
    """Returns the extraction of a bit field by position and length; for signed types its top bit is the sign."""
    signed, width = instruction.type[0] == "s", 8 * np.dtype(TYPES[instruction.type]).itemsize

    def extracted(value: Bits, position: Bits, length: Bits) -> Bits:
        left = np.clip(width - position.astype(np.int64) - length.astype(np.int64), 0, width - 1)
        right = np.clip(width - length.astype(np.int64), 0, width - 1)
        number = value.view(TYPES[f"{'s' if signed else 'u'}{width}"])
        moved = (number << left.astype(number.dtype)) >> right.astype(number.dtype)
        return bits_of(np.where(length == 0, number.dtype.type(0), moved))

    return extracted


def permutation(instruction: Instruction) -> Function | None:
    """Returns the selection of four of the eight bytes of two numbers, or of their sign bits, by hexadecimal digits of the selector."""
    if instruction.modifiers != ("b32",):
        return None

    def permuted(a: Bits, b: Bits, selector: Bits) -> Bits:
        both = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
        result: Bits = np.uint32(0)
        for k in range(4):
            digit = (selector.astype(np.uint64) >> np.uint64(4 * k)) & np.uint64(15)
            byte = (both >> ((digit & np.uint64(7)) * np.uint64(8))) & np.uint64(0xFF)
            sign = np.where(byte >= 128, np.uint64(0xFF), np.uint64(0))
            result = result | (np.where(digit >= 8, sign, byte).astype(np.uint32) << np.uint32(8 * k))
        return result

    return permuted
