"""Runs a launch on the host: many programs of the grid at once, each instruction as one numpy operation over all their threads.

The threads whose next block is the earliest run first, all together, so that threads that diverged meet again. The orders that a device
does not define, of programs and of atomic operations, are drawn at random from the launch's seed.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from oracle.ptx.access_log import Accesses
from oracle.ptx.instructions import step_of
from oracle.ptx.launch import Launch
from oracle.ptx.parser import Kernel
from oracle.ptx.threads import ActiveThreads, RunningPrograms, Step

LANES = 16384  # Largest number of threads that run together; at least one program runs.


def run(launch: Launch) -> Accesses:
    """Run a launch to its end; returns its accesses to global memory.

    Raises:
        MemoryFaultError: an access is out of bounds or misaligned.
        DivergenceError: some threads did not reach a barrier or an exchange within a warp.
        UnknownInstructionError: an instruction is not implemented.
    """
    rng = np.random.default_rng(launch.seed)
    order = rng.permutation(np.asarray(launch.only))
    accesses = Accesses()
    together = max(LANES // launch.threads, 1)
    with np.errstate(all="ignore"):
        for start in range(0, len(order), together):
            _run_together(RunningPrograms(launch, order[start : start + together], rng, accesses))
    return accesses


def _run_together(running: RunningPrograms) -> None:
    code = _code(running.launch.kernel)
    while (block := int(running.next_block.min())) < len(code):
        here = running.next_block == block
        running.next_block[here] = block + 1
        active = ActiveThreads(running, np.flatnonzero(here))
        for step in code[block]:
            step(active)
        active.write_back()


@lru_cache(maxsize=256)
def _code(kernel: Kernel) -> list[list[Step]]:
    """Returns the steps of each block."""
    return [[step_of(instruction) for instruction in block.instructions] for block in kernel.blocks]
