"""Memory of the compiled kernels, with checks of bounds and alignment."""

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
    """An access is out of bounds or misaligned; the message names thread, size and address."""


@dataclass(frozen=True)
class Region:
    """Bytes that may be accessed, from the address ``start`` on."""

    start: int
    data: NDArray[np.uint8]

    @property
    def end(self) -> int:
        """The first address after the region."""
        return self.start + len(self.data)

    def elements(self, size: int) -> tuple[Values, int]:
        """Returns the region as aligned unsigned numbers of ``size`` bytes, and the address of the first one."""
        skipped = -self.start % size
        count = max(len(self.data) - skipped, 0) // size
        return self.data[skipped : skipped + count * size].view(UNSIGNED[size]), self.start + skipped


class Memory:
    """Regions that are read and written by address."""

    def __init__(self, regions: Iterable[Region]) -> None:
        self.regions = sorted(regions, key=lambda region: region.start)
        self._starts = np.array([region.start for region in self.regions], np.int64)
        self._ends = np.array([region.end for region in self.regions], np.int64)

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> Memory:
        """Returns the memory of tensors: a region from the first element to the last of each; overlapping tensors share a region."""
        spans = sorted(_span(tensor) for tensor in tensors if tensor.numel())
        merged: list[tuple[int, int]] = []
        for start, end in spans:
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return cls(Region(start, np.frombuffer((ctypes.c_uint8 * (end - start)).from_address(start), np.uint8)) for start, end in merged)

    def read(self, addresses: Addresses, size: int, count: int) -> list[Values]:
        """Returns ``count`` adjacent numbers of ``size`` bytes from each address.

        Raises:
            MemoryFaultError: an access is out of bounds, or its address is no multiple of its size.
        """
        where = self._located(addresses, size, count)
        answers = [np.zeros(len(addresses), UNSIGNED[size]) for _ in range(count)]
        for region, chosen, index in where:
            for k, answer in enumerate(answers):
                answer[chosen] = region[index + k]
        return answers

    def write(self, addresses: Addresses, size: int, values: list[Values]) -> None:
        """Write adjacent numbers at each address; where several threads write one address, the last one wins.

        Raises:
            MemoryFaultError: as for :meth:`read`.
        """
        for region, chosen, index in self._located(addresses, size, len(values)):
            for k, value in enumerate(values):
                region[index + k] = value[chosen]

    def maximum(self, addresses: Addresses, values: Values, order: NDArray[np.intp]) -> Values:
        """Replace numbers by their maximum with the threads' values, one thread after the other; returns what each thread read.

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
        """Returns the accessed regions as numbers, each with the threads that access it and their indices."""
        if len(addresses) == 0:
            return []
        if (misaligned := addresses % (size * count) != 0).any():
            at = int(misaligned.argmax())
            raise MemoryFaultError(f"thread {at} accesses {size * count} bytes at {addresses[at]:#x}, which is not a multiple of the size")
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
    """Returns all tensors among a launch's arguments, including those in tuples."""
    if isinstance(arguments, tuple | list):
        return [tensor for each in arguments for tensor in tensors_of(each)]
    return [arguments] if isinstance(arguments, torch.Tensor) else []
