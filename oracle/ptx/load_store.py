"""Instructions that read and write memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from oracle.ptx import access_log as accesses
from oracle.ptx.memory import Memory, MemoryFaultError
from oracle.ptx.parser import Address, Instruction, Operand, Register, Symbol, Vector
from oracle.ptx.register_types import UNSIGNED, UnknownInstructionError, has_only
from oracle.ptx.threads import SHARED_WINDOW, ActiveThreads, Step, Threads, operand_reader

# Memory orderings such as acquire and release are refused: the search for races does not model them.
MODIFIERS = ("global", "shared", "v2", "v4", "gpu", "relaxed", "max", "sync", "aligned", "m8n8", "trans", "x1", "x2", "x4")


def _allowed(active: ActiveThreads, instruction: Instruction) -> Threads:
    """Returns the positions, among the active threads, of those whose guard is true."""
    if instruction.guard is None:
        return np.arange(active.count)
    return np.flatnonzero(active.per_thread(active.read(instruction.guard) ^ instruction.negated))


def address_of(instruction: Instruction, operand: Operand) -> Callable[[ActiveThreads], Any]:
    """Returns the function that gives the address of an operand in each thread."""
    if not (isinstance(operand, Address) and has_only(instruction, MODIFIERS)):
        raise UnknownInstructionError(instruction)
    base, offset = operand.base, operand.offset
    if isinstance(base, Symbol):
        return lambda active: np.full(active.count, offset, np.int64)
    return lambda active: active.per_thread(active.read(base.name)).astype(np.int64) + offset


def _parts(operand: Operand) -> tuple[Operand, ...]:
    return operand.parts if isinstance(operand, Vector) else (operand,)


def memory_of(active: ActiveThreads, instruction: Instruction, addresses: Any, allowed: Threads) -> tuple[Memory, Any]:
    """Returns the memory that an instruction accesses, and the addresses in it; each program has its own shared memory."""
    if "shared" in instruction.modifiers:
        return active.running.shared, addresses + active.select(active.running.slot)[allowed] * SHARED_WINDOW
    return active.running.launch.memory, addresses


def _record(active: ActiveThreads, instruction: Instruction, allowed: Threads, addresses: Any, size: int, kind: int) -> None:
    if "shared" in instruction.modifiers:
        return
    running = active.running
    of = [active.select(values)[allowed] for values in (running.program, running.thread, running.barriers)]
    running.accesses.add(instruction, addresses, *of, size=size, kind=kind)


def with_location(instruction: Instruction, step: Step) -> Step:
    """Returns a step whose memory faults name the kernel and the instruction."""

    def explained(active: ActiveThreads) -> None:
        try:
            step(active)
        except MemoryFaultError as fault:
            raise MemoryFaultError(f"{active.running.launch.kernel.name}: {fault}; at: {instruction.text}") from None

    return explained


def load(instruction: Instruction) -> Step:
    """``ld``: load from a parameter, global or shared memory; where the guard is false, registers keep their values."""
    if instruction.modifiers[0] == "param":
        return _load_parameter(instruction)
    size, parts = int(instruction.type[1:]) // 8, _parts(instruction.operands[0])
    address = address_of(instruction, instruction.operands[1])

    def step(active: ActiveThreads) -> None:
        allowed = _allowed(active, instruction)
        memory, addresses = memory_of(active, instruction, address(active)[allowed], allowed)
        values = memory.read(addresses, size, len(parts))
        _record(active, instruction, allowed, addresses, size * len(parts), accesses.READ)
        for part, value in zip(parts, values, strict=True):
            if isinstance(part, Register):
                active.write_some(part.name, allowed, value)

    return with_location(instruction, step)


def _load_parameter(instruction: Instruction) -> Step:
    target, (place,) = instruction.target, instruction.sources
    if not (isinstance(target, Register) and isinstance(place, Address)) or place.offset:
        raise UnknownInstructionError(instruction)
    kind = instruction.type

    def step(active: ActiveThreads) -> None:
        size = int(kind[1:]) // 8
        bits = UNSIGNED[size](active.running.parameters[place.base.name] & ((1 << 8 * size) - 1))
        width = active.running.launch.kernel.width(target.name) // 8
        if width != size:  # The register may be wider than the parameter.
            wide = np.int64(bits.view(np.int32)) if kind[0] == "s" else np.int64(bits)
            bits = wide.view(np.uint64)
        active.write(target.name, bits)

    return step


def store(instruction: Instruction) -> Step:
    """``st``: store to global or shared memory."""
    place, value = instruction.operands
    size, parts = int(instruction.type[1:]) // 8, _parts(value)
    address = address_of(instruction, place)
    sources = [operand_reader(instruction, 0, part) for part in parts]

    def step(active: ActiveThreads) -> None:
        allowed = _allowed(active, instruction)
        memory, addresses = memory_of(active, instruction, address(active)[allowed], allowed)
        memory.write(addresses, size, [active.per_thread(source(active))[allowed] for source in sources])
        _record(active, instruction, allowed, addresses, size * len(parts), accesses.WRITE)

    return with_location(instruction, step)


def atomic(instruction: Instruction) -> Step:
    """``atom`` and ``red`` with the maximum, in a random order of threads."""
    if "max" not in instruction.modifiers or instruction.type not in ("s32", "s64", "u32", "u64"):
        raise UnknownInstructionError(instruction)
    place, operand = instruction.sources
    address, source = address_of(instruction, place), operand_reader(instruction, 0, operand)
    size = int(instruction.type[1:]) // 8
    kind = np.dtype(f"{'i' if instruction.type[0] == 's' else 'u'}{size}")

    def step(active: ActiveThreads) -> None:
        allowed = _allowed(active, instruction)
        memory, addresses = memory_of(active, instruction, address(active)[allowed], allowed)
        values = active.per_thread(source(active))[allowed].view(kind)
        found = memory.maximum(addresses, values, active.running.rng.permutation(len(allowed)))
        _record(active, instruction, allowed, addresses, size, accesses.ATOMIC)
        if isinstance(instruction.target, Register):
            active.write_some(instruction.target.name, allowed, found.view(UNSIGNED[size]))

    return with_location(instruction, step)
