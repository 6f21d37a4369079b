"""The state of threads that run together: registers, shared memory, position in the code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle.ptx.access_log import WARP, Accesses
from oracle.ptx.launch import Launch
from oracle.ptx.memory import Memory, Region
from oracle.ptx.parser import Immediate, Instruction, Operand, Register
from oracle.ptx.register_types import UNSIGNED, Bits, UnknownInstructionError, immediate

SHARED_WINDOW = 1 << 20  # Distance between the shared memories of two programs.
UNWRITTEN = 0xA5  # Initial value of every byte of registers and shared memory, so that reads before a write show.
Threads = NDArray[np.int64]


class DivergenceError(RuntimeError):
    """Some threads did not reach an instruction that all threads of a program or warp must execute together."""


class RunningPrograms:
    """Programs that run together: registers of all their threads, and the next block of each thread."""

    def __init__(self, launch: Launch, programs: Threads, rng: np.random.Generator, accesses: Accesses) -> None:
        self.launch, self.rng, self.accesses = launch, rng, accesses
        count = len(programs) * launch.threads
        self.lanes = np.arange(count)
        self.program = np.repeat(programs, launch.threads)
        self.slot = self.lanes // launch.threads  # Number of the program among those that run together.
        self.thread = self.lanes % launch.threads
        self.next_block = np.zeros(count, np.int64)
        self.barriers = np.zeros(count, np.int64)
        self.registers: dict[str, Bits] = {
            "%tid.x": self.thread.astype(np.uint32),
            "%ctaid.x": self.program.astype(np.uint32),
            "%nctaid.x": np.uint32(launch.programs),
            "%ntid.x": np.uint32(launch.threads),
            "%laneid": (self.thread % WARP).astype(np.uint32),
        }
        self.parameters = dict(zip(launch.kernel.parameters, launch.arguments, strict=True))
        windows = range(len(programs)) if launch.shared_bytes else ()
        self.shared = Memory(Region(k * SHARED_WINDOW, np.full(launch.shared_bytes, UNWRITTEN, np.uint8)) for k in windows)


@dataclass
class ActiveThreads:
    """The threads ``lanes`` of running programs, which execute a block together."""

    running: RunningPrograms
    lanes: Threads
    local: dict[str, Bits] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        """The number of active threads."""
        return len(self.lanes)

    @property
    def all_active(self) -> bool:
        """Whether all threads of the running programs are active."""
        return len(self.lanes) == len(self.running.lanes)

    def select(self, values: Any) -> Any:
        """Returns the elements of the active threads, from values with one element for each running thread."""
        return values if self.all_active or np.ndim(values) == 0 else values[self.lanes]

    def read(self, register: str) -> Bits:
        """Returns the bits of a register: one element for each active thread, or one for all."""
        if register not in self.local:
            self.local[register] = self.select(self._stored(register))
        return self.local[register]

    def write(self, register: str, bits: Bits) -> None:
        """Set a register of all active threads."""
        self.local[register] = bits
        self.written.add(register)

    def write_some(self, register: str, allowed: Threads, values: Bits) -> None:
        """Set a register of some active threads, given by position; the others keep its value."""
        bits = np.array(self.per_thread(self.read(register)))
        bits[allowed] = values
        self.write(register, bits)

    def per_thread(self, bits: Bits) -> Bits:
        """Returns bits with one element for each active thread."""
        return bits if np.ndim(bits) else np.full(self.count, bits)

    def write_back(self) -> None:
        """Store the registers that other blocks, or the next run of this block, can read."""
        for name in self.written & self.running.launch.kernel.shared_between_blocks:
            if self.all_active:
                self.running.registers[name] = self.local[name]
            else:
                stored = np.array(np.broadcast_to(self._stored(name), len(self.running.lanes)))
                stored[self.lanes] = self.local[name]
                self.running.registers[name] = stored

    def _stored(self, register: str) -> Bits:
        found = self.running.registers.get(register)
        if found is not None:
            return found
        width = self.running.launch.kernel.width(register)
        return np.bool_(True) if width == 1 else UNSIGNED[width // 8](int.from_bytes([UNWRITTEN] * (width // 8), "little"))

    def warps(self, instruction: Instruction) -> tuple[int, int]:
        """Returns the shape (warps, 32) of the active threads.

        Raises:
            DivergenceError: only part of a warp is active.
        """
        if self.count % WARP or (self.lanes.reshape(-1, WARP) != self.lanes[::WARP, None] + np.arange(WARP)).any():
            raise DivergenceError(f"some threads of a warp did not reach: {instruction.text}")
        return self.count // WARP, WARP


Step = Callable[[ActiveThreads], None]
OperandReader = Callable[[ActiveThreads], Bits]


def operand_reader(instruction: Instruction, position: int, operand: Operand) -> OperandReader:
    """Returns the function that reads an operand: a register, or an immediate number."""
    if isinstance(operand, Immediate):
        value = immediate(instruction, position, operand)
        return lambda _: value
    if isinstance(operand, Register):
        return lambda active: active.read(operand.name)
    raise UnknownInstructionError(instruction)
