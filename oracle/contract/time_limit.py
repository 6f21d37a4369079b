"""A time limit on one call of a contender, so that one that hangs gets a verdict and the run goes on.

What counts is the processor time of the calling thread, since on a busy machine a right call takes long by the clock on the wall. A stretch
in which modules were loaded does not count, nor is an import interrupted, which would leave half of a module behind. A timer's signal looks
at the time: past the limit the call ends with :class:`Overrun`, and again every second for those who swallow it. Who sleeps uses no
processor time: after :data:`PATIENCE` times the limit by the clock on the wall the call ends too. Code that never comes back to Python, a
kernel or an extension in an endless loop, sees no signal; there, after :data:`LAST` times the limit, a thread of C code prints the
traceback and ends the process, whether or not the interpreter's lock is held. The differential run repeats the call in a process of its own
before it says that somebody hangs.

Limits: signals exist on POSIX alone and reach the main thread alone; elsewhere the last line is the only one. What a contender does in a
subprocess or thread of its own is not ended.
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

PATIENCE = 10.0
LAST = 12.0
AGAIN = 1.0
LEAST = 0.02


class Overrun(BaseException):
    """A call ran past its time limit. It is no :class:`Exception`, lest a contender's own ``except Exception`` hides it."""


_interrupted_imports: list[str] = []


def import_interrupted() -> bool:
    """Whether a limit has ended an import in this process, whose modules are then not to be trusted."""
    return bool(_interrupted_imports)


@contextlib.contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Let what happens inside take this long; ``None`` sets no limit. A timer that was running is put back with what it had left.

    Raises:
        Overrun: it took longer, whatever it made of being interrupted.
    """
    if seconds is None:
        yield
        return
    file = sys.__stderr__ if sys.__stderr__ is not None and not sys.__stderr__.closed else 2
    faulthandler.dump_traceback_later(seconds * LAST, exit=True, file=file)
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
        clock.ended()
        raise
    else:
        clock.ended()
    finally:
        clock.done = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - clock.waited, 1e-3), interval)


class _Clock:
    """What a call has used of its limit; a call cannot use more processor time than passes on the wall, so it is seldom looked at."""

    def __init__(self, seconds: float) -> None:
        self.limit, self.start = seconds, time.monotonic()
        self.spent, self.seen, self.modules = 0.0, time.thread_time(), len(sys.modules)
        self.overrun, self.done = "", False

    @property
    def waited(self) -> float:
        """Seconds on the wall since it began."""
        return time.monotonic() - self.start

    def tick(self, _number: int, frame: FrameType | None) -> None:
        """Look, and interrupt or look again later."""
        if self.done:
            return
        self._count()
        impatient = self.waited >= self.limit * PATIENCE
        if not self.overrun and self.spent >= self.limit:
            self.overrun = f"took more than the {self.limit:g} s of processor time that a call may take"
        if not self.overrun and impatient:
            self.overrun = f"did not come back within {self.limit * PATIENCE:g} s, of which it computed {self.spent:.2g} s"
        importing = _importing(frame)
        signal.setitimer(signal.ITIMER_REAL, AGAIN if self.overrun else max(self.limit - self.spent, LEAST))
        if self.overrun and not _visiting(frame) and (impatient or not importing):
            if importing:
                _interrupted_imports.append(self.overrun)
            raise Overrun(self.overrun)

    def _count(self) -> None:
        now, modules = time.thread_time(), len(sys.modules)
        if modules == self.modules:
            self.spent += now - self.seen
        self.seen, self.modules = now, modules

    def ended(self) -> None:
        """Insist on an interruption that the call swallowed or made into something else."""
        self.done = True
        if self.overrun:
            raise Overrun(self.overrun) from None


def _importing(frame: FrameType | None) -> bool:
    """Whether an import is under way."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _visiting(frame: FrameType | None) -> bool:
    """Whether this is a callback of the test runner's, such as that of Hypothesis at a garbage collection, which would eat an exception."""
    return frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] in ("hypothesis", "_pytest", "pluggy")
