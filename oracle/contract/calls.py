"""Calls of a contender's code: with a time limit, warnings collected, process state restored, and every exception turned into a failure.

A candidate's code may raise anything: exceptions of a test runner or an event loop, or ``KeyboardInterrupt`` although no signal came. A
real interruption is recognised by its signal. Filters that turn warnings into errors, as a test run sets them, do not apply inside the
calls of a candidate.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

from oracle.contract.answer_form import MalformedError
from oracle.contract.contender import Contender
from oracle.contract.time_limit import TimeLimitExceeded, time_limit
from oracle.inside.process_state import Snapshot
from oracle.tools.printable import exception_text

Answer = TypeVar("Answer")
RAISES, HANGS = "raises", "hangs"
MOST_WARNINGS = 20


class ContenderFailed(Exception):  # noqa: N818 - a property of the contender, not an error of the suite
    """A contender gave no answer, or a malformed one; the cause is the error that it raised, if any.

    Attributes:
        mode: the failure mode, a key of :data:`oracle.comparison.conduct.MODES`.
        what: a predicate for the subject "it", or a sentence about the answer.
    """

    def __init__(self, mode: str, what: str) -> None:
        super().__init__(f"hangs: it {what}" if mode == HANGS else what)
        self.mode, self.what = mode, what


@dataclass(frozen=True)
class CallResult(Generic[Answer]):
    """The answer of a call, and the changes that it left in the process, by group of :mod:`oracle.inside.process_state`."""

    answer: Answer
    changed: dict[str, str]


def call_contender(contender: Contender, function: Callable[[], Answer]) -> CallResult[Answer]:
    """Calls a function that runs a contender's code, and restores the process state after it.

    Raises:
        ContenderFailed: the function raised, exceeded the time limit, or found the contender's answer malformed.
        KeyboardInterrupt: a signal interrupted the run.
    """
    everything = BaseException if contender.is_candidate else (Exception, SystemExit)
    changed: dict[str, str] = {}
    with _collect_warnings(contender), _interruptible(contender), _reported_changes(changed):
        before = Snapshot()
        try:
            # An isolated candidate's process is watched from outside, and may start anew within the call.
            with time_limit(None if contender.isolated else contender.time_limit):
                answer = function()
        except TimeLimitExceeded as exceeded:
            raise ContenderFailed(HANGS, str(exceeded)) from None
        except MalformedError as error:
            raise ContenderFailed(error.mode, str(error)) from error
        except everything as error:
            raise ContenderFailed(RAISES, f"raised {exception_text(error)}") from error
        finally:
            changed |= before.restore()
    return CallResult(answer, changed)


@contextlib.contextmanager
def _interruptible(contender: Contender) -> Iterator[None]:
    """Turns SIGINT and SIGTERM into ``KeyboardInterrupt``, also if the contender catches or replaces that exception."""
    if not contender.is_candidate or threading.current_thread() is not threading.main_thread():
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
            held[came[0]](came[0], None)  # the handlers that were set before are called as well
            raise KeyboardInterrupt from None


_changes: ContextVar[dict[str, str] | None] = ContextVar("changes", default=None)


@contextlib.contextmanager
def _reported_changes(into: dict[str, str]) -> Iterator[None]:
    token = _changes.set(into)
    try:
        yield
    finally:
        _changes.reset(token)


def report(changed: Mapping[str, str], warned: Sequence[str]) -> None:
    """Takes what a call in another process changed there, by group of :mod:`oracle.inside.process_state`, and its warnings."""
    if (found := _changes.get()) is not None:
        found.update(changed)
    _count(list(warned))


_collector: ContextVar[dict[str, int] | None] = ContextVar("warnings", default=None)


@contextlib.contextmanager
def collected_warnings() -> Iterator[dict[str, int]]:
    """Collects the warnings of candidates called inside, as text with type, message, file and line, and the count of each."""
    found: dict[str, int] = {}
    token = _collector.set(found)
    try:
        yield found
    finally:
        _collector.reset(token)


@contextlib.contextmanager
def _collect_warnings(contender: Contender) -> Iterator[None]:
    """Collects a candidate's warnings, and its exceptions in destructors and callbacks, which cannot be caught."""
    if not contender.is_candidate:
        yield
        return
    lost: list[str] = []

    def unraisable(event: Any) -> None:
        if not isinstance(event.exc_value, TimeLimitExceeded) and event.exc_value is not None:
            lost.append(f"ignored, in a destructor or callback: {exception_text(event.exc_value)}")

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        with warnings.catch_warnings(record=True) as log:
            warnings.simplefilter("default")
            yield
    finally:
        sys.unraisablehook = hook
        _count([*(_warning_text(one) for one in log), *lost])


def _warning_text(warning: warnings.WarningMessage) -> str:
    place = "/".join(Path(warning.filename).parts[-2:])
    message = warning.message if isinstance(warning.message, Warning) else Warning(warning.message)
    return f"{exception_text(message)} ({place}:{warning.lineno})"


def _count(texts: list[str]) -> None:
    if (found := _collector.get()) is not None:
        for text in texts:
            if text in found or len(found) < MOST_WARNINGS:
                found[text] = found.get(text, 0) + 1
