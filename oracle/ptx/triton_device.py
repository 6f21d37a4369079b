"""Triton's launches, caught: each kernel is compiled for an architecture, and its PTX is run here on tensors of the host."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from unittest.mock import patch

from torch import Tensor

from oracle.ptx.access_log import WARP, Accesses
from oracle.ptx.compile import compiling_for
from oracle.ptx.interpreter import run
from oracle.ptx.launch import Launch
from oracle.ptx.memory import Memory, tensors_of
from oracle.ptx.parser import Kernel, parse
from twinloss.backends.triton import availability


class RaceError(RuntimeError):
    """The outcome of a launch depends on who comes first."""


@dataclass
class Device:
    """A GPU that is not here.

    Attributes:
        capability: of the architecture, times ten.
        seed: of what a device leaves open; each launch draws from it anew.
        look_for_races: whether every launch is searched for races, which takes memory for each access.
        programs: which programs of a grid of so many run.
        watch: told of each launch's name and accesses.
    """

    capability: int = 90
    seed: int = 0
    look_for_races: bool = True
    programs: Callable[[int], Sequence[int]] = range
    watch: Callable[[str, Accesses], None] | None = None
    launches: int = field(default=0, init=False)

    def launch(self, compiled: Any, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        """Run one launch.

        Raises:
            RaceError: its outcome depends on who comes first.
            MemoryFaultError: it accesses what it was not given.
        """
        kernel, programs = _parsed(compiled.asm["ptx"]), grid[0]
        flat = list(_flat(arguments, compiled.src))
        scratch = len(kernel.parameters) - len(flat)  # Triton's own, which none of these kernels asks for.
        self.launches += 1
        done = run(
            Launch(
                kernel=kernel,
                programs=programs,
                threads=compiled.metadata.num_warps * WARP,
                shared_bytes=compiled.metadata.shared,
                arguments=[*(_bits(value, kind) for value, kind in flat), *[0] * scratch],
                memory=Memory.of(tensors_of(arguments)),
                seed=self.seed + self.launches,
                only=self.programs(programs),
            )
        )
        if self.watch:
            self.watch(kernel.name, done)
        if self.look_for_races and (races := done.races()):
            raise RaceError(f"{kernel.name}: " + "; ".join(races))


@contextmanager
def running_on(device: Device) -> Iterator[Device]:
    """Within, every launch of a Triton kernel runs on this device, whose tensors are the host's."""
    with accept_host_tensors(), compiling_for(device.capability, device.launch):
        yield device


def accept_host_tensors() -> AbstractContextManager[Any]:
    """Within, the Triton backend takes tensors of the host for those of a device that it can serve."""
    return patch.object(availability, "_why_not_device", lambda _: None)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Kernel:
    return parse(text)


def _flat(arguments: Any, source: Any) -> Iterator[tuple[Any, str]]:
    """Values and types of what is passed at run time, in the order in which Triton passes it: tuples' elements one by one, no constants."""
    names = source.fn.arg_names
    for at, (name, value) in enumerate(zip(names, arguments, strict=True)):
        yield from _flat_value(value, source.signature[name], (at,), source.constants)


def _flat_value(value: Any, kind: Any, path: tuple[int, ...], constants: dict[tuple[int, ...], Any]) -> Iterator[tuple[Any, str]]:
    if isinstance(kind, tuple | list):
        for at, (each, its) in enumerate(zip(value, kind, strict=True)):
            yield from _flat_value(each, its, (*path, at), constants)
    elif kind != "constexpr" and path not in constants:
        yield value, kind


def _bits(value: Any, kind: str) -> int:
    """The bits of a parameter of one of Triton's types.

    Raises:
        ValueError: a type that these kernels have none of.
    """
    if isinstance(value, Tensor):
        return value.data_ptr()
    if kind == "fp32":
        return int(struct.unpack("<I", struct.pack("<f", value))[0])
    if kind in ("i32", "i64", "u32", "u64", "i1"):
        return int(value) & ((1 << 64) - 1)
    raise ValueError(f"a parameter has the type {kind!r}, which is not known here")
