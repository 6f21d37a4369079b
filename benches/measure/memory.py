"""Peak memory above the inputs, to the byte.

On a CPU the framework's profiler reports each allocation and release of its allocator; their running sum, from a call's start, has a
maximum that is the same on every run and every heap. The process's resident size is neither: it depends on what the C library keeps, and is
8 % larger here even on a heap that was trimmed before. What a contender allocates outside of the framework is not seen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """The most that ``call`` held at a time, above what there was before it; what it leaves behind (gradients) counts."""
    if device != "cpu":
        return _peak_device(call)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _peak_device(call: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated()) - before
