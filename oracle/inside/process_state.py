"""State of the process that a call may change: read before the call, compared and restored after it, so that contenders stay independent.

:data:`STATES` lists every state. Its group is a failure mode of :mod:`oracle.comparison.conduct`.
"""

from __future__ import annotations

import contextlib
import decimal
import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

SETTINGS, RANDOM, PROCESS = "changes settings", "changes random numbers", "changes the process"


@dataclass(frozen=True)
class State:
    """One piece of global state of a process.

    Attributes:
        name: name in sentences.
        group: failure mode of a call that changes it.
        read: returns its value as an immutable object that can be compared.
        write: restores a value.
        detail: whether a message shows both values, or a function of both that returns the text to show.
    """

    name: str
    group: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    detail: bool | Callable[[Any, Any], str] = False

    def value(self) -> Any:
        """Returns the current value; ``None`` if it cannot be read, such as a working directory that was removed."""
        try:
            return self.read()
        except (OSError, RuntimeError, ValueError):
            return None

    def change(self, before: Any, after: Any) -> str:
        """Describes a change from one value to another."""
        if callable(self.detail):
            return f"{self.name} ({self.detail(before, after)})"
        return f"{self.name} from {before} to {after}" if self.detail else self.name


def _flag(holder: Any, name: str, label: str) -> State:
    def write(value: Any) -> None:
        if value is not None:
            setattr(holder, name, value)

    return State(label, SETTINGS, partial(getattr, holder, name, None), write, detail=True)


def _autocast(device: str) -> State:
    def write(value: tuple[bool, torch.dtype]) -> None:
        torch.set_autocast_enabled(device, value[0])
        torch.set_autocast_dtype(device, value[1])

    return State(
        f"autocast on {device}", SETTINGS, lambda: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)), write, detail=True
    )


_TINY, _HALF = sys.float_info.min, 0.5


def _flushes() -> bool:
    """Whether this thread flushes denormal numbers to zero, which torch sets but does not report."""
    return _TINY * _HALF == 0.0


def _numpy_random() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return (name, keys.tobytes(), *rest)  # type: ignore[union-attr]


def _set_numpy_random(value: tuple[Any, ...]) -> None:
    np.random.set_state((value[0], np.frombuffer(value[1], np.uint32), *value[2:]))


def _torch_random() -> bytes:
    return torch.get_rng_state().numpy().tobytes()


def _set_torch_random(value: bytes) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(value), dtype=torch.uint8))


def _cuda_random() -> tuple[bytes, ...]:
    return tuple(state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()


def _set_cuda_random(value: tuple[bytes, ...]) -> None:
    if value:
        torch.cuda.set_rng_state_all([torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in value])


def _set_environment(value: dict[str, str]) -> None:
    for name in set(os.environ) - set(value):
        del os.environ[name]
    os.environ.update({name: text for name, text in value.items() if os.environ.get(name) != text})


def _changed_names(before: dict[str, str], after: dict[str, str]) -> str:
    """Returns the names of the changed variables; their values may be secrets."""
    return ", ".join(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))


def _logging() -> tuple[Any, ...]:
    return logging.root.level, logging.root.manager.disable, tuple(logging.root.handlers)


def _set_logging(value: tuple[Any, ...]) -> None:
    logging.root.setLevel(value[0])
    logging.disable(value[1])
    logging.root.handlers[:] = value[2]


_SIGNALS = sorted(signal.valid_signals())


