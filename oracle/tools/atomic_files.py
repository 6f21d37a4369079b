"""Files that are written to a temporary name and then renamed, so that a killed run leaves no incomplete file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path that replaces ``path`` if the block succeeds, and is removed if it raises. Creates missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        unfinished.chmod(0o666 & ~_mask())  # the mode of a file that open() creates
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Writes a table as parquet."""
    with atomic_file(path) as unfinished:
        frame.to_parquet(unfinished, index=False)


def write_text(text: str, path: Path) -> None:
    """Writes text as UTF-8."""
    with atomic_file(path) as unfinished:
        unfinished.write_text(text, "utf-8")


def _mask() -> int:
    """Returns the process's umask, which can be read only by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
