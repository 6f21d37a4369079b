"""A clock that shows times which were measured before, so that pytest-benchmark can be given samples through its own front door."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_benchmark.fixture import BenchmarkFixture


class ReplayClock:
    """A timer in seconds that stands still until a sample is played on it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """What the clock shows."""
        return self.seconds

    def replay(self, benchmark: BenchmarkFixture, samples: Iterable[float]) -> None:
        """Let ``benchmark``, whose timer this clock must be, measure calls that take as long as each of ``samples`` in seconds."""
        waiting = list(samples)
        upcoming = iter(waiting)

        def call() -> None:
            # Differences of a clock that started at zero keep every digit of a sample.
            self.seconds = next(upcoming)

        def rewind() -> None:
            self.seconds = 0.0

        benchmark.pedantic(call, setup=rewind, rounds=len(waiting), iterations=1)  # type: ignore[no-untyped-call]


CLOCK = ReplayClock()
