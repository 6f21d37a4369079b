"""Finds the machine's C++ compiler, and runs it within a time limit."""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from typing import NamedTuple

LIMIT_S = 1200.0
"""Time limit of one run of the compiler, in seconds, for one that hangs: it needs about 25, and minutes where the machine is busy."""

_NAMES = ("c++", "g++", "clang++")
_MOST = 1 << 20  # bytes of the compiler's output that are kept, from its end


class NoLibraryError(RuntimeError):
    """There is no library, and none can be built; the message names the reason and the remedy."""


class Outcome(NamedTuple):
    """Exit status of a run, negative for the signal that ended it, and what it printed."""

    status: int
    text: str

    def refusal(self) -> str:
        """Reason why the run failed: the compiler's output, or the exit status if it printed nothing."""
        ended = f"signal {-self.status} ended it" if self.status < 0 else f"exit status {self.status}"
        return self.text.strip()[-2000:] or ended


def find_compiler(asked: str | None = None) -> list[str]:
    """The command that runs the C++ compiler: the requested one, else the first of c++, g++ and clang++ on the path.

    Args:
        asked: a program, or a command such as ``ccache g++`` or ``g++ -m64``, quoted as in a shell; ``None`` reads the environment variable
            CXX, and an empty one counts as unset.

    Raises:
        NoLibraryError: there is no such command.
    """
    asked = (os.environ.get("CXX", "") if asked is None else asked).strip()
    whole = bool(asked and shutil.which(asked))  # a path with a space in it, not quoted
    for words in [[asked] if whole else _words("CXX", asked)] if asked else [[name] for name in _NAMES]:
        if found := shutil.which(words[0]):
            return [os.path.abspath(found), *words[1:]]  # noqa: PTH100  # a relative path stays right in another folder
    looked_for = f"CXX is {asked!r}, which names no program that can be run" if asked else "none of c++, g++ and clang++ is on the path"
    raise NoLibraryError(f"there is no C++ compiler: {looked_for}; install one, or use backend='torch'")


def more_options() -> list[str]:
    """Options of the environment variable TWINLOSS_CXXFLAGS, which follow the package's own.

    Raises:
        NoLibraryError: its quotes do not match.
    """
    return _words("TWINLOSS_CXXFLAGS", os.environ.get("TWINLOSS_CXXFLAGS", ""))


def _words(variable: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise NoLibraryError(f"{variable} is {text!r}: {error}; quote it as in a shell, or use backend='torch'") from error


def run(command: list[str], folder: str | None = None) -> Outcome:
    """Run a compiler, with its temporary files in ``folder``; after the time limit, kill it with every process that it started.

    Raises:
        NoLibraryError: it cannot be run, or took longer than :data:`LIMIT_S`.
    """
    environment = {**os.environ, "LC_ALL": "C", **({"TMPDIR": folder} if folder else {})}
    both, none = subprocess.STDOUT, subprocess.DEVNULL
    try:
        with subprocess.Popen(command, stdin=none, stdout=subprocess.PIPE, stderr=both, env=environment, start_new_session=True) as process:
            try:
                text = _listen(process, time.monotonic() + LIMIT_S)
            finally:
                _end(process)
    except subprocess.TimeoutExpired as error:
        raise NoLibraryError(
            f"the C++ compiler {command[0]} did not end within {LIMIT_S:g} s; set CXX to another, or use backend='torch'"
        ) from error
    except (OSError, ValueError) as error:
        raise NoLibraryError(f"the C++ compiler {command[0]} cannot be run: {error}; set CXX to another, or use backend='torch'") from error
    return Outcome(process.returncode, text.decode("utf-8", "replace"))


def _listen(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Output of a process until it ends. A process that outlives it, such as a compiler cache's server, can keep the pipe open."""
    heard, pipe = b"", process.stdout
    assert pipe is not None
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            ended, left = process.poll() is not None, deadline - time.monotonic()
            if selector.select(0 if ended else max(0, min(0.05, left))):
                read = os.read(pipe.fileno(), 1 << 16)
                heard = (heard + read)[-_MOST:]
                if not read:
                    process.wait(max(0, left))
                    return heard
            elif ended:
                return heard
            if left <= 0:
                raise subprocess.TimeoutExpired(process.args, LIMIT_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group if it still runs, also after an interruption."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
