"""Memory as the compiled kernels address it, with the checks that a GPU's sanitizer makes: bounds, alignment, and who else was there."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.ptx.register_types import UNSIGNED

Addresses = NDArray[np.int64]
Values = NDArray[np.unsignedinteger]


class MemoryFaultError(RuntimeError):
    """An access that a GPU answers with an error, or with bytes that are not meant."""


@dataclass(frozen=True)
class Region:
    """Bytes that may be accessed, from an address on."""

    start: int
    data: NDArray[np.uint8]

    @property
    def end(self) -> int:
        """The first address beyond."""
        return self.start + len(self.data)

    def elements(self, size: int) -> tuple[Values, int]:
        """The region as aligned unsigned numbers of so many bytes, and the first one's address."""
        skipped = -self.start % size
        count = max(len(self.data) - skipped, 0) // size
        return self.data[skipped : skipped + count * size].view(UNSIGNED[size]), self.start + skipped


class Memory:
    """A few regions, read and written by address."""

    def __init__(self, regions: Iterable[Region]) -> None:
        self.regions = sorted(regions, key=lambda region: region.start)
        self._starts = np.array([region.start for region in self.regions], np.int64)
        self._ends = np.array([region.end for region in self.regions], np.int64)

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> Memory:
        """The bytes from each tensor's first element to its last; where tensors lie within one another, they are one region."""
        spans = sorted(_span(tensor) for tensor in tensors if tensor.numel())
        merged: list[tuple[int, int]] = []
        for start, end in spans:
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return cls(Region(start, np.frombuffer((ctypes.c_uint8 * (end - start)).from_address(start), np.uint8)) for start, end in merged)

    def read(self, addresses: Addresses, size: int, count: int) -> list[Values]:
        """``count`` neighbours of ``size`` bytes from each address.

        Raises:
            MemoryFaultError: out of bounds, or not aligned to the whole access.
        """
        where = self._located(addresses, size, count)
        answers = [np.zeros(len(addresses), UNSIGNED[size]) for _ in range(count)]
        for region, chosen, index in where:
            for k, answer in enumerate(answers):
                answer[chosen] = region[index + k]
        return answers

    def write(self, addresses: Addresses, size: int, values: list[Values]) -> None:
        """Write neighbours at each address; of several at one, the last stays.

        Raises:
            MemoryFaultError: as for :meth:`read`.
        """
        for region, chosen, index in self._located(addresses, size, len(values)):
            for k, value in enumerate(values):
                region[index + k] = value[chosen]

    def maximum(self, addresses: Addresses, values: Values, order: NDArray[np.intp]) -> Values:
        """Put the larger of what is there and what comes, one thread after the other in this order; what each found.

        Raises:
            MemoryFaultError: as for :meth:`read`.
        """
        found = np.zeros_like(values)
        for region, chosen, index in self._located(addresses, values.dtype.itemsize, 1):
            signed = region.view(values.dtype)
            places = np.full(len(addresses), -1, np.int64)
            places[chosen] = index
            for thread in order[places[order] >= 0]:
                found[thread] = signed[places[thread]]
                signed[places[thread]] = max(found[thread], values[thread])
        return found

    def _located(self, addresses: Addresses, size: int, count: int) -> list[tuple[Values, NDArray[np.bool_] | slice, NDArray[np.int64]]]:
        """Regions as numbers, with the threads that go there and their indices."""
        if len(addresses) == 0:
            return []
        if (misaligned := addresses % (size * count) != 0).any():
            at = int(misaligned.argmax())
            raise MemoryFaultError(f"thread {at} accesses {size * count} bytes at {addresses[at]:#x}, which is not a multiple of that")
        region = np.searchsorted(self._starts, addresses, side="right") - 1
        outside = (region < 0) | (addresses + size * count > self._ends[region])
        if outside.any():
            raise MemoryFaultError(self._outside(int(addresses[outside.argmax()]), int(outside.argmax()), size * count))
        first = region[0]
        if (region == first).all():
            return [self._of_region(first, addresses, size, slice(None))]
        return [self._of_region(each, addresses, size, region == each) for each in np.unique(region)]

    def _of_region(
        self, number: int, addresses: Addresses, size: int, chosen: NDArray[np.bool_] | slice
    ) -> tuple[Values, NDArray[np.bool_] | slice, NDArray[np.int64]]:
        elements, start = self.regions[number].elements(size)
        return elements, chosen, (addresses[chosen] - start) // size

    def _outside(self, address: int, thread: int, size: int) -> str:
        nearest = min(self.regions, key=lambda region: min(abs(address - region.start), abs(address - region.end)), default=None)
        near = f"; the nearest memory is {nearest.start:#x} to {nearest.end:#x}" if nearest else ""
        return f"thread {thread} accesses {size} bytes at {address:#x}, outside everything that the launch was given{near}"


def _span(tensor: Tensor) -> tuple[int, int]:
    last = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def tensors_of(arguments: object) -> list[Tensor]:
    """All tensors among a launch's arguments, those in tuples too."""
    if isinstance(arguments, tuple | list):
        return [tensor for each in arguments for tensor in tensors_of(each)]
    return [arguments] if isinstance(arguments, torch.Tensor) else []
