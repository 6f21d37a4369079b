"""``pytest -p oracle.ptx.plugin properties/tests/kernels``: runs the tests on the kernels' compiled code.

``PTX_CAPABILITY`` is the compute capability × 10 (90 by default), ``PTX_SEED`` the seed of the orders that a device does not define.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

import pytest
import torch

from oracle.ptx.triton_device import Device, running_on

LONG, EDGE = 100_000, 4  # Size from which only some programs of a grid run, and how many of them at each end.
UNDO = pytest.StashKey[ExitStack]()


def both_ends_and_the_middle(programs: int) -> Sequence[int]:
    """Returns the programs that run: all, or those at the ends and in the middle of a long grid, where the kind of work changes."""
    if programs < LONG:
        return range(programs)
    middle = programs // 2
    return (*range(EDGE), *range(middle - EDGE, middle + EDGE), *range(programs - EDGE, programs))


def pytest_configure(config: pytest.Config) -> None:
    """Run every launch in the interpreter from here on: before test modules are imported, since they check for a usable device."""
    capability, seed = (int(os.environ.get(name, default)) for name, default in (("PTX_CAPABILITY", "90"), ("PTX_SEED", "0")))
    undo = config.stash[UNDO] = ExitStack()
    undo.enter_context(running_on(Device(capability, seed, programs=both_ends_and_the_middle)))
    torch.use_deterministic_algorithms(True, warn_only=True)  # Fills torch.empty with NaN, so that reads of uninitialised memory show.
    undo.callback(torch.use_deterministic_algorithms, False)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Restore Triton's launches."""
    config.stash[UNDO].close()
