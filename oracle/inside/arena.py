"""Memory that the judge and the process of a candidate share: tensors lie in it at places that messages name.

Both sides map the same file descriptor. A place is ``[offset, dtype, shape]``, such as ``[64, "float32", [2, 3]]``. Either side may let
the memory grow; tensors of an earlier mapping stay readable.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Place = list[Any]
ALIGNMENT = 64
GROWTH = 1.5
POISON = 0xFF
"""Byte that fills the memory between calls: floating-point numbers of it are NaN, integers are -1."""


class ArenaError(ValueError):
    """A place lies outside of the memory, or names no dtype."""


class Arena:
    """Shared memory.

    Args:
        descriptor: file descriptor of the memory.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.size, self.filled = descriptor, 0, 0
        self._map: mmap.mmap | None = None

    def reserve(self, size: int) -> None:
        """Makes the memory at least so many bytes large."""
        if os.fstat(self.descriptor).st_size < size:
            os.ftruncate(self.descriptor, -(-int(size * GROWTH) // mmap.PAGESIZE) * mmap.PAGESIZE)
        self._remap(size)

    def _remap(self, size: int) -> None:
        if self._map is None or self.size < size:
            self.size = os.fstat(self.descriptor).st_size
            if self.size < max(size, 1):
                raise ArenaError(f"the shared memory has {self.size} bytes; {size} were named")
            self._map = mmap.mmap(self.descriptor, self.size)

    def put(self, tensor: Tensor, offset: int) -> tuple[Place, int]:
        """Copies a tensor to an offset; returns its place, and the first free offset after it."""
        start = -(-offset // ALIGNMENT) * ALIGNMENT
        end = start + tensor.numel() * tensor.element_size()
        place = [start, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        self.reserve(max(end, 1))
        self.view(place).copy_(tensor.detach())
        return place, end

    def view(self, place: Place) -> Tensor:
        """Returns the tensor at a place, which shares its memory.

        Raises:
            ArenaError: the place is none.
        """
        start, dtype, shape = _checked(place)
        count = math.prod(shape)
        if not count:
            return torch.empty(shape, dtype=dtype)
        self._remap(start + count * dtype.itemsize)
        assert self._map is not None
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=start).view(shape)

    def poison(self, end: int) -> None:
        """Fills the memory up to an offset with :data:`POISON`, so that whatever still reads it shows."""
        if self._map is not None and end:
            self.filled = min(end, self.size)
            torch.frombuffer(self._map, dtype=torch.uint8, count=self.filled).fill_(POISON)

    def poisoned(self) -> bool:
        """Whether the memory that was poisoned last still is."""
        if self._map is None or not self.filled:
            return True
        words = torch.frombuffer(self._map, dtype=torch.int64, count=self.filled // 8)
        return bool((words == -1).all())


def _checked(place: Any) -> tuple[int, torch.dtype, Sequence[int]]:
    """Returns offset, dtype and shape of a place, which the other side may have made up."""
    try:
        start, name, shape = place
        dtype = getattr(torch, name)
        sound = isinstance(dtype, torch.dtype) and all(type(one) is int and one >= 0 for one in (start, *shape))
    except (TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise ArenaError(f"{place!r} is no place in the shared memory")
    return start, dtype, tuple(shape)
