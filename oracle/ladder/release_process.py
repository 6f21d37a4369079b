"""A release in a process of its own, which is asked questions one by one; the run survives when it dies or hangs.

Processes are forked from one that has imported torch and no release (:mod:`oracle.ladder.inside.fork_server`): importing torch
again for each of a hundred releases takes longer than their answers. Forking excludes Windows.
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
from oracle.tools.programs import end_if_it_hangs

if TYPE_CHECKING:
    from io import BufferedRWPair

    from typing_extensions import Self

INSIDE = Path(__file__).resolve().parent
START_SECONDS = 300.0  # the first start includes the import of torch
ANSWER_SECONDS = 60.0  # limit on processor time, and on time without any


def environment(scratch: str) -> dict[str, str]:
    """Returns environment variables of a release: its settings go to a scratch folder, and it can neither install nor report."""
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
    """The process from which the processes of releases are forked."""

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
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it is running."""
        return self._process.poll() is None

    def fork(self, folder: str, dependencies: str, scratch: str) -> socket.socket:
        """Returns a socket to a new process that imports the release in ``folder``."""
        ours, theirs = socket.socketpair()
        request = {"folder": folder, "dependencies": dependencies, "environment": environment(scratch)}
        with theirs:
            socket.send_fds(self._requests, [json.dumps(request).encode()], [theirs.fileno()])
        return ours

    def close(self) -> None:
        """Close its socket, which ends it; the end of this process closes it as well."""
        self._requests.close()
        self._process.wait()


@cache
def fork_server() -> ForkServer:
    """Returns the one fork server of this process, which ends with it."""
    made = ForkServer()
    atexit.register(made.close)
    return made


class Release:
    """A running release.

    Args:
        folder: folder of the release; ``None`` for the one in the suite's environment.
        cache: the ladder's cache, for the small dependencies that an import may miss.

    Attributes:
        greeting: first message of the process: outcome, version and era, or the reason why it cannot answer.
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
        """Whether the release was imported, so that it answers."""
        return bool(self.greeting.get("outcome") == "answered")

    def ask(self, question: Message, seconds: float | None = None) -> Message:
        """Returns the answer; the death or hang of the process is an answer, after which the next question starts a new process."""
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
        """Send the question, if any, and receive a message; when the process died or is too late, returns a message with that outcome."""
        if self._socket is None or self._stream is None:
            return Message({"outcome": "died", "message": "the process ended"}, {})
        reply = None
        with end_if_it_hangs(self._pid or fork_server().pid, busy_s=seconds, idle_s=seconds) as why, contextlib.suppress(OSError):
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
