"""Memory above the inputs, to the byte: its peak, and what is held at the end of a call.

On a CPU PyTorch's profiler reports each allocation and release of its allocator. The peak is the maximum of their running sum from the
call's start: it is the same in every run and on every heap. The resident size of the process depends on what the C library keeps: it was
8 % larger even on a heap that was trimmed before. Memory that a contender allocates outside of PyTorch is not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile


class Held(NamedTuple):
    """Bytes above those held before a call: the most at a time, and those at its end, while its result is alive."""

    peak: int
    end: int


def held_bytes(call: Callable[[], object], device: str = "cpu") -> Held:
    """Returns the bytes that ``call`` held; its result is kept until they are counted, its gradients are included."""
    if device != "cpu":
        return _held_device(call)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = call()
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    del result
    return Held(peak, held)


def _held_device(call: Callable[[], object]) -> Held:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    held = Held(int(torch.cuda.max_memory_allocated()) - before, int(torch.cuda.memory_allocated()) - before)
    del result
    return held
