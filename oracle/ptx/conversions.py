"""``cvt``: conversions between types of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.ptx.parser import Instruction
from oracle.ptx.register_types import TYPES, Bits, Function, bits_of, flushed, typed

HALVES = ("bf16", "f16x2", "bf16x2")  # Types that occur in conversions, comparisons and ``abs`` only.
ROUNDED = ("rn", "rzi", "rni", "rmi", "rpi", "ftz")


def conversion(instruction: Instruction) -> Function | None:
    """Returns the conversion to a type, or of two numbers to the halves of a register; ``None`` where a modifier is unknown."""
    *modifiers, to, source = instruction.modifiers
    if set(modifiers) - set(ROUNDED):
        return None
    if to.endswith("x2"):
        half = _one_conversion(modifiers, to[:-2], source)
        return lambda a, b: (half(a).astype(np.uint32) << np.uint32(16)) | half(b).astype(np.uint32)
    return _one_conversion(modifiers, to, source)


def _one_conversion(modifiers: list[str], to: str, source: str) -> Function:
    if to == "bf16":
        return _to_bfloat16
    if to[0] != "f" and (source[0] == "f" or source == "bf16"):
        return lambda bits: _to_integer(typed(bits, source), modifiers, to)
    rounding = {"rmi": np.floor, "rpi": np.ceil, "rzi": np.trunc, "rni": np.rint}
    whole = next((rounding[each] for each in modifiers if each in rounding), None)

    def converted(bits: Bits) -> Bits:
        number = typed(bits, source)
        number = flushed(number) if "ftz" in modifiers else number
        return bits_of((whole(number) if whole else number).astype(TYPES[to]))

    return converted


def _to_bfloat16(bits: Bits) -> Bits:
    """Round to nearest, ties to even; NaN becomes the bits 0x7FFF, as on hardware."""
    number = bits.view(np.float32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + even) >> np.uint32(16)
    return np.where(np.isnan(number), np.uint32(0x7FFF), rounded).astype(np.uint16)


def _to_integer(number: Any, modifiers: list[str], to: str) -> Bits:
    """Round in the direction of the modifier and clamp to the type's range; NaN becomes 0."""
    kind = TYPES[to]
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    direction = {"rmi": np.floor, "rpi": np.ceil, "rni": np.rint}
    whole = next((direction[each] for each in modifiers if each in direction), np.trunc)(number.astype(np.float64))
    inside = np.clip(np.nan_to_num(whole, nan=0.0), least, np.nextafter(float(most), 0) if to.endswith("64") else most)
    result = np.where(whole >= float(most), kind(most), inside.astype(kind))
    return bits_of(np.where(np.isnan(number), kind(0), result))
