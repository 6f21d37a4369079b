"""The process of a candidate, seen from the judge: started, asked, watched, and started again after it ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from oracle.contract.answer_form import MalformedError
from oracle.contract.time_limit import WALL_CLOCK_FACTOR, TimeLimitExceeded
from oracle.inside.arena import Arena
from oracle.inside.messages import Record, Stream, receive, send
from oracle.tools.printable import printable
from oracle.tools.programs import ROOT, end_if_it_hangs, end_tree

ENDS = "ends the process"
"""Failure mode of a candidate whose process ended during a call, or closed its streams."""

INSIDE = ROOT / "oracle" / "inside"
START_S = 600.0
"""Seconds of processor time for the start and for imports."""

PERTURB = "165"
"""Byte with which the C library fills freed memory; new memory gets its complement, as a float32 about -1e16."""

_START = (
    "import importlib.util as u, sys; "
    "s = u.spec_from_file_location('inside', {init!r}, submodule_search_locations=[{folder!r}]); "
    "m = u.module_from_spec(s); sys.modules['inside'] = m; s.loader.exec_module(m); "
    "from inside.start import run; run()"
)


@dataclass(frozen=True)
class CandidateSource:
    """Where a candidate is.

    Attributes:
        module, factory: the two parts of its dotted path.
        paths: folders from which its modules are imported first.
        last: folders that are tried only if the module is in none of the others.
        environment: variables of its process besides those of this one.
    """

    module: str
    factory: str
    paths: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def here(cls, module: str, factory: str) -> CandidateSource:
        """Returns the source for the current folder and ``PYTHONPATH``, with the suite's own folder last."""
        folders = [str(Path.cwd()), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        ours = {str(ROOT), str(ROOT / "impl"), ""}
        return cls(module, factory, tuple(dict.fromkeys(one for one in folders if one not in ours)), (str(ROOT),))


class CandidateProcess:
    """A candidate's process; it starts at the first question, and again after it ended.

    Args:
        source: where the candidate is.

    Attributes:
        generation: number of processes that were started; criteria of earlier ones are gone.
        loaded: the reply to the request to load the candidate, of the process that runs.
    """

    def __init__(self, source: CandidateSource) -> None:
        self.source, self.generation = source, 0
        self.loaded: Record = {}
        self._running: _Running | None = None

    def start(self) -> Record:
        """Starts the process if none runs; returns its reply to the request to load the candidate.

        Raises:
            MalformedError: it ended while it loaded the candidate.
            TimeLimitExceeded: loading took too long.
        """
        if self._running is None:
            self._running = _Running(self.source)
            self.generation += 1
            weakref.finalize(self, self._running.close)
            self._exchange(None, START_S)
            source = self.source
            request = {"do": "load", "module": source.module, "factory": source.factory, "paths": source.paths, "last": source.last}
            self.loaded = self._exchange(request, START_S)
        return self.loaded

    @property
    def arena(self) -> Arena:
        """The shared memory of the process, which is started if none runs."""
        self.start()
        assert self._running is not None
        return self._running.arena

    def ask(self, request: Record, limit_s: float) -> Record:
        """Returns the reply to a request.

        Raises:
            MalformedError: the process ended, or closed its streams.
            TimeLimitExceeded: the reply took more processor time, or ten times as much by the clock.
        """
        self.start()
        return self._exchange(request, limit_s)

    def _exchange(self, request: Record | None, limit_s: float) -> Record:
        running = self._running
        assert running is not None
        wall_s = limit_s * WALL_CLOCK_FACTOR
        reply = None
        try:
            with end_if_it_hangs(running.pid, busy_s=limit_s, idle_s=wall_s) as why, contextlib.suppress(OSError):
                if request is not None:
                    send(running.stream, request)
                reply = receive(running.stream)
        except BaseException:
            self.close()
            raise
        if why:
            self.close()
            if "more than" in why[0]:
                raise TimeLimitExceeded(f"took more than the {limit_s:g} s of processor time that a call may take")
            raise TimeLimitExceeded(f"did not come back within {wall_s:g} s, in which it did not compute")
        if reply is None:
            said = running.last_words()
            self.close()
            raise MalformedError(f"its process ended during a call, or closed its streams{said}", ENDS)
        return reply

    def close(self) -> None:
        """Ends the process."""
        if self._running is not None:
            self._running.close()
            self._running = None


class _Running:
    """One running process with its socket, memory and output."""

    def __init__(self, source: CandidateSource) -> None:
        ours, theirs = socket.socketpair()
        shared = Path("/dev/shm")
        self._memory: IO[bytes] = tempfile.TemporaryFile(dir=shared if shared.is_dir() else None)  # noqa: SIM115 - closed with the process
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        os.ftruncate(self._memory.fileno(), 1 << 20)
        handed = (theirs.fileno(), self._memory.fileno())
        code = _START.format(init=str(INSIDE / "__init__.py"), folder=str(INSIDE))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, handed), str(torch.get_num_threads())],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env=_environment(source),
                pass_fds=handed,
                start_new_session=True,
            )
        self._socket = ours
        self.stream: Stream = ours.makefile("rwb")
        self.arena = Arena(self._memory.fileno())
        self.pid = self._process.pid

    def last_words(self) -> str:
        """Returns how the process ended and the last line that it printed, for a message."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        code = self._process.poll()
        how = "" if code is None else f", by the signal {-code}" if code < 0 else f", with exit code {code}"
        self._output.seek(0)
        lines = [line for line in self._output.read()[-4000:].decode(errors="replace").splitlines() if line.strip()]
        return printable(how + (f"; it printed last: {lines[-1]}" if lines else ""), 500)

    def close(self) -> None:
        """Ends the process, and whatever it started."""
        if self._process.poll() is None:
            end_tree(self._process.pid)
        self._process.wait()
        ends: Iterable[Any] = (self.stream, self._socket, self._memory, self._output)
        for end in ends:
            with contextlib.suppress(OSError, ValueError):
                end.close()


def _environment(source: CandidateSource) -> dict[str, str]:
    """Returns the environment of a candidate's process: this one's, without the paths and settings of the suite and of pytest."""
    ours = ("PYTEST_", "HYPOTHESIS_", "COV_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    changed = {"PYTHONPATH": str(ROOT / "impl"), "MALLOC_PERTURB_": PERTURB, "PYTHONSAFEPATH": "1"}
    return kept | changed | source.environment
