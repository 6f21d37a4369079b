"""Peak memory above the inputs, to the byte.

On a CPU PyTorch's profiler reports each allocation and release of its allocator. The peak is the maximum of their running sum from the
call's start: it is the same in every run and on every heap. The resident size of the process depends on what the C library keeps: it was
8 % larger even on a heap that was trimmed before. Memory that a contender allocates outside of PyTorch is not counted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """Returns the most bytes that ``call`` held at a time, above those held before it; its gradients are included."""
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
