"""Instructions that the threads of a warp execute together."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracle.ptx.access_log import WARP
from oracle.ptx.load_store import address_of, memory_of, with_location
from oracle.ptx.memory import MemoryFaultError
from oracle.ptx.parser import Instruction, Register, Vector
from oracle.ptx.register_types import UnknownInstructionError
from oracle.ptx.threads import ActiveThreads, Step, operand_reader


def shuffle(instruction: Instruction) -> Step:
    """``shfl.sync``: every thread receives the value of another thread of its warp.

    "bfly" names the bits in which that thread's number differs from the own one, "idx" the number.
    """
    kind, target_register = instruction.modifiers[:2], instruction.target
    if kind[:1] != ("sync",) or kind[1:] not in (("bfly",), ("idx",)) or not isinstance(target_register, Register):
        raise UnknownInstructionError(instruction)
    target = target_register.name
    value, named, *_ = (operand_reader(instruction, position, operand) for position, operand in enumerate(instruction.sources))

    def step(active: ActiveThreads) -> None:
        shape = active.warps(instruction)
        partner = active.per_thread(named(active)).astype(np.int64).reshape(shape)
        partner = partner % WARP if kind[1] == "idx" else np.arange(WARP) ^ partner
        active.write(target, np.take_along_axis(active.per_thread(value(active)).reshape(shape), partner, axis=1).ravel())

    return step


OWNER, PAIR = np.arange(WARP) // 4, np.arange(WARP) % 4 * 2  # Row of a matrix, and first of the two columns, whose elements a thread holds.
REDUCTIONS: dict[str, Any] = {"max": np.max, "min": np.min, "add": np.sum}


def reduction(instruction: Instruction) -> Step:
    """``redux.sync``: every thread receives the maximum, minimum or sum over its warp."""
    reduce, target = REDUCTIONS.get(instruction.modifiers[1]), instruction.target
    if reduce is None or not isinstance(target, Register):
        raise UnknownInstructionError(instruction)
    value = operand_reader(instruction, 0, instruction.sources[0])
    kind = np.int32 if instruction.type == "s32" else np.uint32

    def step(active: ActiveThreads) -> None:
        rows = active.per_thread(value(active)).view(kind).reshape(active.warps(instruction))
        active.write(target.name, np.repeat(reduce(rows, axis=1).astype(kind), WARP).view(np.uint32))

    return step


def matrix_transfer(instruction: Instruction) -> Step:
    """``ldmatrix`` and ``stmatrix``: 8 x 8 matrices of 2-byte elements; thread 8 k + i gives the address of row i of matrix k.

    The register of a matrix in thread t holds two elements of row t // 4, from column 2 (t % 4) on; "trans" swaps rows and columns.
    """
    loads, transposed = instruction.operation == "ldmatrix", "trans" in instruction.modifiers
    vector, place = instruction.operands if loads else instruction.operands[::-1]
    if not isinstance(vector, Vector):
        raise UnknownInstructionError(instruction)
    address, names = address_of(instruction, place), [part.name for part in vector.parts if isinstance(part, Register)]

    def step(active: ActiveThreads) -> None:
        rows = address(active).reshape(active.warps(instruction))
        if (rows % 16).any():
            raise MemoryFaultError("a row of a matrix begins at an address that is no multiple of 16 bytes")
        everyone = np.arange(active.count)
        for number, name in enumerate(names):
            bits = np.zeros(active.count, np.uint32) if loads else active.per_thread(active.read(name))
            for half in (0, 1):
                row, column = OWNER, PAIR + half
                row, column = (column, row) if transposed else (row, column)
                memory, addresses = memory_of(active, instruction, (rows[:, 8 * number + row] + 2 * column).ravel(), everyone)
                shift = np.uint32(16 * half)
                if loads:
                    bits |= memory.read(addresses, 2, 1)[0].astype(np.uint32) << shift
                else:
                    memory.write(addresses, 2, [(bits >> shift).astype(np.uint16)])
            if loads:
                active.write(name, bits)

    return with_location(instruction, step)
