"""The accesses of a launch to global memory: races between threads, and the sectors that warps access."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle.ptx.parser import Instruction

READ, WRITE, ATOMIC = 1, 2, 4
UNIT = 2  # Bytes of the smallest access.
SECTOR = 32  # Bytes that a GPU accesses together.
WARP = 32
Column = NDArray[np.int64]


@dataclass
class Accesses:
    """All accesses of a launch, in columns; each call of :meth:`add` records one instruction of many threads."""

    instructions: list[str] = field(default_factory=list)
    _parts: list[tuple[Any, ...]] = field(default_factory=list)
    _same: list[tuple[int, int]] = field(default_factory=list)

    def add(self, instruction: Instruction, address: Any, program: Any, thread: Any, barriers: Any, *, size: int, kind: int) -> None:
        """Record that these threads accessed ``size`` bytes each at these addresses, after passing so many barriers."""
        self.instructions.append(instruction.text)
        self._parts.append((address, program, thread, barriers))
        self._same.append((size, kind))

    def columns(self) -> dict[str, Column]:
        """Returns address, program, thread, barriers passed, size, kind and step of every access."""
        lengths = [len(part[0]) for part in self._parts]
        named = dict(zip(("address", "program", "thread", "barriers"), map(np.concatenate, zip(*self._parts, strict=True)), strict=True))
        for name, values in zip(("size", "kind"), np.array(self._same).T, strict=True):
            named[name] = np.repeat(values, lengths)
        return named | {"step": np.repeat(np.arange(len(lengths)), lengths)}

    def races(self) -> list[str]:
        """Returns descriptions of races, up to three between programs and three within a program.

        Two accesses of one address race where at least one writes, not both are atomic, and nothing orders them: they are of two programs,
        or of two threads of one program without a barrier between them.
        """
        if not self._parts:
            return []
        units = _units(self.columns())
        between = _conflicts([units["unit"]], units["program"], units["kind"])
        within = _conflicts([units["unit"], units["program"], units["barriers"]], units["thread"], units["kind"])
        found = [("two programs", at) for at in between[:3]] + [("two threads of a program", at) for at in within[:3]]
        return [self._description(units, owner, int(units["unit"][at])) for owner, at in found]

    def _description(self, units: dict[str, Column], owner: str, unit: int) -> str:
        texts = sorted({self.instructions[step] for step in units["step"][units["unit"] == unit]})
        return f"{owner} race at {unit * UNIT:#x}: {'; '.join(texts)}"

    def byte_counts(self) -> tuple[int, int]:
        """Returns the bytes that threads accessed, and the bytes of their sectors, each counted once for each warp and instruction."""
        asked = sectors = 0
        for (address, program, thread, _), (size, _) in zip(self._parts, self._same, strict=True):
            warp = np.stack([program, thread // WARP])
            ends = [np.vstack([warp, place // SECTOR]) for place in (address, address + size - 1)]
            asked += size * len(address)
            sectors += np.unique(np.hstack(ends), axis=1).shape[1]
        return asked, sectors * SECTOR


def _units(columns: dict[str, Column]) -> dict[str, Column]:
    """Returns the columns with one element for each unit (:data:`UNIT` bytes) of each access."""
    count = columns["size"] // UNIT
    units = {name: np.repeat(column, count) for name, column in columns.items()}
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return units | {"unit": units["address"] // UNIT + within}


def _conflicts(place: list[Column], owner: Column, kind: Column) -> NDArray[np.intp]:
    """Returns one access of each place that several owners access, of which one writes, or one is atomic and another reads."""
    order = np.lexsort(place[::-1])
    changes = np.zeros(len(order), bool)
    changes[0] = True
    for column in place:
        changes[1:] |= np.diff(column[order]) != 0
    starts = np.flatnonzero(changes)
    several = np.minimum.reduceat(owner[order], starts) != np.maximum.reduceat(owner[order], starts)
    kinds = np.bitwise_or.reduceat(kind[order], starts)
    bad = several & ((kinds & WRITE != 0) | (kinds == READ | ATOMIC))
    found: NDArray[np.intp] = order[starts[bad]]
    return found
