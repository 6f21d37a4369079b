"""A time limit on one call of a contender, so that one that hangs gets a verdict and the run goes on.

Two lines of defence. A timer's signal interrupts Python code, and whatever waits in a system call: the call ends with :class:`Overrun`, and
the timer fires again every second for those who swallow it. Code that never comes back to Python, a kernel or an extension in an endless
loop, sees no signal; there, after :data:`PATIENCE` times the limit, a thread of C code prints the traceback and ends the process, whether
or not the interpreter's lock is held. The process that collects the results names the contender from the note that the recorder left.

Limits: signals exist on POSIX alone and reach the main thread alone; elsewhere the second line is the only one. What a contender does in a
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

PATIENCE = 4.0
AGAIN = 1.0


class Overrun(BaseException):
    """A call ran past its time limit. It is no :class:`Exception`, lest a contender's own ``except Exception`` hides it."""


@contextlib.contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Let what happens inside take this long; ``None`` sets no limit. A timer that was running is put back with what it had left.

    Raises:
        Overrun: it took longer.
    """
    if seconds is None:
        yield
        return
    file = sys.__stderr__ if sys.__stderr__ is not None and not sys.__stderr__.closed else 2
    faulthandler.dump_traceback_later(seconds * PATIENCE, exit=True, file=file)
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

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Overrun(f"took more than the {seconds:g} s that a call may take")

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, interrupt)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 1e-3), interval)
