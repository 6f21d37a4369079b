"""The effect of each instruction on the threads that run it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oracle.ptx.float_operations import function_of
from oracle.ptx.load_store import atomic, load, store
from oracle.ptx.parser import Instruction, Register, Symbol, Vector
from oracle.ptx.register_types import UNSIGNED, Function, UnknownInstructionError
from oracle.ptx.threads import ActiveThreads, DivergenceError, OperandReader, Step, operand_reader
from oracle.ptx.warp_operations import matrix_transfer, reduction, shuffle


def step_of(instruction: Instruction) -> Step:
    """Returns the effect of the instruction on the threads that run it.

    Raises:
        UnknownInstructionError: the instruction is not implemented.
    """
    maker = SPECIAL.get(instruction.operation)
    return maker(instruction) if maker else _plain(instruction)


def _guarded(instruction: Instruction, target: str, compute: OperandReader) -> Step:
    """Returns a step that writes a register in the threads whose guard is true."""
    guard = instruction.guard
    if guard is None:
        return lambda active: active.write(target, compute(active))
    return lambda active: active.write(target, np.where(active.read(guard) ^ instruction.negated, compute(active), active.read(target)))


def _plain(instruction: Instruction) -> Step:
    function: Function = function_of(instruction)
    sources = [operand_reader(instruction, position, operand) for position, operand in enumerate(instruction.sources)]
    if not isinstance(instruction.target, Register):
        raise UnknownInstructionError(instruction)
    return _guarded(instruction, instruction.target.name, lambda active: function(*(source(active) for source in sources)))


def _move(instruction: Instruction) -> Step:
    """Copy a register; the parts of a vector are the bits of one number, lowest first."""
    target, (source,) = instruction.target, instruction.sources
    if isinstance(target, Vector):
        return _unpack(instruction, target, operand_reader(instruction, 0, source))
    if not isinstance(target, Register):
        raise UnknownInstructionError(instruction)
    if isinstance(source, Symbol):
        return lambda active: active.write(target.name, np.uint32(0))  # Shared memory begins at 0.
    if isinstance(source, Vector):
        return _pack(instruction, target.name, [operand_reader(instruction, 0, part) for part in source.parts])
    return _guarded(instruction, target.name, operand_reader(instruction, 0, source))


def _unpack(instruction: Instruction, target: Vector, source: OperandReader) -> Step:
    width = int(instruction.type[1:]) // len(target.parts)

    def step(active: ActiveThreads) -> None:
        bits = source(active)
        for k, part in enumerate(target.parts):
            if isinstance(part, Register):  # The other operand is "_", which drops the part.
                active.write(part.name, (bits >> bits.dtype.type(k * width)).astype(UNSIGNED[width // 8]))

    return step


def _pack(instruction: Instruction, target: str, sources: list[OperandReader]) -> Step:
    whole = UNSIGNED[int(instruction.type[1:]) // 8]
    width = int(instruction.type[1:]) // len(sources)

    def step(active: ActiveThreads) -> None:
        bits = whole(0)
        for k, source in enumerate(sources):
            bits = bits | (source(active).astype(whole) << whole(k * width))
        active.write(target, bits)

    return step


def _branch(instruction: Instruction) -> Step:
    (label,), guard = instruction.operands, instruction.guard
    if not isinstance(label, Symbol):
        raise UnknownInstructionError(instruction)

    def step(active: ActiveThreads) -> None:
        jumping = slice(None) if guard is None else active.per_thread(active.read(guard) ^ instruction.negated)
        active.running.next_block[active.lanes[jumping]] = active.running.launch.kernel.labels[label.name]

    return step


def _return(instruction: Instruction) -> Step:
    if instruction.guard is not None:
        raise UnknownInstructionError(instruction)

    def step(active: ActiveThreads) -> None:
        active.running.next_block[active.lanes] = len(active.running.launch.kernel.blocks)

    return step


def _barrier(instruction: Instruction) -> Step:
    def step(active: ActiveThreads) -> None:
        running = active.running
        present = np.bincount(active.select(running.slot))
        if not np.isin(present, (0, running.launch.threads)).all():
            raise DivergenceError(f"some threads of a program did not reach: {instruction.text}")
        running.barriers[active.lanes] += 1

    return step


SPECIAL: dict[str, Callable[[Instruction], Step]] = {
    "mov": _move,
    "bra": _branch,
    "ret": _return,
    "bar": _barrier,
    "shfl": shuffle,
    "redux": reduction,
    "ld": load,
    "st": store,
    "atom": atomic,
    "red": atomic,
    "ldmatrix": matrix_transfer,
    "stmatrix": matrix_transfer,
}
