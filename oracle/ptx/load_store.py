"""Instructions that read and write memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from oracle.ptx import access_log as accesses
from oracle.ptx.memory import Memory, MemoryFaultError
from oracle.ptx.parser import Address, Instruction, Operand, Register, Symbol, Vector
from oracle.ptx.register_types import UNSIGNED, UnknownInstructionError, known
from oracle.ptx.threads import SHARED_WINDOW, Frame, Step, Threads, source_of

# Orders between threads are not among them: what they say of races is not known.
MODIFIERS = ("global", "shared", "v2", "v4", "gpu", "relaxed", "max", "sync", "aligned", "m8n8", "trans", "x1", "x2", "x4")


def _allowed(frame: Frame, instruction: Instruction) -> Threads:
    """Positions, among the threads here, of those whose guard allows it."""
    if instruction.guard is None:
        return np.arange(frame.count)
    return np.flatnonzero(frame.spread(frame.read(instruction.guard) ^ instruction.negated))


def address_of(instruction: Instruction, operand: Operand) -> Callable[[Frame], Any]:
    """What tells, for each thread, the address that an operand means."""
    if not (isinstance(operand, Address) and known(instruction, MODIFIERS)):
        raise UnknownInstructionError(instruction)
    base, offset = operand.base, operand.offset
    if isinstance(base, Symbol):
        return lambda frame: np.full(frame.count, offset, np.int64)
    return lambda frame: frame.spread(frame.read(base.name)).astype(np.int64) + offset


def _parts(operand: Operand) -> tuple[Operand, ...]:
    return operand.parts if isinstance(operand, Vector) else (operand,)


def memory_of(frame: Frame, instruction: Instruction, addresses: Any, allowed: Threads) -> tuple[Memory, Any]:
    """The memory that an instruction means, and its addresses there; shared memory is each program's own."""
    if "shared" in instruction.modifiers:
        return frame.wave.shared, addresses + frame.of(frame.wave.place)[allowed] * SHARED_WINDOW
    return frame.wave.launch.memory, addresses


def _record(frame: Frame, instruction: Instruction, allowed: Threads, addresses: Any, size: int, kind: int) -> None:
    if "shared" in instruction.modifiers:
        return
    wave = frame.wave
    of = [frame.of(values)[allowed] for values in (wave.program, wave.thread, wave.barriers)]
    wave.done.add(instruction, addresses, *of, size=size, kind=kind)


def checked(instruction: Instruction, step: Step) -> Step:
    """A step whose faults say in which kernel and at which instruction."""

    def explained(frame: Frame) -> None:
        try:
            step(frame)
        except MemoryFaultError as fault:
            raise MemoryFaultError(f"{frame.wave.launch.kernel.name}: {fault}; at: {instruction.text}") from None

    return explained


def load(instruction: Instruction) -> Step:
    """``ld``: from a parameter, global or shared memory; where the guard forbids it, registers keep what they had."""
    if instruction.modifiers[0] == "param":
        return _load_parameter(instruction)
    size, parts = int(instruction.type[1:]) // 8, _parts(instruction.operands[0])
    address = address_of(instruction, instruction.operands[1])

    def step(frame: Frame) -> None:
        allowed = _allowed(frame, instruction)
        memory, addresses = memory_of(frame, instruction, address(frame)[allowed], allowed)
        values = memory.read(addresses, size, len(parts))
        _record(frame, instruction, allowed, addresses, size * len(parts), accesses.READ)
        for part, value in zip(parts, values, strict=True):
            if isinstance(part, Register):
                frame.write_some(part.name, allowed, value)

    return checked(instruction, step)


def _load_parameter(instruction: Instruction) -> Step:
    target, (place,) = instruction.target, instruction.sources
    if not (isinstance(target, Register) and isinstance(place, Address)) or place.offset:
        raise UnknownInstructionError(instruction)
    kind = instruction.type

    def step(frame: Frame) -> None:
        size = int(kind[1:]) // 8
        bits = UNSIGNED[size](frame.wave.parameters[place.base.name] & ((1 << 8 * size) - 1))
        width = frame.wave.launch.kernel.width(target.name) // 8
        if width != size:  # A number may be wider in the register.
            wide = np.int64(bits.view(np.int32)) if kind[0] == "s" else np.int64(bits)
            bits = wide.view(np.uint64)
        frame.write(target.name, bits)

    return step


def store(instruction: Instruction) -> Step:
    """``st``: to global or shared memory."""
    place, value = instruction.operands
    size, parts = int(instruction.type[1:]) // 8, _parts(value)
    address = address_of(instruction, place)
    sources = [source_of(instruction, 0, part) for part in parts]

    def step(frame: Frame) -> None:
        allowed = _allowed(frame, instruction)
        memory, addresses = memory_of(frame, instruction, address(frame)[allowed], allowed)
        memory.write(addresses, size, [frame.spread(source(frame))[allowed] for source in sources])
        _record(frame, instruction, allowed, addresses, size * len(parts), accesses.WRITE)

    return checked(instruction, step)


def atomic(instruction: Instruction) -> Step:
    """``atom`` and ``red`` with the maximum, in an order by chance."""
    if "max" not in instruction.modifiers or instruction.type not in ("s32", "s64", "u32", "u64"):
        raise UnknownInstructionError(instruction)
    place, operand = instruction.sources
    address, source = address_of(instruction, place), source_of(instruction, 0, operand)
    size = int(instruction.type[1:]) // 8
    kind = np.dtype(f"{'i' if instruction.type[0] == 's' else 'u'}{size}")

    def step(frame: Frame) -> None:
        allowed = _allowed(frame, instruction)
        memory, addresses = memory_of(frame, instruction, address(frame)[allowed], allowed)
        values = frame.spread(source(frame))[allowed].view(kind)
        found = memory.maximum(addresses, values, frame.wave.chance.permutation(len(allowed)))
        _record(frame, instruction, allowed, addresses, size, accesses.ATOMIC)
        if isinstance(instruction.target, Register):
            frame.write_some(instruction.target.name, allowed, found.view(UNSIGNED[size]))

    return checked(instruction, step)
