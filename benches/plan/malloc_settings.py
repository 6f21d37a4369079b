"""malloc settings of a worker: the C library's defaults, or a heap that keeps its memory.

With glibc's defaults a large temporary is mapped when it is allocated, unmapped when it is freed, and its pages are faulted in, zeroed
by the kernel, on first touch, in every call. This can double the time of a program that allocates much, and can vanish although no code
changed. Each measurement therefore names its heap and counts the faults. The settings are read once, at process start.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Mapping
from typing import Literal

Heap = Literal["steady", "default"]
HEAPS: tuple[Heap, ...] = ("steady", "default")

# No allocation is mapped separately, none is returned to the system, and the heap grows in large steps, so that a warm-up ends its growth.
_STEADY = {"MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(256 << 20)}


def environment(heap: Heap, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns ``base`` (this process's environment by default) with the settings of ``heap`` and without other allocator settings."""
    inherited = os.environ if base is None else base
    kept = {name: value for name, value in inherited.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))}
    return kept | (_STEADY if heap == "steady" else {})


def minor_faults() -> int:
    """Returns how many pages were mapped into this process since its start without reading from a disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def c_library() -> str:
    """Returns name and version of the C library that provides malloc."""
    return " ".join(platform.libc_ver()).strip() or "unknown C library"
