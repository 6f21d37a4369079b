"""The instruction sets that the kernels are compiled for, and the commands that compile them.

Every instruction set has a library of its own, and its code a namespace of its own. In one library the linker would keep one of several
equal inline functions, perhaps that of the widest registers, and the narrow variant would end at an illegal instruction. A small library
beside them, compiled for any processor, says what the machine runs.

This file imports the standard library alone: the hook that builds a wheel loads it by its path.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parent / "source"
LIBRARIES = Path(__file__).parent / "libraries"
"""Where a wheel has the libraries, one file each."""

PROCESSOR = "processor"
"""Name of the library that says what the machine runs."""

OPTIONS = (
    *("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-exceptions", "-fno-rtti", "-fvisibility=hidden"),
    "-ffp-contract=off",  # fused products would make the last bit depend on the processor and on what the compiler vectorises
    *("-Wno-psabi", "-Wno-unknown-pragmas"),
)


class InstructionSet(NamedTuple):
    """The compiler's options, and the bit with which ``processor.cpp`` says that a machine runs it; 0 where every machine does."""

    options: tuple[str, ...]
    bit: int = 0


BY_MACHINE: dict[str, dict[str, InstructionSet]] = {
    "x86_64": {
        "avx512": InstructionSet(("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mf16c"), 2),
        "avx2": InstructionSet(("-mavx2", "-mf16c"), 1),
        "baseline": InstructionSet(()),
    },
    "aarch64": {"neon": InstructionSet(("-mno-outline-atomics",))},
    "arm64": {"neon": InstructionSet(())},  # as macOS names it
}
"""Instruction sets of each kind of machine, as ``platform.machine()`` names it; the best first."""


def commands(
    compiler: Sequence[str], name: str, machine: str, made: Path, more: Sequence[str], parallel: str | None
) -> Iterator[list[str]]:
    """Yields the commands that compile a library to ``made``, with the objects beside it, in their order.

    Args:
        compiler: the command that runs it.
        name: an instruction set of the machine, or :data:`PROCESSOR`.
        machine: a key of :data:`BY_MACHINE`.
        made: the library.
        more: options after those of the package.
        parallel: "gcc" or "clang" for threads in its way, ``None`` for one thread.
    """
    single = name == PROCESSOR
    folder = SOURCE / PROCESSOR if single else SOURCE
    own = () if single else (*BY_MACHINE[machine][name].options, f"-Dtwinloss=twinloss_{name}")  # renames the namespace
    compiling, linking = ((), ()) if single or parallel is None else _threads(parallel)
    objects = []
    for file in sorted(folder.glob("*.cpp")):
        objects.append(str(made.with_name(f"{file.stem}.o")))
        yield [*compiler, *OPTIONS, *own, *compiling, *more, "-c", str(file), "-o", objects[-1]]
    yield [*compiler, *OPTIONS, *own, *linking, *more, *_shared(), *objects, "-o", str(made)]


def _threads(parallel: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Options of compiling and of linking for OpenMP.

    A library that is linked with an OpenMP runtime would bring a second one: its calls are left open, and torch's runtime answers them.
    What clang calls is not in the runtime that torch has on Linux.
    """
    if sys.platform == "darwin":
        return ("-Xclang", "-fopenmp"), ()
    return ("-fopenmp",), ("-fopenmp",) if parallel == "clang" else ()


def _shared() -> tuple[str, ...]:
    return ("-shared", "-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-shared", "-static-libgcc", "-Wl,--as-needed")
