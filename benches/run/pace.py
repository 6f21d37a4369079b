"""How far a run is, and how long it will still take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

GUESS_S = 8.0  # For one piece of work, before the first is done.


class Pace:
    """Learns from each piece of work how long its like will take: the next process's turn at the same unit takes as long as this one's.

    Args:
        pieces: everything to do; a piece that is done several times is in it several times.
        clock: seconds.
    """

    def __init__(self, pieces: Sequence[Hashable], clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.left = len(pieces), Counter(pieces)
        self.clock, self.since = clock, clock()
        self.seen: dict[Hashable, float] = {}

    def done(self, piece: Hashable) -> None:
        """Say that a piece has just been done."""
        now = self.clock()
        self.seen[piece], self.since = now - self.since, now
        self.left[piece] -= 1

    @property
    def share(self) -> float:
        """Of the pieces, those that are done."""
        return 1 - sum(self.left.values()) / max(self.total, 1)

    @property
    def seconds_left(self) -> float:
        """Until the last piece is done."""
        typical = sum(self.seen.values()) / len(self.seen) if self.seen else GUESS_S
        expected = sum(count * self.seen.get(piece, typical) for piece, count in self.left.items())
        return max(expected - (self.clock() - self.since), 0.0)

    def text(self) -> str:
        """For a person."""
        minutes, seconds = divmod(round(self.seconds_left), 60)
        return f"{minutes} min {seconds:02d} s left" if minutes else f"{seconds} s left"
