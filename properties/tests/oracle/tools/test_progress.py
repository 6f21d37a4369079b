"""How far a run is: what is learnt from what was done, and what a terminal and a log show of it."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from oracle.cases.case import Setting
from oracle.tools import progress as module
from oracle.tools.programs import ROOT, python_environment, run_python
from oracle.tools.progress import Progress, ProgressFile, TimeEstimate, duration
from properties.differential.fuzz import __main__ as fuzz
from properties.differential.fuzz.turn import Turn, TurnResult
from properties.differential.saved_cases import ReplayCommand


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_is_learnt_from_what_was_done() -> None:
    clock = Clock()
    pace = TimeEstimate({"quick": 3, "slow": 3}, clock)
    assert str(pace.left_s) == "nan"
    for piece, seconds in (("quick", 2.0), ("slow", 60.0)):
        clock.now += seconds
        pace.done(piece)
    assert pace.left_s == pytest.approx(2 * 62)
    assert pace.share == pytest.approx(2 / 6)
    clock.now += 1
    assert pace.left_s == pytest.approx(2 * 62 - 1)
    for piece in ("quick", "slow"):
        pace.done(piece, 2)
    assert (pace.left_s, pace.share) == (0, 1)


def test_a_piece_that_takes_long_leaves_the_time_of_those_after_it() -> None:
    clock = Clock()
    pace = TimeEstimate({"a": 4}, clock)
    clock.now += 3
    pace.done("a")
    clock.now += 30
    assert pace.left_s == pytest.approx(2 * 3)


def test_two_processes_take_half_the_time() -> None:
    clock = Clock()
    pace = TimeEstimate({"a": 10}, clock)
    for _ in range(2):
        clock.now += 3
        pace.done("a", 2, seconds=6)  # Each took 3 s, beside another.
    assert pace.left_s == pytest.approx(9)


def test_what_is_dropped_is_not_waited_for_and_what_comes_unplanned_is_counted() -> None:
    pace = TimeEstimate({"a": 10}, Clock())
    pace.done("a", 4)
    pace.add("a", -5)
    assert (pace.total, pace.share) == (5, 0.8)
    pace.done("a", 3)
    assert (pace.total, pace.share) == (7, 1)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (124, "2 min 04 s"), (3600, "1 h 00 min"), (3 * 3600 + 119, "3 h 01 min")])
def test_a_duration_is_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_says_what_is_done_and_left_and_who_differs() -> None:
    clock = Clock()
    shown = Progress("batches compared", found=("differ", "none differs"), file=io.StringIO(), clock=clock)
    assert shown.text == "starting, 0 s so far, time left not known yet; none differs"
    shown.plan({"a": 2000})
    clock.now = 60
    shown.done("a", 500)
    for who, stage in [("m:f", "assign"), ("m:f", "terms"), ("m:f", "assign"), ("b", "loss"), ("c", "loss"), ("d", "loss"), ("e", "loss")]:
        shown.differs(who, stage)
    assert shown.text == (
        "500 of 2,000 batches compared, 1 min 00 s so far, about 3 min 00 s left; "
        "7 differ: m:f (assign 2, terms 1), b (loss 1), c (loss 1), 2 more"
    )


def test_a_run_that_ends_by_the_clock_is_as_far_as_the_clock() -> None:
    clock = Clock()
    shown = Progress("batches compared", file=io.StringIO(), limit_s=600, clock=clock)
    clock.now = 150
    shown.done("turn", 100)
    assert shown.share == 0.25
    assert shown.text == "100 batches compared, 2 min 30 s so far, about 7 min 30 s left"


def test_notes_of_other_processes_are_counted_once_and_when_they_are_whole(tmp_path: Path) -> None:
    shown = Progress("batches", found=("differ", ""), file=io.StringIO())
    shown.follow(tmp_path, times=3)
    one, other = ProgressFile(tmp_path / "1.jsonl"), ProgressFile(tmp_path / "2.jsonl")
    for notes in (one, other):
        notes.plan({"a": 4})
    one.done("a")
    other.done("a", [("mine:make", "terms")])
    other.drop("a", 2)
    with (tmp_path / "2.jsonl").open("a") as file:
        file.write('{"kind": "a", "sec')
    for _ in range(2):
        shown._collect()
    assert (shown.estimate.total, shown.estimate.made.total(), shown.differing) == (10, 2, {"mine:make": {"terms": 1}})
    with (tmp_path / "2.jsonl").open("a") as file:
        file.write('onds": 1, "differing": []}\n')
    shown._collect()
    assert shown.estimate.made.total() == 3


def test_a_turn_of_the_search_counts_batches_and_the_first_stage_that_differs() -> None:
    lines = [("a", "twin", "AGREE", "assign"), ("b", "mine:make", "DIFFER", "assign"), ("b", "mine:make", "DIFFER", "loss")]
    rows = pd.DataFrame(lines, columns=["case", "contender", "verdict", "stage"])
    turn = Turn(0, 1, Setting(), "tiny", 100, ("mine:make",), 30.0, 1.0, ReplayCommand())
    shown = Progress("batches compared", found=("differ", ""), file=io.StringIO(), limit_s=600)
    for found in (rows, pd.DataFrame()):
        fuzz._count(TurnResult(turn, found, "", "", ""), shown)
    assert (shown.estimate.made.total(), shown.differing) == (2, {"mine:make": {"assign": 1}})


def worked(shown: Progress, share: float = 0.5) -> None:
    """Do some of the work, and let everybody look at it."""
    with shown:
        shown.plan({"a": 100})
        shown.done("a", round(100 * share))
        shown.print_line("a line that stays")
        threading.Event().wait(3 * module.POLL_S)


def test_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # As many a log's server has it.
    monkeypatch.setattr(module, "POLL_S", 0.02)
    log = io.StringIO()
    worked(Progress("things done", file=log))
    stays, told, last = log.getvalue().splitlines()
    assert stays == "a line that stays"
    assert re.fullmatch(r"\[ 50%\] 50 of 100 things done, 0 s so far, about \d s left", told)
    assert re.fullmatch(r"50 of 100 things done in \d s", last)


def test_quiet_shows_what_is_said_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.02)
    log = io.StringIO()
    worked(Progress("things done", file=log, quiet=True))
    assert log.getvalue() == "a line that stays\n"


def on_terminal(command: Sequence[str]) -> tuple[int, str]:
    """Exit code and output of a program on a terminal of 200 columns."""
    master, slave = pty.openpty()
    environment = python_environment() | {"TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = bytearray()
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # On Linux this is how a terminal ends.
            part = b""
        if not part:
            break
        said += part
    os.close(master)
    return process.wait(), said.decode()


WORK = """
import threading
from oracle.tools.progress import Progress
with Progress("things done", found=("differ", "none differs")) as shown:
    shown.plan({"a": 100})
    shown.done("a", 50)
    shown.differs("mine:make", "terms")
    shown.print_line("a line that stays")
    threading.Event().wait(2)
