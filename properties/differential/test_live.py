"""Batches that the last ``nox -s train`` kept from inside its trainings; where there was none, nothing is collected."""

from __future__ import annotations

import pytest

from oracle.cases.case import Case, Setting
from oracle.contract.verdict import Verdict
from properties.differential.recorder import Recorder
from properties.tasks import task_of
from properties.training.captured_batches import load_all
from reports.escape import plain

SETTINGS = (Setting("float64"), Setting("float32"), Setting("float16"), Setting("bfloat16"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.option
    live = [] if option.replay is not None or option.labels else [case for case in load_all() if task_of(case).name in option.task]
    metafunc.parametrize("live", live, ids=[case.digest for case in live])


def test_live(live: Case, recorder: Recorder) -> None:
    names = sorted(recorder.candidates) or ("twin", "reference")
    origin = "kept from inside a training"
    compared = [recorder.compare(live, setting, names, origin) for setting in SETTINGS]
    if failed := [comparison for comparison in compared if comparison.verdict is Verdict.DIFFER]:
        pytest.fail(plain(recorder.conclude(failed, len(compared), origin)), pytrace=False)
    if left_out := recorder.all_left_out(names):
        pytest.fail(f"not compared any further: {left_out}", pytrace=False)
