"""Measurements on a GPU: times from events in its stream, kernel launches, host synchronisations, replays of a captured graph."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaLaunchCooperativeKernel")
_WAIT = "called a synchronizing CUDA operation"  # PyTorch also warns that the debug mode itself is a prototype.
_WARM_CALLS = 3  # On the side stream before a capture, as PyTorch requires.


def timed(*parts: Callable[[], object]) -> list[int]:
    """Returns the nanoseconds that each part, run in this order, took on the device."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(parts) + 1)]
    torch.cuda.synchronize()
    events[0].record()
    for part, event in zip(parts, events[1:], strict=True):
        part()
        event.record()
    torch.cuda.synchronize()
    return [round(1e6 * start.elapsed_time(end)) for start, end in itertools.pairwise(events)]


def launches(step: Callable[[], object]) -> int:
    """Returns how many kernels one call launches, including kernels that copy and fill."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        step()
        torch.cuda.synchronize()
    return sum(event.count for event in recorded.key_averages() if event.key in _LAUNCHES)


def synchronisations(step: Callable[[], object]) -> list[str]:
    """Returns the places at which one call makes the host wait for the device, as PyTorch's debug mode reports them."""
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return [f"{warning.filename}:{warning.lineno}" for warning in caught if _WAIT in str(warning.message)]


class Replay:
    """A step captured as a CUDA graph, replayed with the same input and gradient tensors."""

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
        """Replay the graph."""
        self.graph.replay()
