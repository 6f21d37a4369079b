"""Where the processes of one run leave what they have: a folder of that run alone, beside its rows, which the next run removes if need be.

A run holds a lock on its folder for as long as it lives, however it ends. So what a killed run left behind is told from what another
run is writing at this moment, and neither is ever read as one's own.
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
except ImportError:  # Windows: nothing is removed there, and processes do not wait for each other
    fcntl = None  # type: ignore[assignment]

PREFIX = ".run-"


class RunFolder:
    """The folder of a run.

    Args:
        path: where it is.
        name: of this process among those of the run.
    """

    def __init__(self, path: Path, name: str = "main") -> None:
        self.path, self.name = path, name
        self._lock: int | None = None
        self._written = 0

    @classmethod
    def made(cls, rows: Path) -> RunFolder:
        """A new one beside a file of rows, whose owner this process is; what runs left that are no longer alive is removed."""
        rows.parent.mkdir(parents=True, exist_ok=True)
        _clear(rows.parent)
        made = Path(tempfile.mkdtemp(prefix=f".new{PREFIX}", dir=rows.parent)).resolve()
        lock = _locked(made)
        # Under its own name only when it is locked, lest a run that begins now takes it for one that is left over.
        folder = cls(made.rename(made.with_name(made.name.removeprefix(".new"))))
        folder._lock = lock
        return folder

    @property
    def note(self) -> Path:
        """What this process says of the stranger that it is calling."""
        return self.path / f"calling-{self.name}.json"

    def notes(self) -> list[Path]:
        """The notes that remain."""
        return sorted(self.path.glob("calling-*.json"))

    def part(self) -> Path:
        """A new file for rows of this process."""
        self._written += 1
        return self.path / f"part-{self.name}-{self._written:05}.parquet"

    def parts(self) -> list[Path]:
        """All files of rows."""
        return sorted(self.path.glob("part-*.parquet"))

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """While this process computes: it waits for another that wants to be alone."""
        with self._held("gate", exclusive=False):
            pass
        with self._held("turn", exclusive=False):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While no other process of the run computes."""
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
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(folder: Path) -> int | None:
    """A lock on a folder, or ``None`` where another process holds it."""
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
    """Remove the folders of runs that are no longer alive."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another run's, or gone in this moment
            if (lock := _locked(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
