"""What only a GPU has: times from its own stream, kernel launches, host synchronisations, and replays of a captured graph."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaLaunchCooperativeKernel")
_WARM_CALLS = 3  # On the side stream before a capture, as the framework asks for.


def timed(*parts: Callable[[], object]) -> list[int]:
    """Nanoseconds that each part, run in this order, took on the device."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(parts) + 1)]
    torch.cuda.synchronize()
    events[0].record()
    for part, event in zip(parts, events[1:], strict=True):
        part()
        event.record()
    torch.cuda.synchronize()
    return [round(1e6 * start.elapsed_time(end)) for start, end in itertools.pairwise(events)]


def launches(step: Callable[[], object]) -> int:
    """Kernels that one call launches, copies and fills by kernels included."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        step()
        torch.cuda.synchronize()
    return sum(event.count for event in recorded.key_averages() if event.key in _LAUNCHES)


def synchronisations(step: Callable[[], object]) -> list[str]:
    """Where one call makes the host wait for the device, as the framework's own debug mode reports it; empty is what it should be."""
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return [f"{warning.filename}:{warning.lineno}" for warning in caught if "synchroniz" in str(warning.message)]


class Replay:
    """A step captured as a CUDA graph: the same inputs and gradients in place, launched as one."""

    def __init__(self, step: Callable[[], object]) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_CALLS):
                step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            step()

    def run(self) -> None:
        """Launch it."""
        self.graph.replay()
