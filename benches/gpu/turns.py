"""Steps timed in turns in one process, so that what changes meanwhile, such as the clock of the GPU, affects all of them alike."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

import numpy as np
import torch
from numpy.typing import NDArray

from benches.gpu.finding import GpuFinding
from benches.measure import cuda
from benches.run.estimates import Estimate, ratio

Called = Callable[[], object]
Nanoseconds = NDArray[np.float64]

CLUSTERS = 6  # Of successive rounds, over which intervals are computed.
LONGEST = 300  # Characters of a reason.


def prepared(makers: Mapping[str, Callable[[], Called]], warm: int) -> tuple[dict[str, Called], dict[str, str]]:
    """Returns the steps that ran ``warm`` times, and of the others why they did not, both by name."""
    found = {name: _prepared(maker, warm) for name, maker in makers.items()}
    reasons = {name: step for name, step in found.items() if isinstance(step, str)}
    return {name: step for name, step in found.items() if not isinstance(step, str)}, reasons


def _prepared(maker: Callable[[], Called], warm: int) -> Called | str:
    try:
        step = maker()
        for _ in range(warm):
            step()
        torch.cuda.synchronize()
    except Exception as error:
        return reason(error)
    return step


def in_turns(steps: Mapping[str, Called], rounds: int) -> dict[str, Nanoseconds]:
    """Returns the nanoseconds of each step in each round. Each begins on an idle device, so that none is hidden behind the one before."""
    taken = [[cuda.timed(step)[0] for step in steps.values()] for _ in range(rounds)]
    return dict(zip(steps, np.array(taken, np.float64).reshape(rounds, len(steps)).T, strict=True))


def times_faster(slow: Nanoseconds, fast: Nanoseconds) -> Estimate:
    """Returns how many times faster the second is, with its interval."""
    return ratio(slow, fast, np.arange(len(slow)) * CLUSTERS // len(slow))


def interval(estimate: Estimate) -> str:
    """Returns the interval in words."""
    return f"95 % interval {estimate.lo95:.3g} to {estimate.hi95:.3g}"


def or_reason(findings: Iterator[GpuFinding], check: str, workload: str, dtype: str) -> Iterator[GpuFinding]:
    """Yields the findings of one workload; an exception becomes the last one, so that the check goes on with the next workload."""
    try:
        yield from findings
    except Exception as error:
        yield GpuFinding(check, "all of it", "not measured", None, None, "", workload, dtype, reason(error))


def reason(error: BaseException) -> str:
    """Returns type and text of an error, after those of the error during whose handling it was raised: a failed capture hides its cause."""
    text = f"{type(error).__name__}: {error}"[:LONGEST]
    return text if error.__context__ is None else f"{reason(error.__context__)}; then {text}"


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises ``TimeoutError`` in the block when it takes longer; needs the main thread."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
