"""Programs that hang are ended, whichever way they hang; programs that are slow because the machine is busy are not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from oracle.tools import programs as patience
from oracle.tools.programs import HangDetector, HangError, end_if_it_hangs, run, run_python

BUSY = "while True: pass"


@pytest.fixture
def crowd() -> Iterator[None]:
    """Two busy loops for each core."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2 * (os.cpu_count() or 1))]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (BUSY, "it used more than 0.6 s of processor time"),
        ("import time; time.sleep(3600)", "it used no processor time for 2 s"),
        ("import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])", "it used more than 0.6 s of processor time"),
        ("import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()", "it used no processor time for 2 s"),
    ],
    ids=["computes", "sleeps", "child computes", "deadlock"],
)
def test_what_hangs_is_ended_and_said_how(program: str, why: str) -> None:
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(HangError, match=why) as hang:
        run([sys.executable, "-c", f"print('begun', flush=True)\n{program}"], busy_s=0.6, idle_s=2.0)
    assert str(hang.value).endswith("it printed last:\nbegun\n")
    assert [child for child in set(psutil.Process().children(recursive=True)) - before if child.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.usefixtures("crowd")
def test_on_a_busy_machine_nobody_is_accused() -> None:
    program = "import time\nwhile time.process_time() < 1: pass\nprint('the end')"
    start = time.monotonic()
    done = run([sys.executable, "-c", program], busy_s=1.8, idle_s=20.0)
    assert (done.returncode, done.stdout) == (0, "the end\n")
    assert time.monotonic() - start > 1


def test_time_is_counted_from_the_question_on() -> None:
    """A process that has worked long before is not accused of it, and one that works a little now and then does not stand still."""
    now = 0.0
    patient = HangDetector(os.getpid(), busy_s=100, idle_s=10, clock=lambda: now)
    assert patient.first > 0
    for _ in range(3):
        now += 8
        end = time.process_time() + 0.15
        while time.process_time() < end:
            pass
        assert not patient.reason
    now += 11
    assert patient.reason == "it used no processor time for 10 s"


def test_who_is_gone_is_not_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        with end_if_it_hangs(process.pid) as why:
            assert patience.processor_seconds(process.pid) < 60
    assert why == []


def test_python_finds_the_rooms_and_is_in_no_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--nonsense")
    (tmp_path / "mine.py").write_text("import sys; print('error', file=sys.stderr)")
    program = "import mine, os, twinloss, oracle; print('PYTEST_ADDOPTS' in os.environ, os.environ['MORE'])"
    done = run_python("-c", program, paths=[tmp_path], env={"MORE": "more"})
    assert (done.returncode, done.stdout, done.stderr.splitlines()[-1]) == (0, "False more\n", "error")
