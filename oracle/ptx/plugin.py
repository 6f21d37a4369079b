"""``pytest -p oracle.ptx.plugin properties/tests/kernels``: the kernels' own properties, on their compiled code instead of the interpreter.

``PTX_CAPABILITY`` names the architecture (90 when left out), ``PTX_SEED`` what a device leaves open.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

import pytest
import torch

from oracle.ptx.triton_device import Device, running_on

LONG, EDGE = 100_000, 4  # Programs of a grid of which only some run, and how many of them at each end.
UNDO = pytest.StashKey[ExitStack]()


def both_ends_and_the_middle(programs: int) -> Sequence[int]:
    """The programs that run: of a long grid those where one kind of work may end and another begin."""
    if programs < LONG:
        return range(programs)
    middle = programs // 2
    return (*range(EDGE), *range(middle - EDGE, middle + EDGE), *range(programs - EDGE, programs))


def pytest_configure(config: pytest.Config) -> None:
    """From here on every launch runs on the machine: before modules are collected, which ask whether the host serves."""
    capability, seed = (int(os.environ.get(name, default)) for name, default in (("PTX_CAPABILITY", "90"), ("PTX_SEED", "0")))
    undo = config.stash[UNDO] = ExitStack()
    undo.enter_context(running_on(Device(capability, seed, programs=both_ends_and_the_middle)))
    torch.use_deterministic_algorithms(True, warn_only=True)  # So that torch.empty is full of what must not matter.
    undo.callback(torch.use_deterministic_algorithms, False)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Launches go where they went before."""
    config.stash[UNDO].close()
