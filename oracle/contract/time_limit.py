"""A time limit on one call of a contender, so that a hanging contender gets a verdict and the run goes on.

The limit is on processor time of the calling thread, because wall-clock time depends on the load of the machine. Time in which modules are
loaded does not count, and no import is interrupted, since a half-loaded module would remain. The handler of a timer signal checks the time;
past the limit it raises :class:`TimeLimitExceeded`, and repeats this every :data:`REPEAT_S` seconds if the call catches the exception. A
call that sleeps uses no processor time: it ends after :data:`WALL_CLOCK_FACTOR` times the limit on the wall clock. Native code in an
endless loop handles no Python signal: after :data:`KILL_FACTOR` times the limit, ``faulthandler`` prints the traceback and ends the process
without the interpreter's lock. The differential run repeats such a call in a process of its own before it reports a hang.

Limits: signals exist on POSIX only and reach the main thread only; elsewhere ``faulthandler`` alone applies. Subprocesses and threads of a
contender are not ended.
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

WALL_CLOCK_FACTOR = 10.0
KILL_FACTOR = 12.0
REPEAT_S = 1.0
SHORTEST_TIMER_S = 0.02


class TimeLimitExceeded(BaseException):
    """A call exceeded its time limit. It is no :class:`Exception`, so that ``except Exception`` in a contender does not catch it."""


_interrupted_imports: list[str] = []


def import_interrupted() -> bool:
    """Whether a time limit has interrupted an import in this process, whose modules may then be incomplete."""
    return bool(_interrupted_imports)


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Limits the time of the block; ``None`` sets no limit. A running timer is restored with its remaining time.

    Raises:
        TimeLimitExceeded: the block took longer, also if it caught the exception.
    """
    if seconds is None:
        yield
        return
    file = sys.__stderr__ if sys.__stderr__ is not None and not sys.__stderr__.closed else 2
    faulthandler.dump_traceback_later(seconds * KILL_FACTOR, exit=True, file=file)
    try:
        with _interrupted(seconds):
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _interrupted(seconds: float) -> Iterator[None]:
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    clock = _Clock(seconds)
    handler = signal.signal(signal.SIGALRM, clock.tick)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except BaseException:
        clock.finish()
        raise
    else:
        clock.finish()
    finally:
        clock.done = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - clock.wall_s, 1e-3), interval)


class _Clock:
    """Time that a call has used. The timer is set to the remaining limit, since processor time never exceeds wall-clock time."""

    def __init__(self, seconds: float) -> None:
        self.limit, self.start = seconds, time.monotonic()
        self.spent, self.seen, self.modules = 0.0, time.thread_time(), len(sys.modules)
        self.exceeded, self.done = "", False

    @property
    def wall_s(self) -> float:
        """Seconds of wall-clock time since the start."""
        return time.monotonic() - self.start

    def tick(self, _number: int, frame: FrameType | None) -> None:
        """Handles the timer's signal: raises past the limit, and sets the timer again."""
        if self.done:
            return
        self._count()
        wall_limit = self.limit * WALL_CLOCK_FACTOR
        past_wall_limit = self.wall_s >= wall_limit
        if not self.exceeded and self.spent >= self.limit:
            self.exceeded = f"took more than the {self.limit:g} s of processor time that a call may take"
        if not self.exceeded and past_wall_limit:
            self.exceeded = f"did not come back within {wall_limit:g} s, of which it computed {self.spent:.2g} s"
        importing = _importing(frame)
        signal.setitimer(signal.ITIMER_REAL, REPEAT_S if self.exceeded else max(self.limit - self.spent, SHORTEST_TIMER_S))
        if self.exceeded and not _in_test_runner(frame) and (past_wall_limit or not importing):
            if importing:
                _interrupted_imports.append(self.exceeded)
            raise TimeLimitExceeded(self.exceeded)

    def _count(self) -> None:
        now, modules = time.thread_time(), len(sys.modules)
        if modules == self.modules:
            self.spent += now - self.seen
        self.seen, self.modules = now, modules

    def finish(self) -> None:
        """Raises the exception again if the call caught it or replaced it by another."""
        self.done = True
        if self.exceeded:
            raise TimeLimitExceeded(self.exceeded) from None


def _importing(frame: FrameType | None) -> bool:
    """Whether the frame is inside an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _in_test_runner(frame: FrameType | None) -> bool:
    """Whether the frame is a callback of the test runner, such as Hypothesis' at garbage collections, which discards exceptions."""
    return frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] in ("hypothesis", "_pytest", "pluggy")
