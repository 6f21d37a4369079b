"""A release in a process of its own, to be asked questions one by one; it may die or hang without taking the run with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oracle.ladder.install import InstallError, add_dependency, dependency_folder
from oracle.ladder.wire import Message, receive, send

if TYPE_CHECKING:
    from typing_extensions import Self

INSIDE = Path(__file__).resolve().parent.parent
START_SECONDS = 120.0
ANSWER_SECONDS = 60.0


def environment(scratch: str) -> dict[str, str]:
    """The child's environment: one thread, settings in a scratch folder, nothing that a release could use to install or report."""
    return dict(os.environ) | {
        "PYTHONPATH": str(INSIDE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore",
        "YOLO_CONFIG_DIR": scratch,
        "YOLO_AUTOINSTALL": "false",
        "YOLO_OFFLINE": "true",
        "YOLO_VERBOSE": "false",
        "MPLBACKEND": "agg",
        "PIP_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


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
        self._process: subprocess.Popen[bytes] | None = None
        self._late = False
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

    def ask(self, question: Message) -> Message:
        """Its answer; a process that dies or hangs has answered so, and is started anew for the next question."""
        if not self.answers:
            return Message(self.greeting, {})
        if self._process is None:
            self._start()
        reply = self._exchange(question, ANSWER_SECONDS)
        if reply is not None:
            return reply
        outcome = "timed out" if self._late else "died"
        code = self._stop()
        message = f"no answer within {ANSWER_SECONDS:.0f} s" if outcome == "timed out" else f"the process ended with code {code}"
        return Message({"outcome": outcome, "message": message}, {})

    def close(self) -> None:
        """End the process."""
        self._stop()
        self._scratch.cleanup()

    def _start(self) -> dict[str, Any]:
        self._stop()
        folders = ["" if self._folder is None else str(self._folder), str(dependency_folder(self._cache))]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ladder.child", *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._scratch.name,
            env=environment(self._scratch.name),
        )
        greeting = self._exchange(None, START_SECONDS)
        if greeting is None:
            if self._late:
                return {"outcome": "timed out", "message": f"no start within {START_SECONDS:.0f} s"}
            return {"outcome": "died", "message": f"the process ended with code {self._stop()} while importing"}
        return greeting.facts

    def _exchange(self, question: Message | None, seconds: float) -> Message | None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        self._late = False
        timer = threading.Timer(seconds, self._give_up, [process])
        timer.start()
        try:
            if question is not None:
                send(process.stdin, question)
            return receive(process.stdout)
        except BrokenPipeError:
            return None
        finally:
            timer.cancel()

    def _give_up(self, process: subprocess.Popen[bytes]) -> None:
        self._late = True
        process.kill()

    def _stop(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            return process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
