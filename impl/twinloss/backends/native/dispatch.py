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
    name = choose(runnable())
    if _installed(PROCESSOR).is_file():
        path = _installed(name)
        return _of_installation(load, path), CpuKernels(name, path, "installed")
    loaded, path = build(name, lambda path: (load(path), path))
    return loaded, CpuKernels(name, path, "compiled")


def runnable() -> list[str]:
    """The instruction sets that this machine runs, the best first, as the library ``processor`` finds.

    Raises:
        NoLibraryError: there are no kernels for this kind of machine, or none were installed and TWINLOSS_BUILD=1 does not ask for any.
    """
    known = BY_MACHINE.get(platform.machine(), {})
    if not known:
        raise NoLibraryError(f"there are no CPU kernels for {platform.machine()}; use backend='torch'")
    bits = _of_installation(_bits, processor())
    return [name for name, found in known.items() if found.bit & bits == found.bit]


def processor() -> Path:
    """The library that says what the machine runs.

    Raises:
        NoLibraryError: it was not installed, and TWINLOSS_BUILD=1 does not ask for it, or it cannot be compiled.
    """
    if (path := _installed(PROCESSOR)).is_file():
        return path
    if switched_on("TWINLOSS_BUILD", default=False):
        return build(PROCESSOR, _checked)
    raise NoLibraryError(
        f"twinloss was installed without CPU kernels for {platform.system()} on {platform.machine()}; install a wheel that has them, "
        "or set TWINLOSS_BUILD=1 to compile them with this machine's C++ compiler, or use backend='torch'"
    )


def choose(runs: list[str]) -> str:
    """The instruction set that serves: the one that TWINLOSS_ISA names, else the first of those that the machine runs.

    Raises:
        NoLibraryError: TWINLOSS_ISA names none, or one that the machine does not run.
    """
    machine = platform.machine()
    known = BY_MACHINE[machine]
    asked = os.environ.get("TWINLOSS_ISA", "").strip().lower()
    if asked and asked not in known:
        raise NoLibraryError(
            f"TWINLOSS_ISA is {asked!r}, and {machine} has {', '.join(known)}; name one of them, unset it, or use backend='torch'"
        )
    if asked and asked not in runs:
        raise NoLibraryError(
            f"TWINLOSS_ISA is {asked!r}, which this machine does not run; name one of {', '.join(runs)}, unset it, or use backend='torch'"
        )
    return asked or runs[0]


def switched_on(variable: str, default: bool) -> bool:
    """Whether an environment variable switches something on: 1 or 0, true or false, on or off, yes or no.

    Raises:
        NoLibraryError: it says neither.
    """
    said = os.environ.get(variable, "").strip().lower()
    if said and said not in _ON | _OFF:
        raise NoLibraryError(f"{variable} is {said!r}; set it to 1 or 0, unset it, or use backend='torch'")
    return said in _ON if said else default


def _of_installation(load: Callable[[Path], Loaded], path: Path) -> Loaded:
    try:
        return load(path)
    except OSError as error:
        raise NoLibraryError(
            f"the CPU kernels that were installed cannot be loaded: {error}; install twinloss again, or use backend='torch'"
        ) from error


def _installed(name: str) -> Path:
    return LIBRARIES / f"{name}.so"


def _checked(path: Path) -> Path:
    """The path of a library that says what the machine runs; errors as for :func:`_bits`."""
    _bits(path)
    return path


def _bits(path: Path) -> int:
    """What the machine runs, as the library at ``path`` finds.

    Raises:
        OSError: it cannot be loaded.
        NoLibraryError: it is another library.
    """
    try:
        return int(ctypes.CDLL(str(path)).twinloss_processor())
    except AttributeError as error:
        raise NoLibraryError(f"the CPU kernels in {path} lack a function: {error}; delete that file, or use backend='torch'") from error