print("the end")
"""


def test_a_terminal_gets_a_bar() -> None:
    code, said = on_terminal([sys.executable, "-c", WORK])
    assert code == 0, said
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", said)
    assert re.search(r"━+ +50 % 50 of 100 things done, \d s so far, about \d s left; 1 differ: mine:make \(terms 1\)", plain)
    assert "a line that stays\r\n" in plain
    *_, last, end, _ = plain.split("\r\n")
    assert re.fullmatch(r"\s*50 of 100 things done in \d s; 1 differ: mine:make \(terms 1\)", last.rpartition("\r")[2])
    assert end == "the end"


DIFF = ("-m", "pytest", "-p", "properties.differential.plugin", "-p", "no:cacheprovider", "--run-seed", "1", "--shrink", "0")


def differential(folder: Path, *options: str) -> list[str]:
    (folder / "mine.py").write_text(
        "import dataclasses\nfrom twinloss import DetectionLoss\n"
        "def make(spec):\n    return DetectionLoss(dataclasses.replace(spec, gains=(1, 2, 3)))\nmake.arithmetic = 'float32'\n"
    )
    written = ("--rows", str(folder / "rows.parquet"), "--cases", str(folder / "cases"))
    chosen = ("-k", "float32-cpu-tiny and generated", "--scale", "0.04", *options)
    return [sys.executable, *DIFF, "properties/differential", *written, *chosen]


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_differential_run_shows_batches_not_dots(tmp_path: Path, processes: str) -> None:
    code, said = on_terminal(differential(tmp_path, "-n", processes, "--task", "detect"))
    assert code == 0, said
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", said)
    assert re.search(r"━+ +\d+ % \d+ of 20 batches compared, .*, about .* left; none differs", plain), plain
    assert re.search(r"20 of 20 batches compared in [^;]*; none differs\s*\r\n", plain), plain
    assert not re.search(r"^\.+$|%\]", plain, re.MULTILINE), "pytest's dots"
    assert re.search(r"=+ 1 passed.* in \d", plain), "its summary stays"


def test_a_log_of_a_differential_run_says_who_differs_and_keeps_the_summary(tmp_path: Path) -> None:
    command = [*differential(tmp_path, "-n", "2", "--candidate", "mine:make")[1:], "--color=no"]
    ended = run_python(*command, paths=[tmp_path])
    assert ended.returncode == 1, ended.stdout
    assert "\x1b" not in ended.stdout
    found = re.search(r"^(\d+) of \d+ batches compared in [^;]*; (\d+) differ: mine:make \(\w+ \d+\)$", ended.stdout, re.MULTILINE)
    assert found, ended.stdout
    assert found[1] == found[2], "every batch shows the fault, and the run goes on"
    assert re.search(r"^FAILED properties/differential/test_generated.py::test_generated\[float32-cpu-tiny-0\]", ended.stdout, re.MULTILINE)
    assert re.search(r"=+ 1 failed.* in \d", ended.stdout)

    quiet = run_python(*differential(tmp_path, "-n", "0", "--scale", "0.001", "-q")[1:])
    assert quiet.returncode == 0, quiet.stdout
    assert "batches compared" not in quiet.stdout
