"""Finds the library that serves this machine: one that was installed, else one that is compiled where TWINLOSS_BUILD=1 asks for it."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from twinloss.backends.native.build import build
from twinloss.backends.native.compiler import NoLibraryError
from twinloss.backends.native.instruction_sets import BY_MACHINE, LIBRARIES, PROCESSOR

Loaded = TypeVar("Loaded")

_ON, _OFF = {"1", "true", "on", "yes", "y"}, {"0", "false", "off", "no", "n"}


class CpuKernels(NamedTuple):
    """The compiled kernels that serve on a CPU.

    Attributes:
        instruction_set: "avx512", "avx2", "baseline" or "neon".
        path: the library.
        origin: "installed" with twinloss, or "compiled" on this machine.
    """

    instruction_set: str
    path: Path
    origin: Literal["installed", "compiled"]


def find(load: Callable[[Path], Loaded]) -> tuple[Loaded, CpuKernels]:
    """Load the library of the best instruction set that this machine runs, or of the one that TWINLOSS_ISA names.

    Args:
        load: loads a library; raises OSError if it cannot be loaded.

    Raises:
        NoLibraryError: there is none, or it cannot be loaded; the message gives the remedy.
    """
    if _installed(PROCESSOR).is_file():
        name = choose(_bits(_installed(PROCESSOR)))
        path = _installed(name)
        try:
            return load(path), CpuKernels(name, path, "installed")
        except OSError as error:
            raise NoLibraryError(
                f"the CPU kernels that were installed cannot be loaded: {error}; install twinloss again, or use backend='torch'"
            ) from error
    if not switched_on("TWINLOSS_BUILD", default=False):
        raise NoLibraryError(
            f"twinloss was installed without CPU kernels for {platform.system()} on {platform.machine()}; install a wheel that has them, or "
            "set TWINLOSS_BUILD=1 to compile them with this machine's C++ compiler, or use backend='torch'"
        )
    name = choose(build(PROCESSOR, _bits))
    loaded, path = build(name, lambda path: (load(path), path))
    return loaded, CpuKernels(name, path, "compiled")


def choose(bits: int) -> str:
    """The instruction set that serves: the one that TWINLOSS_ISA names, else the best that the machine runs.

    Args:
        bits: what ``processor.cpp`` found.

    Raises:
        NoLibraryError: there are no kernels for the machine, or TWINLOSS_ISA names none, or one that the machine does not run.
    """
    machine = platform.machine()
    known = BY_MACHINE.get(machine, {})
    runs = [name for name, found in known.items() if found.bit & bits == found.bit]
    asked = os.environ.get("TWINLOSS_ISA", "").strip().lower()
    if not runs:
        raise NoLibraryError(f"there are no CPU kernels for {machine}; use backend='torch'")
    if asked and asked not in known:
        raise NoLibraryError(f"TWINLOSS_ISA is {asked!r}, and {machine} has {', '.join(known)}; name one of them, or unset it")
    if asked and asked not in runs:
        raise NoLibraryError(f"TWINLOSS_ISA is {asked!r}, which this machine does not run; name one of {', '.join(runs)}, or unset it")
    return asked or runs[0]


def switched_on(variable: str, default: bool) -> bool:
    """Whether an environment variable switches something on: 1 or 0, true or false, on or off, yes or no.

    Raises:
        NoLibraryError: it says neither.
    """
    said = os.environ.get(variable, "").strip().lower()
    if said and said not in _ON | _OFF:
        raise NoLibraryError(f"{variable} is {said!r}; set it to 1 or 0, or unset it")
    return said in _ON if said else default


def _installed(name: str) -> Path:
    return LIBRARIES / f"{name}.so"


def _bits(path: Path) -> int:
    """What the machine runs, as the library at ``path`` finds.

    Raises:
        OSError: it cannot be loaded.
        NoLibraryError: it is another library.
    """
    try:
        return int(ctypes.CDLL(str(path)).twinloss_processor())
    except AttributeError as error:
        raise NoLibraryError(f"the library {path} lacks a function: {error}; delete that file, or use backend='torch'") from error
