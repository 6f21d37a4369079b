"""A temporary folder for the files of one run's processes, beside its rows.

A run holds a lock on its folder while it lives. The lock distinguishes the folder of a killed run, which the next run removes, from that of
a run that is still writing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: old folders stay, and processes do not wait for each other
    fcntl = None  # type: ignore[assignment]

PREFIX = ".run-"


class RunFolder:
    """The folder of a run.

    Args:
        path: path of the folder.
        name: name of this process among those of the run.
    """

    def __init__(self, path: Path, name: str = "main") -> None:
        self.path, self.name = path, name
        self._lock: int | None = None
        self._written = 0

    @classmethod
    def create(cls, rows: Path) -> RunFolder:
        """Creates a folder beside a file of rows, owned by this process, and removes the folders of dead runs."""
        rows.parent.mkdir(parents=True, exist_ok=True)
        _clear(rows.parent)
        made = Path(tempfile.mkdtemp(prefix=f".new{PREFIX}", dir=rows.parent)).resolve()
        lock = _locked(made)
        # Renamed after it is locked, so that a run that starts now does not take it for the folder of a dead run.
        folder = cls(made.rename(made.with_name(made.name.removeprefix(".new"))))
        folder._lock = lock
        return folder

    @property
    def note(self) -> Path:
        """The file that names the candidate which this process is calling."""
        return self.path / f"calling-{self.name}.json"

    def notes(self) -> list[Path]:
        """Returns the files that dead processes left."""
        return sorted(self.path.glob("calling-*.json"))

    @property
    def batches(self) -> Path:
        """The file in which this process keeps the batches that candidates answered, to be explained."""
        return self.path / f"batches-{self.name}.jsonl"

    def all_batches(self) -> list[Path]:
        """Returns the files of all processes with batches that candidates answered."""
        return sorted(self.path.glob("batches-*.jsonl"))

    def part(self) -> Path:
        """Returns a new path for rows of this process."""
        self._written += 1
        return self.path / f"part-{self.name}-{self._written:05}.parquet"

    def parts(self) -> list[Path]:
        """Returns all files of rows."""
        return sorted(self.path.glob("part-*.parquet"))

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Context in which this process computes; waits for a process that computes alone."""
        with self._held("gate", exclusive=False):
            pass
        with self._held("turn", exclusive=False):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Context in which no other process of the run computes."""
        with self._held("gate", exclusive=True), self._held("turn", exclusive=True):
            yield

    @contextlib.contextmanager
    def _held(self, name: str, *, exclusive: bool) -> Iterator[None]:
        if fcntl is None:
            yield
            return
        with (self.path / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield

    def close(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(folder: Path) -> int | None:
    """Locks a folder; returns ``None`` if another process holds the lock."""
    if fcntl is None:
        return None
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _clear(parent: Path) -> None:
    """Removes the folders of dead runs."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # removed by another run
            if (lock := _locked(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
