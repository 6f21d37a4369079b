"""Pseudo-random numbers with the same bits on every machine and with every release of numpy.

numpy guarantees a stable stream of its bit generators, but not of its distributions, and the last bit of a logarithm or cosine depends on
the processor. Here a bell curve is a sum of integers, which needs neither.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 16  # A working set of half a megabyte fits the cache.
_LOW_HALVES = np.uint64(0x0000FFFF0000FFFF)
_LOW_WORD = np.uint64(0xFFFFFFFF)
_MEAN = 2.0 * 0xFFFF
_DEVIATION = math.sqrt(4 * ((1 << 32) - 1) / 12)


class Noise:
    """A stream of pseudo-random numbers, identified by a seed and a stream number; each part of a recipe uses its own stream."""

    def __init__(self, seed: int, stream: int = 0) -> None:
        self._bits = np.random.Philox(key=np.array([seed % (1 << 64), stream], dtype=np.uint64))

    def bell(self, *shape: int) -> NDArray[np.float32]:
        """Returns numbers of mean 0 and deviation 1 within ±3.47: rescaled sums of four uniform 16-bit integers (Irwin-Hall)."""
        out = np.empty(math.prod(shape), dtype=np.float32)
        for start in range(0, out.size, _CHUNK):
            part = out[start : start + _CHUNK]
            raw = self._bits.random_raw(part.size)
            pairs = (raw & _LOW_HALVES) + ((raw >> np.uint64(16)) & _LOW_HALVES)
            total = (pairs & _LOW_WORD) + (pairs >> np.uint64(32))
            part[:] = (total.astype(np.int64) - _MEAN) / _DEVIATION
        return out.reshape(shape)

    def uniform(self, *shape: int) -> NDArray[np.float32]:
        """Returns uniform multiples of 2⁻²⁴ in [0, 1)."""
        raw = self._bits.random_raw(math.prod(shape)) >> np.uint64(40)
        return (raw.astype(np.float32) * np.float32(2.0**-24)).reshape(shape)

    def order(self, count: int) -> NDArray[np.int64]:
        """Returns a permutation of ``range(count)``."""
        return np.argsort(self._bits.random_raw(count), kind="stable").astype(np.int64)
