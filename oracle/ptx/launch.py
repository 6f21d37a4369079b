"""One launch of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oracle.ptx.memory import Memory
from oracle.ptx.parser import Kernel


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: its code.
        programs: number of programs of the grid.
        threads: number of threads of a program.
        shared_bytes: shared memory of a program.
        arguments: the bits of each parameter.
        memory: global memory that the launch may access.
        seed: seed of the orders that a device does not define.
        only: numbers of the programs that run.
    """

    kernel: Kernel
    programs: int
    threads: int
    shared_bytes: int
    arguments: Sequence[int]
    memory: Memory
    seed: int
    only: Sequence[int]
