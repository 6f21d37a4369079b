"""Runs programs and ends them if they hang, however busy the machine is.

A hanging program either computes forever or waits forever. There are two limits: on the processor time of the program and its descendants,
and on the time in which they use almost none. On a busy machine a program gets less processor time per second, but almost none only if it
waits.
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
"""Largest processor time of a program and its descendants, far above that of any program of this project."""

IDLE_S = 600.0
"""Largest time in which they use almost no processor time: waiting for a disk, another process or a network."""

IDLE_SHARE = 0.005
"""Share of one processor that counts as almost none: more than a polling thread uses, less than a program gets on a busy machine."""


class HangError(RuntimeError):
    """A program hung and was ended; the message gives the exceeded limit and the last output."""


class HangDetector:
    """Decides whether a process hangs.

    Args:
        pid: process id.
        busy_s: largest processor time of the process and its descendants from now on, in seconds.
        idle_s: largest time in which they use almost no processor time, in seconds.
        clock: returns the time in seconds.
    """

    def __init__(self, pid: int, busy_s: float = BUSY_S, idle_s: float = IDLE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.pid, self.busy_s, self.idle_s, self.clock = pid, busy_s, idle_s, clock
        self.first = self.last = processor_seconds(pid)
        self.moved = clock()

    @property
    def reason(self) -> str:
        """The limit that the process has exceeded, as a sentence; empty if none."""
        used = processor_seconds(self.pid)
        if abs(used - self.last) > IDLE_SHARE * self.idle_s:  # abs: the sum falls when a descendant ends.
            self.last, self.moved = used, self.clock()
        if used - self.first > self.busy_s:
            return f"it used more than {self.busy_s:g} s of processor time"
        if self.clock() - self.moved > self.idle_s:
            return f"it used no processor time for {self.idle_s:g} s"
        return ""


@contextlib.contextmanager
def end_if_it_hangs(pid: int, busy_s: float = BUSY_S, idle_s: float = IDLE_S) -> Iterator[list[str]]:
    """Ends a process if it hangs while the block waits for it; the yielded list then holds the reason."""
    over, why = threading.Event(), list[str]()
    # Finding the descendants takes milliseconds; a process that ends within the first interval costs nothing.
    every_s = min(max(min(busy_s, idle_s) / 50, 0.25), 10.0)

    def look() -> None:
        if over.wait(every_s):
            return
        detector = HangDetector(pid, busy_s, idle_s)
        while not over.wait(every_s):
            if reason := detector.reason:
                why.append(reason)
                end_tree(pid)
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
    """Runs a program in a session of its own, so that signals to its process group reach no other, and captures its output.

    Raises:
        HangError: the program hangs.
    """
    with subprocess.Popen(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            with end_if_it_hangs(process.pid, busy_s, idle_s) as why:
                out, err = process.communicate()
        except BaseException:
            end_tree(process.pid)
            raise
    if why:
        raise HangError(f"{' '.join(command)} hangs: {why[0]}; it printed last:\n{(out + err)[-4000:]}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run_python(
    *arguments: str | Path, paths: Sequence[Path] = (), cwd: Path | None = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs this Python with one thread in :func:`python_environment`.

    Raises:
        HangError: the program hangs.
    """
    return run([sys.executable, *map(str, arguments)], cwd=cwd, env=python_environment(*paths) | dict(env or {}))


def python_environment(*paths: Path) -> dict[str, str]:
    """Returns environment variables with the project and the given folders on Python's path, and without those of pytest."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "impl", ROOT, *paths))), "OMP_NUM_THREADS": "1"}


def processor_seconds(pid: int) -> float:
    """Returns the processor time of a process and its descendants in seconds; 0 if there is no such process."""
    return sum(_seconds(process) for process in _family(pid))


def end_tree(pid: int) -> None:
    """Kills a process and its descendants."""
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
