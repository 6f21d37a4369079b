"""Calls of a candidate's code within its process: in the setting of the judge, with state compared, warnings and exceptions recorded."""

from __future__ import annotations

import contextlib
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .encode import LONGEST_TEXT
from .process_state import Snapshot

Record = dict[str, Any]
MOST_WARNINGS = 20


@contextlib.contextmanager
def entered(context: Record) -> Iterator[None]:
    """Enters the default dtype, gradient mode and autocast that the judge's process has."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, context["default_dtype"]))
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(context["grad"]))
            for device, dtype in context["autocast"].items():
                stack.enter_context(torch.autocast(device, dtype=getattr(torch, dtype)))
            yield
    finally:
        torch.set_default_dtype(before)


def seed(number: int) -> None:
    """Puts all generators of random numbers into a state of their own for each call, so that one that is reset shows."""
    torch.manual_seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 - the generator that a process shares
    random.seed(number)


def observed(context: Record, function: Callable[[], Record]) -> Record:
    """Returns the record of a function that runs a candidate's code, with ``changed`` and ``warnings``; an exception as ``raised``."""
    lost: list[str] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda event: lost.append(_ignored(event))
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("default")
        seed(context["seed"])
        with entered(context):
            before = Snapshot()
            try:
                record = function()
            except BaseException as error:
                record = {"raised": raised(error)}
            record["changed"] = before.restore()
    sys.unraisablehook = hook
    shown = [_warning(one) for one in log[:MOST_WARNINGS]] + lost[:MOST_WARNINGS]
    return record | {"warnings": shown}


def raised(error: BaseException) -> Record:
    """Returns type and text of an exception, and of a missing module its name."""
    group = getattr(error, "exceptions", None)
    record: Record = {"type": type(error).__name__, "text": _message(error)}
    if isinstance(group, tuple) and group and isinstance(group[0], BaseException):
        record["text"] += f", the first of them {type(group[0]).__name__}: {_message(group[0])}"
    if isinstance(error, ModuleNotFoundError):
        record["module"] = error.name
    return record


def _message(error: BaseException) -> str:
    try:
        return _plain(str(error))
    except BaseException as fault:
        return f"(its message cannot be shown: __str__ raised {type(fault).__name__})"


def _plain(text: str) -> str:
    return str.encode(str.__getitem__(text, slice(LONGEST_TEXT)), "utf-8", "backslashreplace").decode()


def _ignored(event: Any) -> str:
    if event.exc_value is None:
        return "ignored, in a destructor or callback: an exception"
    return f"ignored, in a destructor or callback: {type(event.exc_value).__name__}: {_message(event.exc_value)}"


def _warning(one: warnings.WarningMessage) -> str:
    place = "/".join(Path(one.filename).parts[-2:])
    message = one.message if isinstance(one.message, Warning) else Warning(one.message)
    return f"{type(message).__name__}: {_message(message)} ({place}:{one.lineno})"


_CLOCKS = ("time", "monotonic", "perf_counter")
_ahead_s = 0.0


def install_clock() -> None:
    """Replaces Python's clocks by ones that :func:`set_clock` can put ahead, for candidates that become wrong late."""
    for name in _CLOCKS:
        real, real_ns = getattr(time, name), getattr(time, f"{name}_ns")
        setattr(time, name, lambda real=real: real() + _ahead_s)
        setattr(time, f"{name}_ns", lambda real_ns=real_ns: real_ns() + int(_ahead_s * 1e9))


def set_clock(ahead_s: float) -> None:
    """Puts the clocks ahead by so many seconds."""
    global _ahead_s  # noqa: PLW0603 - the process has one clock
    _ahead_s = ahead_s
