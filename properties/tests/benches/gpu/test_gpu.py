"""The GPU run without a GPU: it reports that nothing was measured, and a dry run ends."""

from __future__ import annotations

import json
import subprocess
import time
import warnings
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from benches.gpu import correctness, turns
from benches.gpu.__main__ import CHECKS, NO_GPU
from benches.gpu.dry_run import DRY_RUN_CHECKS
from benches.gpu.limits import LIMITS
from benches.measure import cuda
from oracle.tools.programs import run_python


def _run(module: str, out: Path, interpret: bool) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    done = run_python("-W", "ignore", "-m", module, "--out", out, env={"TRITON_INTERPRET": str(int(interpret))})
    return done, [json.loads(line) for line in (out / "rows.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_rows_list_what_was_not_measured(tmp_path: Path) -> None:
    done, rows = _run("benches.gpu", tmp_path, interpret=False)
    assert done.returncode == 0, done.stderr
    assert NO_GPU in done.stdout
    assert {row["check"] for row in rows} >= set(CHECKS)
    assert {row["verdict"] for row in rows} == {"not measured"}
    assert {(row["what"], row["workload"], row["limit"]) for row in rows} >= {(t.what, t.workload, t.limit) for t in LIMITS}
    assert (tmp_path / "rows.parquet").exists()


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed here, so there was no dry run of the GPU run")
def test_a_dry_run_runs_every_check_to_its_end(tmp_path: Path) -> None:
    done, rows = _run("benches.gpu.dry_run", tmp_path, interpret=True)
    stopped = [row["detail"] for row in rows if row["what"] == "ran to its end"]
    assert not stopped, stopped
    assert {row["check"].replace(" ", "-") for row in rows} >= set(DRY_RUN_CHECKS) - {"kernels"}, done.stdout + done.stderr
    # What does not depend on the machine has to hold here already.
    sure = [row for row in rows if row["check"] in {"bits", "graph", "judge", "ties", "properties", "beyond 32 bits"}]
    assert [row["detail"] for row in sure if row["verdict"] not in {"passed", "measured"}] == []
    # Every contender of these checks runs here, if not as on a GPU.
    timed = [row for row in rows if row["check"] in {"training", "sizes", "compiled"}]
    assert [row["detail"] for row in timed if row["verdict"] != "measured"] == []


def test_the_kernels_tests_come_from_the_folder_that_is_given(tmp_path: Path) -> None:
    (without,) = correctness.kernel_tests(None)
    assert (without.verdict, without.detail) == ("not measured", "no tests given: name their folder with --kernel-tests")
    (tmp_path / "helpers.py").write_text("")
    (empty,) = correctness.kernel_tests(tmp_path)
    assert (empty.verdict, empty.detail) == ("not measured", f"no tests in {tmp_path}")
    for name, held in (("held", True), ("broken", False)):
        (tmp_path / f"{name}.py").write_text(f"def test_it(): assert {held}")
    assert {found.what: found.verdict for found in correctness.kernel_tests(tmp_path)} == {"held": "passed", "broken": "failed"}


def test_an_unknown_check_or_folder_is_named(tmp_path: Path) -> None:
    done = run_python("-m", "benches.gpu", "bit", "--out", tmp_path)
    assert done.returncode == 2
    assert "there is no check 'bit'; there are kernel-tests, counts" in done.stderr
    done = run_python("-m", "benches.gpu", "--kernel-tests", "nowhere", "--out", tmp_path)
    assert done.returncode == 2
    assert "--kernel-tests nowhere: there is no such folder" in done.stderr


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=1)


def _raise(error: Exception) -> None:
    raise error


def test_only_a_call_that_synchronises_counts_as_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda _: _warn("may not detect all synchronizing operations"))
    assert cuda.synchronisations(lambda: None) == []
    (place,) = cuda.synchronisations(lambda: _warn("called a synchronizing CUDA operation"))
    assert Path(__file__).name in place


def test_a_contender_that_fails_is_named_with_its_reason_and_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def fails() -> None:
        with ExitStack() as capture:
            capture.callback(_raise, RuntimeError("the capture ended"))
            _raise(ValueError("no capture of this"))

    steps, reasons = turns.prepared({"fails": lambda: fails, "runs": lambda: lambda: None}, warm=1)
    assert list(steps) == ["runs"]
    assert reasons == {"fails": "ValueError: no capture of this; then RuntimeError: the capture ended"}


def test_a_block_that_takes_too_long_is_ended() -> None:
    with pytest.raises(TimeoutError, match="it took longer than"), turns.at_most(0.05):
        time.sleep(5)
