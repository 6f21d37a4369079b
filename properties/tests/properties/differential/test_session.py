"""The differential run as its users start it: of a right candidate, a wrong one, and ones that hang or take the process along."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from oracle.tools.programs import run_python

CANDIDATE = """
import dataclasses
from twinloss import DetectionLoss

def make(spec):
    return DetectionLoss(dataclasses.replace(spec, topk=max(spec.topk - {fewer}, 1)))

make.arithmetic = "float32"
"""

Session = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Runs the differential run in a process of its own; what it writes stays in the test's folder."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            "-m",
            "pytest",
            "-p",
            "properties.differential.plugin",
            "properties/differential",
            "-p",
            "no:cacheprovider",
        ]
        written = ["--rows", str(tmp_path / "rows.parquet"), "--cases", str(tmp_path / "cases"), "--run-seed", "1", "--shrink", "2"]
        return run_python(*command, *written, *arguments, paths=[tmp_path])

    return run


def write(folder: Path, fewer: int) -> str:
    (folder / "mine.py").write_text(CANDIDATE.format(fewer=fewer))
    return "mine:make"


def test_the_twin_passes(session: Session, tmp_path: Path) -> None:
    ended = session("--scale", "0.003", "-k", "float64-cpu-tiny or float32-cpu-tiny")
    assert ended.returncode == 0, ended.stdout
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert {"twin", "reference"} <= set(rows["contender"])
    assert not (rows["verdict"] == "DIFFER").any()
    assert not list(tmp_path.glob("part-*")), "the workers' parts are joined"
    assert not list(tmp_path.glob("cases/*"))


def test_a_wrong_candidate_is_shown_replayed_and_fixed(session: Session, tmp_path: Path) -> None:
    ended = session("--scale", "0.004", "-k", "float32-cpu-tiny", "--candidate", write(tmp_path, fewer=1))
    assert ended.returncode == 1
    said = ended.stdout
    assert re.search(r"mine:make on \w{12} \(float32, cpu\)", said)
    assert "assign, " in said, "the stage that differs is named"
    for line in (
        r"where +image \d+",
        r"exact +\S",
        r"reference +\S",
        r"candidate +\S",
        r"error +\S+, \S+ × the allowance of",
        r"shapes +\w+ .*\(",
    ):
        assert re.search(rf"^E? +{line}", said, re.MULTILINE), line
    assert re.search(r"looks like K = \d+ instead of \d+", said)
    replays = re.findall(r"nox -s diff -- --replay (\w{12})", said)
    saved = [path.stem for path in (tmp_path / "cases").glob("*.json")]
    assert set(replays) == set(saved)
    assert len(saved) == 1

    again = session("--replay", saved[0], "--candidate", "mine:make")
    assert again.returncode == 1
    assert f"FAILED: mine:make on {saved[0]} (float32)" in again.stdout

    fixed = session("--replay", saved[0][:6], "--candidate", write(tmp_path, fewer=0))
    assert fixed.returncode == 0, fixed.stdout
    assert f"FIXED: mine:make on {saved[0]} (float32)" in fixed.stdout


@pytest.mark.parametrize("name", ["aborts", "hangs_in_native_code"])
def test_a_candidate_that_takes_the_process_along_is_named_by_what_remains(session: Session, tmp_path: Path, name: str) -> None:
    candidate = f"properties.selfcheck.sample_candidates:{name}"
    ended = session(
        "--scale",
        "0.001",
        "-k",
        "float32-cpu-tiny",
        "-n",
        "1",
        "--max-worker-restart",
        "0",
        "--time-limit",
        "0.5",
        "--candidate",
        candidate,
    )
    assert ended.returncode == 1, ended.stdout
    assert "conduct, ends the process: ended the process: it crashed, or hung in native code" in ended.stdout
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert [tuple(row) for row in rows[["contender", "stage", "quantity", "verdict"]].to_numpy()] == [
        (candidate, "conduct", "ends the process", "DIFFER")
    ]
    assert not list(tmp_path.glob("calling-*"))
    assert len(list((tmp_path / "cases").glob("*.json"))) == 1


def test_a_candidate_that_hangs_does_not_hang_the_run(session: Session, tmp_path: Path) -> None:
    candidate = "properties.selfcheck.sample_candidates:hangs"
    ended = session("--scale", "0.002", "-k", "cpu-tiny and float32 and generated", "--time-limit", "0.5", "--candidate", candidate)
    assert ended.returncode == 1
    assert "conduct, hangs: the call took more than the 0.5 s that a call may take" in ended.stdout
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    hangs = rows[(rows["stage"] == "conduct") & (rows["verdict"] == "DIFFER")]
    assert set(hangs["quantity"]) == {"hangs"}
    assert len(hangs) == 1, "it is not asked again"
