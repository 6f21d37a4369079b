"""Programs that are started and waited for: one that hangs is ended, one that is slow because the machine is busy is not.

What hangs either computes without end or waits without end. So there are two limits, and neither is one of the clock alone: on the
processor time that a program and its descendants have used, and on how long they may use none. On a machine that runs ten other
things a program gets less processor time a second, and neither limit comes nearer for it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
BUSY_S = 3600.0
"""Processor time of a program and its descendants. None of ours comes near; a loop without end does."""

IDLE_S = 600.0
"""Time in which they may use hardly any: waiting for a disk, another process, or an answer from a network."""

HARDLY_ANY = 0.005
"""Of one processor: more than a thread uses that now and then looks whether there is something to do, less than a crowd leaves to each."""


class HangError(RuntimeError):
    """A program hangs, and was ended; the message says how one can tell, and what it printed last."""


class Patience:
    """Judges whether a process hangs.

    Args:
        pid: of the process.
        busy_s: processor time that it and its descendants may use from now on.
        idle_s: time in which they may use hardly any.
        clock: seconds.
    """

    def __init__(self, pid: int, busy_s: float = BUSY_S, idle_s: float = IDLE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.pid, self.busy_s, self.idle_s, self.clock = pid, busy_s, idle_s, clock
        self.first = self.last = processor_seconds(pid)
        self.moved = clock()

    @property
    def lost(self) -> str:
        """Why the process hangs; empty while nothing says that it does."""
        used = processor_seconds(self.pid)
        if abs(used - self.last) > HARDLY_ANY * self.idle_s:  # Less, too: what a descendant had used is gone with it.
            self.last, self.moved = used, self.clock()
        if used - self.first > self.busy_s:
            return f"it used more than {self.busy_s:g} s of processor time"
        if self.clock() - self.moved > self.idle_s:
            return f"it used no processor time for {self.idle_s:g} s"
        return ""


@contextlib.contextmanager
def watched(pid: int, busy_s: float = BUSY_S, idle_s: float = IDLE_S) -> Iterator[list[str]]:
    """Wait inside for a process: when it hangs it is ended, and why is in the list."""
    over, why = threading.Event(), list[str]()
    # Its family is found among all processes, which takes milliseconds; who answers at once costs none.
    every_s = min(max(min(busy_s, idle_s) / 50, 0.25), 10.0)

    def look() -> None:
        if over.wait(every_s):
            return
        patience = Patience(pid, busy_s, idle_s)
        while not over.wait(every_s):
            if lost := patience.lost:
                why.append(lost)
                end(pid)
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield why
    finally:
        over.set()
        thread.join()


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = ROOT,
    env: Mapping[str, str] | None = None,
    busy_s: float = BUSY_S,
    idle_s: float = IDLE_S,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in a session of its own so that a signal to its group reaches no other, and keep what it prints.

    Raises:
        HangError: it hangs.
    """
    with subprocess.Popen(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            with watched(process.pid, busy_s, idle_s) as why:
                out, err = process.communicate()
        except BaseException:
            end(process.pid)
            raise
    if why:
        raise HangError(f"{' '.join(command)} hangs: {why[0]}; it printed last:\n{(out + err)[-4000:]}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run_python(
    *arguments: str | Path, paths: Sequence[Path] = (), cwd: Path | None = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run this Python with the rooms, and these folders, on its path, on one core, as if no test were running.

    Raises:
        HangError: it hangs.
    """
    return run([sys.executable, *map(str, arguments)], cwd=cwd, env=surroundings(*paths) | dict(env or {}))


def surroundings(*paths: Path) -> dict[str, str]:
    """The environment of a program that is started with the rooms, and these folders, on Python's path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "impl", ROOT, *paths))), "OMP_NUM_THREADS": "1"}


def processor_seconds(pid: int) -> float:
    """Processor time that a process and its descendants have used; 0 when there is no such process."""
    return sum(_seconds(process) for process in _family(pid))


def end(pid: int) -> None:
    """End a process and its descendants."""
    for process in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _seconds(process: psutil.Process) -> float:
    try:
        used = process.cpu_times()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0
    return float(used.user + used.system + used.children_user + used.children_system)
