"""What each instruction does to the threads that run it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oracle.ptx.float_operations import function_of
from oracle.ptx.load_store import atomic, load, store
from oracle.ptx.parser import Instruction, Register, Symbol, Vector
from oracle.ptx.register_types import UNSIGNED, Function, UnknownInstructionError
from oracle.ptx.threads import DivergenceError, Frame, Source, Step, source_of
from oracle.ptx.warp_operations import exchange, matrix, reduction


def step_of(instruction: Instruction) -> Step:
    """What the instruction does to the threads that run it.

    Raises:
        UnknownInstructionError: the machine does not know it.
    """
    maker = SPECIAL.get(instruction.operation)
    return maker(instruction) if maker else _plain(instruction)


def _guarded(instruction: Instruction, target: str, compute: Source) -> Step:
    """A step that writes a register where its guard allows."""
    guard = instruction.guard
    if guard is None:
        return lambda frame: frame.write(target, compute(frame))
    return lambda frame: frame.write(target, np.where(frame.read(guard) ^ instruction.negated, compute(frame), frame.read(target)))


def _plain(instruction: Instruction) -> Step:
    function: Function = function_of(instruction)
    sources = [source_of(instruction, position, operand) for position, operand in enumerate(instruction.sources)]
    if not isinstance(instruction.target, Register):
        raise UnknownInstructionError(instruction)
    return _guarded(instruction, instruction.target.name, lambda frame: function(*(source(frame) for source in sources)))


def _move(instruction: Instruction) -> Step:
    """Copies; a vector's parts are one number's bits, lowest first."""
    target, (source,) = instruction.target, instruction.sources
    if isinstance(target, Vector):
        return _unpack(instruction, target, source_of(instruction, 0, source))
    if not isinstance(target, Register):
        raise UnknownInstructionError(instruction)
    if isinstance(source, Symbol):
        return lambda frame: frame.write(target.name, np.uint32(0))  # Shared memory begins at 0.
    if isinstance(source, Vector):
        return _pack(instruction, target.name, [source_of(instruction, 0, part) for part in source.parts])
    return _guarded(instruction, target.name, source_of(instruction, 0, source))


def _unpack(instruction: Instruction, target: Vector, source: Source) -> Step:
    width = int(instruction.type[1:]) // len(target.parts)

    def step(frame: Frame) -> None:
        bits = source(frame)
        for k, part in enumerate(target.parts):
            if isinstance(part, Register):  # Else it is "_", which drops it.
                frame.write(part.name, (bits >> bits.dtype.type(k * width)).astype(UNSIGNED[width // 8]))

    return step


def _pack(instruction: Instruction, target: str, sources: list[Source]) -> Step:
    whole = UNSIGNED[int(instruction.type[1:]) // 8]
    width = int(instruction.type[1:]) // len(sources)

    def step(frame: Frame) -> None:
        bits = whole(0)
        for k, source in enumerate(sources):
            bits = bits | (source(frame).astype(whole) << whole(k * width))
        frame.write(target, bits)

    return step


def _branch(instruction: Instruction) -> Step:
    (label,), guard = instruction.operands, instruction.guard
    if not isinstance(label, Symbol):
        raise UnknownInstructionError(instruction)

    def step(frame: Frame) -> None:
        jumping = slice(None) if guard is None else frame.spread(frame.read(guard) ^ instruction.negated)
        frame.wave.at[frame.lanes[jumping]] = frame.wave.launch.kernel.labels[label.name]

    return step


def _return(instruction: Instruction) -> Step:
    if instruction.guard is not None:
        raise UnknownInstructionError(instruction)

    def step(frame: Frame) -> None:
        frame.wave.at[frame.lanes] = len(frame.wave.launch.kernel.blocks)

    return step


def _barrier(instruction: Instruction) -> Step:
    def step(frame: Frame) -> None:
        wave = frame.wave
        present = np.bincount(frame.of(wave.place))
        if not np.isin(present, (0, wave.launch.threads)).all():
            raise DivergenceError(f"part of a program is elsewhere at: {instruction.text}")
        wave.barriers[frame.lanes] += 1

    return step


SPECIAL: dict[str, Callable[[Instruction], Step]] = {
    "mov": _move,
    "bra": _branch,
    "ret": _return,
    "bar": _barrier,
    "shfl": exchange,
    "redux": reduction,
    "ld": load,
    "st": store,
    "atom": atomic,
    "red": atomic,
    "ldmatrix": matrix,
    "stmatrix": matrix,
}
