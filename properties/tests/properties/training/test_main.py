"""``nox -s train``, from data to verdict, on a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from oracle.tools.progress import Progress
from properties.tests.properties.training.helpers import END_TO_END, PLAIN, LargerGradient
from properties.tests.properties.training.no_network import offline
from properties.training import __main__ as command
from properties.training import schedule
from properties.training.captured_batches import load_all
from properties.training.runs import Options, Run, perform
from reports import __main__ as reports
from twinloss.loss import LOSSES

pytest.importorskip("oracle.reference.training")


SMALL = ("--imgsz", "64", "--batch", "4", "--model", str(PLAIN), "--end-to-end", str(END_TO_END))


class SameProcess:
    """Stands in for a pool of processes: runs each task in this process at once, without a network."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> SameProcess:  # noqa: PYI034 - as twinloss.hook.Hook
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, function: Callable[..., None], *arguments: Any) -> Future[None]:
        future: Future[None] = Future()
        with offline():
            function(*arguments)
        future.set_result(None)
        return future


@pytest.fixture
def train(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # restored, as the command sets it
    monkeypatch.setattr(schedule, "ProcessPoolExecutor", SameProcess)
    monkeypatch.setattr(schedule, "perform_quietly", perform)
    monkeypatch.setattr(schedule, "NUDGED", 2)

    def run(*arguments: str) -> int:
        return command.main(["--data", str(data), "--out", str(tmp_path / "out"), "--seeds", "2", *SMALL, *arguments])

    return run


def test_ends_with_a_verdict_a_report_and_captured_cases(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("not of an earlier comparison")
    assert train("--epochs", "2") == 0
    said = capsys.readouterr().err
    assert "train: nothing changes: the twin trains as the reference does" in said
    assert " left" in said
    assert "FAIL" not in said
    assert (tmp_path / "out" / "mine.txt").exists()
    rows = pd.read_parquet(tmp_path / "out" / "rows.parquet")
    assert set(rows["role"]) == {"reference", "repeat", "nudged", "twin", "shadow", "tolerance", "check"}
    cases = list(load_all(tmp_path / "out" / "cases"))
    steps = {tag for case in cases for tag in case.tags}
    assert {"step 0", "step 3", "one2many", "one2one"} <= steps, "early and late, both sets of the end-to-end head"
    page = ["train", "--rows", str(tmp_path / "out" / "rows.parquet"), "--out", str(tmp_path / "page"), "--exit-code"]
    assert reports.main(page) == 0
    summary = (tmp_path / "page" / "summary.md").read_text("utf-8")
    assert "Nothing changes: the twin trains as the reference does" in summary
    assert (tmp_path / "page" / "index.html").read_text("utf-8").count("<svg") >= 6


def test_a_wrong_twin_changes_the_training(
    train: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(LOSSES, "detect", LargerGradient)
    assert train("--epochs", "1") == 1
    said = capsys.readouterr().err
    assert "FAIL twin, seed 0: gradient norm at every step" in said
    assert "ok   beside the reference: gradient" in said, "beside the reference stood the right one"
    assert "train: the training changes" in said


def test_a_run_that_fails_is_named(data: Path, tmp_path: Path) -> None:
    options = Options(str(data), 64, 4, 1, str(tmp_path / "cases"))
    runs = [Run("repeat", "repeat", str(tmp_path / "nowhere.yaml"))]
    with pytest.raises(RuntimeError, match=r"the run 'repeat' failed: .*nowhere.yaml.*its printed output is in"):
        schedule.make_runs(runs, options, tmp_path, 1, schedule.RunProgress(runs, tmp_path, Progress(schedule.NOUN, quiet=True)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seeds", "1"), "--seeds is 1; it must be at least 2"),
        (("--model", "absent.pt"), "there is no checkpoint at absent.pt, and nothing is downloaded"),
    ],
)
def test_wrong_arguments(arguments: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert said in capsys.readouterr().err


def test_wrong_data_leave_the_last_report_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.parquet").write_text("of the last comparison")
    assert command.main(["--data", "nowhere.yaml", "--out", str(tmp_path)]) == 2
    assert "train: there is no data set at nowhere.yaml: give --data the YAML of one" in capsys.readouterr().err
    assert (tmp_path / "rows.parquet").exists()
