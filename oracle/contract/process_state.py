"""What a call may leave changed in its process: read before it, compared and put back after it, lest one contender spoils the next.

:data:`STATES` is the whole list. Each state belongs to a group, which is a failure mode of :mod:`oracle.comparison.conduct`.
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
    """One thing that a process has one of.

    Attributes:
        name: in sentences.
        group: failure mode of a call that leaves it changed.
        read: gives its value, one that can be compared and is not changed by what happens later.
        write: puts a value back.
        told: whether a sentence tells the values, or, by a function of both, what of them is another.
    """

    name: str
    group: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    told: bool | Callable[[Any, Any], str] = False

    def value(self) -> Any:
        """What it is; ``None`` where it cannot be read, such as a working directory that was removed."""
        try:
            return self.read()
        except (OSError, RuntimeError, ValueError):
            return None

    def change(self, before: Any, after: Any) -> str:
        """The change in words."""
        if callable(self.told):
            return f"{self.name} ({self.told(before, after)})"
        return f"{self.name} from {before} to {after}" if self.told else self.name


def _flag(holder: Any, name: str, said: str) -> State:
    def write(value: Any) -> None:
        if value is not None:
            setattr(holder, name, value)

    return State(said, SETTINGS, partial(getattr, holder, name, None), write, told=True)


def _autocast(device: str) -> State:
    def write(value: tuple[bool, torch.dtype]) -> None:
        torch.set_autocast_enabled(device, value[0])
        torch.set_autocast_dtype(device, value[1])

    return State(
        f"autocast on {device}", SETTINGS, lambda: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)), write, told=True
    )


_TINY, _HALF = sys.float_info.min, 0.5


def _flushes() -> bool:
    """Whether denormal numbers are flushed to zero in this thread, Python's own included; torch does not tell."""
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
    """Names of variables alone, since their values may be secrets."""
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
        warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001 - or what was silenced stays so


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
    torch.set_default_device(None if value == torch.device("cpu") else value)  # A device that is named costs every call something.


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


STATES = (
    State("default dtype", SETTINGS, torch.get_default_dtype, torch.set_default_dtype, told=True),
    State("default device", SETTINGS, torch.get_default_device, _set_default_device, told=True),
    State("gradients enabled", SETTINGS, torch.is_grad_enabled, torch.set_grad_enabled, told=True),
    State("number of threads", SETTINGS, torch.get_num_threads, torch.set_num_threads, told=True),
    State(
        "deterministic algorithms",
        SETTINGS,
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
        told=True,
    ),
    State("flushing of denormal numbers", SETTINGS, _flushes, torch.set_flush_denormal, told=True),
    State("float32 matmul precision", SETTINGS, torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, told=True),
    State(
        "anomaly mode",
        SETTINGS,
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.autograd.set_detect_anomaly(*value),
        told=True,
    ),
    State("warnings of torch said always", SETTINGS, torch.is_warn_always_enabled, torch.set_warn_always, told=True),
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
    State("locale", PROCESS, lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value), told=True),
    State("decimal context", PROCESS, _decimal, _set_decimal),
    State("numpy's handling of floating-point errors", PROCESS, np.geterr, lambda value: np.seterr(**value)),
    State("standard output", PROCESS, lambda: (sys.stdout, sys.stderr), _set_output),
    State(
        "garbage collection",
        PROCESS,
        lambda: (gc.isenabled(), gc.get_threshold()),
        _set_collection,
        told=True,
    ),
)


@dataclass(frozen=True)
class Snapshot:
    """The surroundings at a moment: the value of every state by name, and how many modules were loaded."""

    values: dict[str, Any] = field(default_factory=lambda: {state.name: state.value() for state in STATES})
    modules: int = field(default_factory=lambda: len(sys.modules))

    def put_back(self) -> dict[str, str]:
        """Put back what is no longer as it was, and say what, in one sentence for each group.

        What libraries change in the process as they are loaded, such as variables that they set for themselves, is theirs and stays; only
        what changes without that is a call's own doing.
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
