"""A GPU's program, run on the host: many programs of a grid at once, one numpy operation an instruction.

Threads that are at the same block run together, those furthest behind first: so threads that parted meet again. What a device leaves open
is chosen here by chance: the order of programs, and that of atomic operations.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from oracle.ptx.access_log import Accesses
from oracle.ptx.instructions import step_of
from oracle.ptx.launch import Launch
from oracle.ptx.parser import Kernel
from oracle.ptx.threads import ActiveThreads, RunningPrograms, Step

LANES = 16384  # Threads that run together, at most; one program, at least.


def run(launch: Launch) -> Accesses:
    """Run a launch to its end; what it did to memory.

    Raises:
        MemoryFaultError: an access out of bounds, or not aligned.
        DivergenceError: a barrier or an exchange among threads of which some are elsewhere.
        UnknownInstructionError: an instruction that the machine does not know.
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
    """What each instruction of each block does."""
    return [[step_of(instruction) for instruction in block.instructions] for block in kernel.blocks]
