"""A clock that replays times measured before, through which pytest-benchmark receives samples."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_benchmark.fixture import BenchmarkFixture


class ReplayClock:
    """A timer in seconds that advances only when a sample is replayed."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """Returns the current time of the clock."""
        return self.seconds

    def replay(self, benchmark: BenchmarkFixture, samples: Iterable[float]) -> None:
        """Make ``benchmark``, whose timer must be this clock, measure one call for each of ``samples``, which are in seconds."""
        waiting = list(samples)
        upcoming = iter(waiting)

        def call() -> None:
            # The clock starts each call at zero, so that the difference equals the sample exactly.
            self.seconds = next(upcoming)

        def rewind() -> None:
            self.seconds = 0.0

        benchmark.pedantic(call, setup=rewind, rounds=len(waiting), iterations=1)  # type: ignore[no-untyped-call]


CLOCK = ReplayClock()
