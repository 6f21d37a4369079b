"""Calls of a contender's code: within its time limit, its warnings collected, its traces removed, and whatever it raises made a failure.

Of a stranger's code, one with a time limit, everything is expected: it may raise what only a test runner or an event loop raises, or
``KeyboardInterrupt`` without anybody having pressed a key. A real interruption is told apart by its signal. Warnings are a stranger's own
affair, so that a filter that makes errors of them, as a test run has, does not hold inside its calls.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

from oracle.contract.answer_form import MalformedError
from oracle.contract.contender import Contender
from oracle.contract.process_state import Snapshot
from oracle.contract.time_limit import Overrun, limited
from oracle.tools.printable import described

Answer = TypeVar("Answer")
RAISES, HANGS = "raises", "hangs"
MOST_WARNINGS = 20


class ContenderFailed(Exception):  # noqa: N818 - it is what a contender did, not what went wrong here
    """A contender gave no answer, or none that can be looked at; the cause, where there is one, is the error that it raised.

    Attributes:
        mode: a failure mode of :mod:`oracle.comparison.conduct`.
        what: one sentence, after "it", or about the answer.
    """

    def __init__(self, mode: str, what: str) -> None:
        super().__init__(f"hangs: it {what}" if mode == HANGS else what)
        self.mode, self.what = mode, what


@dataclass(frozen=True)
class Called(Generic[Answer]):
    """A call's answer, and what it changed in the process, by group of :mod:`oracle.contract.process_state`."""

    answer: Answer
    changed: dict[str, str]


def called(contender: Contender, function: Callable[[], Answer]) -> Called[Answer]:
    """What a function that runs a contender's code returns.

    Raises:
        ContenderFailed: it raised, took too long, or says itself that the contender's answer is malformed.
        KeyboardInterrupt: somebody interrupted the run.
    """
    everything = BaseException if contender.stranger else (Exception, SystemExit)
    with _heard(contender), _signalled(contender):
        before = Snapshot()
        changed: dict[str, str] = {}
        try:
            with limited(contender.time_limit):
                answer = function()
        except Overrun as overrun:
            raise ContenderFailed(HANGS, str(overrun)) from None
        except MalformedError as error:
            raise ContenderFailed(error.mode, str(error)) from error
        except everything as error:
            raise ContenderFailed(RAISES, f"raised {described(error)}") from error
        finally:
            changed |= before.put_back()
    return Called(answer, changed)


@contextlib.contextmanager
def _signalled(contender: Contender) -> Iterator[None]:
    """An interruption from outside, whatever the contender makes of it, ends as ``KeyboardInterrupt``."""
    if not contender.stranger or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupt(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    held: dict[int, Callable[[int, FrameType | None], object]] = {n: handler for n, handler in before.items() if callable(handler)}
    for number in held:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        if came:
            held[came[0]](came[0], None)  # whoever waits for the signal hears of it
            raise KeyboardInterrupt from None


_warned: ContextVar[dict[str, int] | None] = ContextVar("warned", default=None)


@contextlib.contextmanager
def warned() -> Iterator[dict[str, int]]:
    """Warnings of the strangers that are called inside, and how often each came: type, message, file and line."""
    found: dict[str, int] = {}
    token = _warned.set(found)
    try:
        yield found
    finally:
        _warned.reset(token)


@contextlib.contextmanager
def _heard(contender: Contender) -> Iterator[None]:
    """Collect a stranger's warnings, and what it raises where nobody can catch it, in a destructor or callback."""
    if not contender.stranger:
        yield
        return
    lost: list[str] = []

    def unraisable(event: Any) -> None:
        if not isinstance(event.exc_value, Overrun) and event.exc_value is not None:
            lost.append(f"ignored, in a destructor or callback: {described(event.exc_value)}")

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        with warnings.catch_warnings(record=True) as log:
            warnings.simplefilter("default")
            yield
    finally:
        sys.unraisablehook = hook
        _note([*(_said(one) for one in log), *lost])


def _said(warning: warnings.WarningMessage) -> str:
    place = "/".join(Path(warning.filename).parts[-2:])
    message = warning.message if isinstance(warning.message, Warning) else Warning(warning.message)
    return f"{described(message)} ({place}:{warning.lineno})"


def _note(texts: list[str]) -> None:
    if (found := _warned.get()) is not None:
        for text in texts:
            if text in found or len(found) < MOST_WARNINGS:
                found[text] = found.get(text, 0) + 1
