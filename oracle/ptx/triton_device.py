"""Runs Triton's launches without a GPU: compiles each kernel for an architecture, and interprets its PTX on tensors of the host."""

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
    """The result of a launch depends on the order of threads; the message names the kernel and the instructions."""


@dataclass
class Device:
    """A simulated GPU.

    Attributes:
        capability: compute capability × 10.
        seed: seed of the orders that a device does not define; each launch draws new ones.
        look_for_races: whether every launch is searched for races.
        programs: function from the size of a grid to the programs that run.
        watch: called with the name and accesses of each launch.
        launches: number of launches so far.
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
            RaceError: its result depends on the order of threads.
            MemoryFaultError: it accesses memory outside of its tensors, or a misaligned address.
        """
        kernel, programs = _parsed(compiled.asm["ptx"]), grid[0]
        flat = list(_flat(arguments, compiled.src))
        scratch = len(kernel.parameters) - len(flat)  # Parameters for Triton's scratch memory, which none of these kernels uses.
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
    """Within the block every launch of a Triton kernel runs on this device, on tensors of the host."""
    with accept_host_tensors(), compiling_for(device.capability, device.launch):
        yield device


def accept_host_tensors() -> AbstractContextManager[Any]:
    """Within the block the Triton backend accepts tensors of the host."""
    return patch.object(availability, "_why_not_device", lambda _: None)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Kernel:
    return parse(text)


def _flat(arguments: Any, source: Any) -> Iterator[tuple[Any, str]]:
    """Yields values and types of run-time arguments in the order in which Triton passes them: tuples are flattened, constants left out."""
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
    """Returns the bits of a parameter of one of Triton's types.

    Raises:
        ValueError: the type is not supported.
    """
    if isinstance(value, Tensor):
        return value.data_ptr()
    if kind == "fp32":
        return int(struct.unpack("<I", struct.pack("<f", value))[0])
    if kind in ("i32", "i64", "u32", "u64", "i1"):
        return int(value) & ((1 << 64) - 1)
    raise ValueError(f"a parameter has the type {kind!r}, which is not supported")
