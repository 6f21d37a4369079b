"""One launch of a kernel, as the machine runs it."""

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
        programs: of the grid.
        threads: of a program.
        shared_bytes: of a program.
        arguments: bits of each parameter.
        memory: what the parameters point at.
        seed: decides what a device leaves open.
        only: the programs that run.
    """

    kernel: Kernel
    programs: int
    threads: int
    shared_bytes: int
    arguments: Sequence[int]
    memory: Memory
    seed: int
    only: Sequence[int]
