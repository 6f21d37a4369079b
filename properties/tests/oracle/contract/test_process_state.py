"""Whatever a call may leave changed in its process is seen, named, and put back."""

from __future__ import annotations

import contextlib
import decimal
import gc
import io
import locale
import logging
import os
import random
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from oracle.cases.case import Box, Case, Prediction
from oracle.comparison.compare import compare
from oracle.comparison.conduct import STAGE
from oracle.comparison.registry import shipped
from oracle.contract.calls import call_contender
from oracle.contract.contender import Contender
from oracle.inside.process_state import PROCESS, RANDOM, SETTINGS, STATES, Snapshot
from properties.selfcheck.sample_candidates import TwinLossOnly
from properties.tests.oracle.judge.helpers import FLOAT32
from twinloss import LossSpec

CASE = Case(LossSpec(num_classes=2, reg_max=4, strides=(8, 16)), (32, 32), 1, (Box(0, 1, 16, 16, 12, 12),), Prediction("near", spread=0.25))


@contextlib.contextmanager
def kept() -> Iterator[None]:
    before = Snapshot()
    try:
        yield
    finally:
        before.restore()


def anomaly() -> None:
    torch.autograd.set_detect_anomaly(True)


CHANGES: dict[str, tuple[str, Callable[[], object]]] = {
    "default dtype": (SETTINGS, lambda: torch.set_default_dtype(torch.float64)),
    "default device": (SETTINGS, lambda: torch.set_default_device("meta")),
    "gradients enabled": (SETTINGS, lambda: torch.set_grad_enabled(False)),
    "number of threads": (SETTINGS, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "deterministic algorithms": (SETTINGS, lambda: torch.use_deterministic_algorithms(True, warn_only=True)),
    "flushing of denormal numbers": (SETTINGS, lambda: torch.set_flush_denormal(True)),
    "float32 matmul precision": (SETTINGS, lambda: torch.set_float32_matmul_precision("high")),
    "anomaly mode": (SETTINGS, anomaly),
    "repetition of torch's warnings": (SETTINGS, lambda: torch.set_warn_always(True)),
    "autocast on cpu": (SETTINGS, lambda: torch.set_autocast_enabled("cpu", True)),
    "cudnn.benchmark": (SETTINGS, lambda: setattr(torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark)),
    "torch's random numbers": (RANDOM, lambda: torch.manual_seed(7)),
    "numpy's random numbers": (RANDOM, lambda: np.random.seed(7)),  # noqa: NPY002 - that generator is meant
    "Python's random numbers": (RANDOM, lambda: random.seed(7)),
    "working directory": (PROCESS, lambda: os.chdir(tempfile.gettempdir())),
    "environment (A_SECRET)": (PROCESS, lambda: os.environ.__setitem__("A_SECRET", "value")),
    "sys.path": (PROCESS, lambda: sys.path.append("/nowhere")),
    "warning filters": (PROCESS, lambda: warnings.simplefilter("ignore")),
    "logging": (PROCESS, lambda: logging.getLogger().setLevel(logging.CRITICAL)),
    "signal handlers": (PROCESS, lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN)),
    "locale": (PROCESS, lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C")),
    "decimal context": (PROCESS, lambda: setattr(decimal.getcontext(), "prec", 5)),
    "numpy's handling of floating-point errors": (
        PROCESS,
        lambda: np.seterr(all="ignore" if np.geterr()["divide"] != "ignore" else "raise"),
    ),
    "standard output": (PROCESS, lambda: setattr(sys, "stdout", io.StringIO())),
    "garbage collection": (PROCESS, gc.disable),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_and_put_back(name: str) -> None:
    group, change = CHANGES[name]
    before = Snapshot()
    with kept():  # should the test fail
        change()
        assert {group: True} == {found: name in said for found, said in before.restore().items()}
        assert before.restore() == {}, "it is as it was"
    assert "value" not in str(before.restore())


def test_every_state_that_can_be_changed_here_is_tried() -> None:
    untried = {state.name for state in STATES} - {name.partition(" (")[0] for name in CHANGES}
    assert all(name.startswith(("cudnn.", "cuda.", "mkldnn.", "CUDA", "autocast on cuda")) for name in untried), untried


@pytest.mark.parametrize("name", ["torch's random numbers", "working directory", "flushing of denormal numbers"])
def test_a_call_that_leaves_something_changed_has_a_verdict_of_its_own(name: str) -> None:
    group, change = CHANGES[name]

    def sin(*_: object) -> None:
        change()

    contender = Contender("sinner", "", lambda spec: TwinLossOnly(spec, sin), "float32", time_limit=100.0)
    with kept():
        comparison = compare(CASE, FLOAT32, [contender], shipped()["reference"], (STAGE, "loss"))
    found = {(finding.stage, finding.quantity): finding.what for finding in comparison.results[0].findings}
    assert found.keys() == {(STAGE, group)}, comparison.report()
    assert name in found[STAGE, group]


def test_what_a_library_changes_as_it_is_loaded_is_its_own() -> None:
    name = "twinloss_stand_in_for_a_library"

    def load() -> None:
        sys.modules[name] = sys
        os.environ["OF_A_LIBRARY"] = "1"

    try:
        assert call_contender(Contender("loads", "", lambda _: None), load).changed == {}  # type: ignore[arg-type, return-value]
        assert os.environ["OF_A_LIBRARY"] == "1", "the library may rely on it"
    finally:
        del sys.modules[name], os.environ["OF_A_LIBRARY"]
