"""The C library's heap under a worker: as users have it, or one that keeps its memory.

With glibc's defaults a large temporary is mapped when it is allocated, unmapped when it is freed, and its pages are faulted in, zeroed
by the kernel, on first touch: every call again. That can double the time of a program that allocates much, or vanish, with nothing in the
code changed. So a measurement says which heap it was taken on, and counts the faults. The variables are read when a process starts: a
heap is a process's.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Mapping
from typing import Literal

Heap = Literal["steady", "default"]
HEAPS: tuple[Heap, ...] = ("steady", "default")

# Nothing is mapped apart, nothing is handed back, and the heap grows in steps that a warm-up soon exhausts.
_STEADY = {
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(256 << 20),
}


def environment(heap: Heap, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process with this heap: ``base``, or this process's own, without other settings of the allocator."""
    inherited = os.environ if base is None else base
    kept = {name: value for name, value in inherited.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))}
    return kept | (_STEADY if heap == "steady" else {})


def minor_faults() -> int:
    """Pages that were mapped into this process without reading from a disk, since its start."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def c_library() -> str:
    """Name and version of the C library, whose allocator it is."""
    return " ".join(platform.libc_ver()).strip() or "unknown C library"
