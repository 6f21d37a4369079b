"""Starts a worker process, sends it requests, and reports how it failed."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benches.plan.malloc_settings import Heap, environment
from oracle.tools.programs import end_if_it_hangs

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 900.0  # Limit on processor time, and on time without any.


class WorkerError(RuntimeError):
    """A worker answered with an error, ended, or hangs; the message holds its last output."""


class Worker:
    """A worker process, to be used as a context manager.

    Args:
        heap: malloc settings.
        threads: threads of torch and OpenMP.
        twin: folder that ``twinloss`` is imported from; this checkout's by default.
        extra: further environment variables.
        command: command line of the worker; tests replace it.
    """

    def __init__(
        self,
        heap: Heap,
        threads: int,
        *,
        twin: Path | None = None,
        extra: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "benches.measure.worker"),
    ) -> None:
        here = [str(twin or ROOT / "impl"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {"PYTHONPATH": os.pathsep.join(here), "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": "0"}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment(heap) | variables | dict(extra or {}),
            text=True,
            encoding="utf-8",
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, do: str, /, patience: float = PATIENCE_S, **arguments: Any) -> Any:
        """Returns the answer to a request.

        Raises:
            WorkerError: the worker ended, hangs, or answered with an error.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, "with": arguments}) + "\n")
            self._process.stdin.flush()
            with end_if_it_hangs(self._process.pid, patience, patience) as why:
                line = self._lines.get()
        except (BrokenPipeError, OSError):
            line = ""
        if why:
            self.close(kill=True)
            raise WorkerError(f"the worker hangs in the request {do!r}: {why[0]}; {self._last_output()}")
        if not line:
            raise WorkerError(f"the worker ended with {self._process.wait()} in the request {do!r}; {self._last_output()}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"the request {do!r} failed in the worker: {reply['error']}\n{reply['traceback']}")
        return reply["answer"]

    def _last_output(self) -> str:
        self._log.seek(0)
        return "its last output:\n" + self._log.read().decode("utf-8", "replace")[-2000:].strip()

    def close(self, *, kill: bool = False) -> None:
        """End the process: close its input, which ends it, or kill it."""
        assert self._process.stdin is not None
        if kill:
            self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> Worker:  # noqa: PYI034 - Self is not in Python 3.10, and nothing derives from Worker
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(kill=kind is not None)
        self._log.close()
