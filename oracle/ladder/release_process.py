"""A release in a process of its own, to be asked questions one by one; it may die or hang without taking the run with it.

Processes are forked from one that has imported torch and no release (:mod:`oracle.ladder.inside.fork_server`): importing torch anew for
each of a hundred releases takes longer than asking them. This needs fork, and so no Windows.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.ladder.inside.messages import Message, receive, send
from oracle.ladder.install import InstallError, add_dependency, dependency_folder
from oracle.tools.programs import watched

if TYPE_CHECKING:
    from io import BufferedRWPair

    from typing_extensions import Self

INSIDE = Path(__file__).resolve().parent
START_SECONDS = 300.0  # torch itself is imported before the first
ANSWER_SECONDS = 60.0  # of processor time, or without any


def environment(scratch: str) -> dict[str, str]:
    """What a release finds in its environment: settings in a scratch folder, nothing that it could use to install or report."""
    return {
        "YOLO_CONFIG_DIR": scratch,
        "YOLO_AUTOINSTALL": "false",
        "YOLO_OFFLINE": "true",
        "YOLO_VERBOSE": "false",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": scratch,
        "PIP_NO_INDEX": "1",
        "UV_OFFLINE": "1",
    }


class ForkServer:
    """The process that forks releases' processes."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "inside.fork_server"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **self._environment()},
            )

    @staticmethod
    def _environment() -> dict[str, str]:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        return threads | {
            "PYTHONPATH": str(INSIDE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "ignore",
            "CUDA_VISIBLE_DEVICES": "",
            "MPLBACKEND": "agg",
        }

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can fork."""
        return self._process.poll() is None

    def fork(self, folder: str, dependencies: str, scratch: str) -> socket.socket:
        """A line to a new process that imports the release in ``folder``."""
        ours, theirs = socket.socketpair()
        request = {"folder": folder, "dependencies": dependencies, "environment": environment(scratch)}
        with theirs:
            socket.send_fds(self._requests, [json.dumps(request).encode()], [theirs.fileno()])
        return ours

    def close(self) -> None:
        """End it: it ends by itself when its socket closes, which a process that is killed does too."""
        self._requests.close()
        self._process.wait()


@cache
def fork_server() -> ForkServer:
    """This process's one nursery, which ends with it."""
    made = ForkServer()
    atexit.register(made.close)
    return made


class Release:
    """A release that answers.

    Args:
        folder: where it is installed; ``None`` for the one in the suite's environment.
        cache: the ladder's cache, for the small dependencies that an import may miss.

    Attributes:
        greeting: what the process said when it started: outcome, version and era, or why it can't answer.
    """

    def __init__(self, folder: Path | None, cache: Path) -> None:
        self._folder, self._cache = folder, cache
        self._scratch = tempfile.TemporaryDirectory(prefix="ladder-")
        self._socket: socket.socket | None = None
        self._stream: BufferedRWPair | None = None
        self._pid = 0
        self.greeting = self._start()
        while self.greeting.get("outcome") == "lacks":
            try:
                add_dependency(self.greeting["module"], cache)
            except InstallError as error:
                self.greeting = {"outcome": "not installed", "message": str(error)}
                break
            self.greeting = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def answers(self) -> bool:
        """Whether it came up."""
        return bool(self.greeting.get("outcome") == "answered")

    def ask(self, question: Message, seconds: float | None = None) -> Message:
        """Its answer; a process that dies or hangs has answered so, and is started anew for the next question."""
        if not self.answers:
            return Message(self.greeting, {})
        if self._stream is None:
            self._start()
        return self._exchange(question, ANSWER_SECONDS if seconds is None else seconds)

    def close(self) -> None:
        """End the process."""
        self._stop()
        self._scratch.cleanup()

    def _start(self) -> dict[str, Any]:
        self._stop()
        if not fork_server().alive:
            fork_server.cache_clear()
        folder = "" if self._folder is None else str(self._folder)
        self._socket = fork_server().fork(folder, str(dependency_folder(self._cache)), self._scratch.name)
        self._stream = self._socket.makefile("rwb")
        self._pid = self._exchange(None, START_SECONDS).fields.get("pid", 0)
        return self._exchange(None, START_SECONDS).fields

    def _exchange(self, question: Message | None, seconds: float) -> Message:
        """Send what there is to send, and receive; an outcome instead when the process has ended, or does not answer in time."""
        if self._socket is None or self._stream is None:
            return Message({"outcome": "died", "message": "the process ended"}, {})
        reply = None
        with watched(self._pid or fork_server().pid, busy_s=seconds, idle_s=seconds) as why, contextlib.suppress(OSError):
            if question is not None:
                send(self._stream, question)
            reply = receive(self._stream)
        if why:
            self._stop()
            return Message({"outcome": "timed out", "message": f"no answer: {why[0]}"}, {})
        if reply is None:
            self._stop()
            return Message({"outcome": "died", "message": "the process ended"}, {})
        return reply

    def _stop(self) -> None:
        for end in (self._stream, self._socket):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.close()
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._stream, self._socket, self._pid = None, None, 0