def _set_signals(value: dict[Any, Any]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for number, handler in value.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _set_filters(value: tuple[Any, ...]) -> None:
    with contextlib.suppress(AttributeError):
        warnings.filters[:] = value  # type: ignore[index]
        warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001 - without it the cache of shown warnings stays in effect


def _decimal() -> tuple[Any, ...]:
    now = decimal.getcontext()
    return now.prec, now.rounding, now.Emin, now.Emax, now.capitals, now.clamp, tuple(name for name, on in now.traps.items() if on)


def _set_decimal(value: tuple[Any, ...]) -> None:
    prec, rounding, low, high, capitals, clamp, traps = value
    decimal.setcontext(decimal.Context(prec, rounding, low, high, capitals, clamp, traps=list(traps)))


def _set_collection(value: tuple[bool, tuple[int, int, int]]) -> None:
    gc.set_threshold(*value[1])
    (gc.enable if value[0] else gc.disable)()


def _set_output(value: tuple[Any, Any]) -> None:
    sys.stdout, sys.stderr = value


def _set_default_device(value: torch.device) -> None:
    torch.set_default_device(
        None if value == torch.device("cpu") else value
    )  # A default device that is set explicitly slows down every call.


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


STATES = (
    State("default dtype", SETTINGS, torch.get_default_dtype, torch.set_default_dtype, detail=True),
    State("default device", SETTINGS, torch.get_default_device, _set_default_device, detail=True),
    State("gradients enabled", SETTINGS, torch.is_grad_enabled, torch.set_grad_enabled, detail=True),
    State("number of threads", SETTINGS, torch.get_num_threads, torch.set_num_threads, detail=True),
    State(
        "deterministic algorithms",
        SETTINGS,
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
        detail=True,
    ),
    State("flushing of denormal numbers", SETTINGS, _flushes, torch.set_flush_denormal, detail=True),
    State("float32 matmul precision", SETTINGS, torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, detail=True),
    State(
        "anomaly mode",
        SETTINGS,
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.autograd.set_detect_anomaly(*value),
        detail=True,
    ),
    State("repetition of torch's warnings", SETTINGS, torch.is_warn_always_enabled, torch.set_warn_always, detail=True),
    _autocast("cpu"),
    _autocast("cuda"),
    *(_flag(torch.backends.cudnn, name, f"cudnn.{name}") for name in ("enabled", "benchmark", "deterministic", "allow_tf32")),
    *(
        _flag(torch.backends.cuda.matmul, name, f"cuda.matmul.{name}")
        for name in ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    ),
    _flag(torch.backends.mkldnn, "enabled", "mkldnn.enabled"),
    State("torch's random numbers", RANDOM, _torch_random, _set_torch_random),
    State("CUDA's random numbers", RANDOM, _cuda_random, _set_cuda_random),
    State("numpy's random numbers", RANDOM, _numpy_random, _set_numpy_random),
    State("Python's random numbers", RANDOM, random.getstate, random.setstate),
    State("working directory", PROCESS, os.getcwd, os.chdir),
    State("environment", PROCESS, lambda: dict(os.environ), _set_environment, _changed_names),
    State("sys.path", PROCESS, lambda: tuple(sys.path), lambda value: sys.path.__setitem__(slice(None), value)),
    State("warning filters", PROCESS, lambda: tuple(warnings.filters), _set_filters),
    State("logging", PROCESS, _logging, _set_logging),
    State("signal handlers", PROCESS, lambda: {number: signal.getsignal(number) for number in _SIGNALS}, _set_signals),
    State("locale", PROCESS, lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value), detail=True),
    State("decimal context", PROCESS, _decimal, _set_decimal),
    State("numpy's handling of floating-point errors", PROCESS, np.geterr, lambda value: np.seterr(**value)),
    State("standard output", PROCESS, lambda: (sys.stdout, sys.stderr), _set_output),
    State(
        "garbage collection",
        PROCESS,
        lambda: (gc.isenabled(), gc.get_threshold()),
        _set_collection,
        detail=True,
    ),
)


@dataclass(frozen=True)
class Snapshot:
    """The values of all states at one moment, by name, and the number of loaded modules."""

    values: dict[str, Any] = field(default_factory=lambda: {state.name: state.value() for state in STATES})
    modules: int = field(default_factory=lambda: len(sys.modules))

    def restore(self) -> dict[str, str]:
        """Restores every state that has changed, and returns one sentence for each group of changes.

        If modules were loaded in between, changes of the group :data:`PROCESS` stay: libraries set variables for themselves when imported.
        """
        loaded = len(sys.modules) != self.modules
        found: dict[str, list[str]] = {}
        for state in STATES:
            before, after = self.values[state.name], state.value()
            if before == after or (loaded and state.group == PROCESS):
                continue
            found.setdefault(state.group, []).append(state.change(before, after))
            if before is not None:
                with contextlib.suppress(OSError, RuntimeError, ValueError):
                    state.write(before)
        return {group: f"the call changed {', '.join(changes)}" for group, changes in found.items()}
