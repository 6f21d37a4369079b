"""The differential run as its users start it: of a right candidate, a wrong one, and ones that hang or take the process along."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from oracle.tools.programs import run_python
from properties.differential.run_folder import RunFolder
from reports.card.__main__ import main as card_main

ROOT = Path(__file__).parents[4]
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

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
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
        return run_python(*command, *written, *arguments, paths=[tmp_path], env=variables)

    return run


def write(folder: Path, fewer: int) -> str:
    (folder / "mine.py").write_text(CANDIDATE.format(fewer=fewer))
    return "mine:make"


def test_the_twin_passes_whatever_a_killed_run_left(session: Session, tmp_path: Path) -> None:
    foreign = pd.DataFrame([{"contender": "foreign", "verdict": "DIFFER"}])
    dead = tmp_path / ".run-of-a-dead-one"
    for folder in (tmp_path, dead):
        folder.mkdir(exist_ok=True)
        (folder / "calling-gw0.json").write_text('{"contender": "foreign"}')
        foreign.to_parquet(folder / "part-gw0.parquet")
        (folder / "part-gw1-00001.parquet").write_bytes(b"PAR1 half of a file")
    alive = RunFolder.create(tmp_path / "rows.parquet")
    assert not dead.exists()
    foreign.to_parquet(alive.part())
    ended = session("--scale", "0.003", "-k", "float64-cpu-tiny or float32-cpu-tiny")
    assert ended.returncode == 0, ended.stdout
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert {"twin", "reference"} <= set(rows["contender"])
    assert "foreign" not in set(rows["contender"])
    assert not (rows["verdict"] == "DIFFER").any()
    assert len(alive.parts()) == 1, "a run that is alive keeps what it has"
    alive.close()
    assert not list(tmp_path.glob(".*")), "the workers' parts are joined"
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
    assert re.search(r"K - 1 instead of K \[5\.4\].*: explains (\d+) of \1 batches", said)
    assert re.search(r"^searching for what explains the differences of mine:make \(detect, \d+ batches\)", said, re.MULTILINE)
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


TINY = ("--scale", "0.002", "-k", "cpu-tiny-0 and float32 and not autocast and not float64")
ONE_WORKER = ("-n", "1", "--max-worker-restart", "0")


def test_a_candidate_that_takes_the_process_along_is_named_by_what_remains(session: Session, tmp_path: Path) -> None:
    candidate = "properties.selfcheck.sample_candidates:aborts"
    ended = session(*TINY, *ONE_WORKER, "--in-process", "--time-limit", "0.5", "--candidate", candidate)
    assert ended.returncode == 1, ended.stdout
    assert (
        "conduct, ends the process: ended the process; repeated in a process of its own, with 0.5 s for a call, that one " in ended.stdout
    )
    assert "ended by the signal SIGABRT" in ended.stdout
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert [tuple(row) for row in rows[["contender", "stage", "quantity", "verdict"]].to_numpy()] == [
        (candidate, "conduct", "ends the process", "DIFFER")
    ]
    assert not list(tmp_path.glob(".*"))
    assert len(list((tmp_path / "cases").glob("*.json"))) == 1


def test_a_candidate_that_hangs_does_not_hang_the_run(session: Session, tmp_path: Path) -> None:
    candidate = "properties.selfcheck.sample_candidates:hangs"
    ended = session(*TINY, "--time-limit", "0.5", "--candidate", candidate)
    assert ended.returncode == 1
    assert "conduct, hangs: the call did not come back within 5 s" in ended.stdout
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    hangs = rows[(rows["stage"] == "conduct") & (rows["verdict"] == "DIFFER") & (rows["example"] == 0)]
    assert set(hangs["quantity"]) == {"hangs"}
    assert len(hangs) == 1, "it is not asked again"


def test_what_is_no_fault_of_a_candidate_s_and_what_is(session: Session, tmp_path: Path) -> None:
    """What the suite loads at its first use is not the candidate's time, a warning is told, and a message that cannot be written is."""
    names = [f"properties.selfcheck.sample_candidates:{name}" for name in ("silent", "warns", "unprintable")]
    ended = session(*TINY, "--time-limit", "3", *(word for name in names for word in ("--candidate", name)))
    assert ended.returncode == 1
    assert "conduct, raises: raised CancelledError: half a character: \\ud83d" in ended.stdout
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert set(rows.loc[rows["verdict"] == "DIFFER", "contender"]) == {"properties.selfcheck.sample_candidates:unprintable"}
    assert card_main(["--rows", str(tmp_path / "rows.parquet"), "--out", str(tmp_path)]) == 0
    card = (tmp_path / "card-properties-selfcheck-sample_candidates-warns.md").read_text("utf-8")
    assert "## Warnings" in card
    assert "FutureWarning: this loss will be another in the next release (selfcheck/sample_candidates.py:" in card
    assert "| warnings |" not in card, "it is no failure mode"


@pytest.mark.parametrize(("name", "more"), [("SIGINT", ("-n", "1")), ("SIGTERM", ())])
def test_an_interruption_accuses_nobody_and_keeps_what_was_compared(
    session: Session, tmp_path: Path, name: str, more: Sequence[str]
) -> None:
    variables = {"HUNG_ONCE": str(tmp_path / "calls"), "SIGNAL": name, "CALLS": "15"}
    ended = session(
        *TINY, "--scale", "0.02", *more, "--candidate", "properties.selfcheck.sample_candidates:interrupted", "--in-process", **variables
    )
    assert ended.returncode == 2, ended.stdout
    assert f"interrupted by {name}" in ended.stdout
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert set(rows["verdict"]) <= {"AGREE", "AMBIGUOUS", "NOT COMPARED"}
    assert not list(tmp_path.glob("cases/*"))
    assert not list(tmp_path.glob(".*"))
