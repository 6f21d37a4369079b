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
from oracle.ptx.threads import Frame, Step, Wave

LANES = 16384  # Threads that run together, at most; one program, at least.


def run(launch: Launch) -> Accesses:
    """Run a launch to its end; what it did to memory.

    Raises:
        MemoryFaultError: an access out of bounds, or not aligned.
        DivergenceError: a barrier or an exchange among threads of which some are elsewhere.
        UnknownInstructionError: an instruction that the machine does not know.
    """
    chance = np.random.default_rng(launch.seed)
    order = chance.permutation(np.asarray(launch.only))
    done = Accesses()
    together = max(LANES // launch.threads, 1)
    with np.errstate(all="ignore"):
        for start in range(0, len(order), together):
            _run_together(Wave(launch, order[start : start + together], chance, done))
    return done


def _run_together(wave: Wave) -> None:
    code = _code(wave.launch.kernel)
    while (block := int(wave.at.min())) < len(code):
        here = wave.at == block
        wave.at[here] = block + 1
        frame = Frame(wave, np.flatnonzero(here))
        for step in code[block]:
            step(frame)
        frame.leave()


@lru_cache(maxsize=256)
def _code(kernel: Kernel) -> list[list[Step]]:
    """What each instruction of each block does."""
    return [[step_of(instruction) for instruction in block.instructions] for block in kernel.blocks]
