"""Costs on a GPU: launches, synchronisations, memory, time relative to the reference and to the byte floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Any, TypeVar

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benches.gpu.finding import GpuFinding
from benches.gpu.limits import CROWDED_PEAK, CROWDED_STEP, FASTER, FLOORS, LAUNCHES, PEAK, WAITS
from benches.gpu.steps import DTYPE, Step, copy_bytes_per_second, device, floor_bytes, free, reference_step
from benches.gpu.turns import interval, or_reason
from benches.measure import cuda
from benches.measure.memory import held_bytes
from benches.plan.contenders import BASELINE
from benches.run.estimates import ratio

Called = TypeVar("Called", bound=Callable[[], None])

WARM, ROUNDS, CLUSTER = 10, 60, 10
ACTIVITIES = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
PROFILED = ("coco", "boxes-300", "coco-end-to-end", "xview-128")
HOSTED = ("batch-1", "coco", "boxes-300", "xview-128")


def counts() -> Iterator[GpuFinding]:
    """Count launches, synchronisations and peak memory of a step; these have no noise, so one call suffices."""
    for workload, limit in LAUNCHES.items():
        step = _warmed(Step(workload))
        yield limit.finding(cuda.launches(step))
        waits = cuda.synchronisations(step)
        yield WAITS[workload].finding(len(waits), ", ".join(waits[:3]))
        yield PEAK[workload].finding(_peak(step) / step.gradient_bytes)
        free()


def speed() -> Iterator[GpuFinding]:
    """Time a step interleaved with the reference's, and a captured step relative to the time of moving its bytes."""
    rate = copy_bytes_per_second()
    yield GpuFinding("speed", "bandwidth of a copy", "measured", rate / 1e12, None, "TB/s")
    for workload in FASTER:
        step = _warmed(Step(workload))
        yield from _against_reference(step, workload)
        yield _against_floor(step, workload, rate)
        free()


def _against_reference(step: Step, workload: str) -> Iterator[GpuFinding]:
    limit = FASTER[workload]
    try:
        reference = _warmed(reference_step(step, BASELINE))
    except Exception as error:
        yield limit.not_measured(f"the reference does not run here: {type(error).__name__}: {error}"[:300])
        return
    pairs = np.array([cuda.timed(step, reference) for _ in range(ROUNDS)])
    ours, reference_ms = np.median(pairs, axis=0) / 1e6
    found = ratio(pairs[:, 1], pairs[:, 0], np.arange(ROUNDS) // CLUSTER)
    yield GpuFinding("speed", "a step", "measured", float(ours), None, "ms", workload, DTYPE)
    yield limit.finding(found.value, f"{interval(found)}; the reference takes {reference_ms:.3g} ms")


def _against_floor(step: Step, workload: str, rate: float) -> GpuFinding:
    floor = floor_bytes(step.preds) / rate
    replay = cuda.Replay(step)
    seconds = float(np.median([cuda.timed(replay.run)[0] for _ in range(ROUNDS)])) / 1e9
    return FLOORS[workload].finding(seconds / floor, f"{seconds * 1e6:.1f} µs, the floor is {floor * 1e6:.1f} µs")


def kernels() -> Iterator[GpuFinding]:
    """Time each kernel of a step, in microseconds."""
    for workload in PROFILED:
        step = _warmed(Step(workload))
        events = _device_events(step)
        for event in sorted(events, key=lambda event: -event.self_device_time_total):
            micro, times = event.self_device_time_total / event.count, event.count / WARM
            yield GpuFinding("kernels", event.key[:80], "measured", micro, None, "µs", workload, DTYPE, f"{times:g} a step")
        free()


def launches() -> Iterator[GpuFinding]:
    """Measure the host's time of a step beside that of its kernels; the longer of the two bounds the step."""
    for workload in HOSTED:
        yield from or_reason(_launches_of(workload), "launches", workload, DTYPE)
        free()


def _launches_of(workload: str) -> Iterator[GpuFinding]:
    step = _warmed(Step(workload))
    host = float(np.median([_host_nanoseconds(step) for _ in range(ROUNDS)])) / 1e3
    count = cuda.launches(step)
    on_device = sum(event.self_device_time_total for event in _device_events(step)) / WARM
    yield GpuFinding("launches", "the host's time of a step", "measured", host, None, "µs", workload, DTYPE)
    yield GpuFinding("launches", "launches of a step", "measured", count, None, "launches", workload, DTYPE)
    if count:
        yield GpuFinding("launches", "the host's time of a launch", "measured", host / count, None, "µs", workload, DTYPE)
    what = "the kernels' time of a step"
    if not on_device:
        yield GpuFinding("launches", what, "not measured", None, None, "µs", workload, DTYPE, "the profiler saw no kernel")
        return
    yield GpuFinding("launches", what, "measured", on_device, None, "µs", workload, DTYPE)
    bound = "the host: it takes longer to launch the kernels than they run" if host > on_device else "the kernels"
    what, said = "the host's time of a step, in that of its kernels", f"the step is bound by {bound}"
    yield GpuFinding("launches", what, "measured", host / on_device, None, "times", workload, DTYPE, said)


def _host_nanoseconds(step: Step) -> int:
    """Returns how long a call takes to return, on an idle device."""
    torch.cuda.synchronize()
    start = perf_counter_ns()
    step()
    return perf_counter_ns() - start


def _device_events(step: Step) -> list[Any]:
    """Returns the profiler's sums over WARM calls, by kernel; PyTorch's operations repeat their kernels' time under their own names."""
    with profile(activities=ACTIVITIES) as recorded:
        for _ in range(WARM):
            step()
        torch.cuda.synchronize()
    return [event for event in recorded.key_averages() if event.device_type.name != "CPU" and event.count]


def crowded() -> Iterator[GpuFinding]:
    """Measure 128 images, of which the fullest has 4,967 boxes."""
    step = _warmed(Step(CROWDED_STEP.workload))
    yield CROWDED_PEAK.finding(_peak(step) / 1e9)
    milliseconds = float(np.median([cuda.timed(step)[0] for _ in range(ROUNDS)])) / 1e6
    yield CROWDED_STEP.finding(milliseconds, f"{len(step.case.boxes)} boxes")
    free()


def _peak(step: Step) -> int:
    step.clear()
    return held_bytes(step, device()).peak


def _warmed(step: Called) -> Called:
    for _ in range(WARM):
        step()
    torch.cuda.synchronize()
    return step
