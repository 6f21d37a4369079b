"""Files that appear whole or not at all: written beside their place, then renamed, so that a killed run leaves no half of one."""

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
def whole(path: Path) -> Iterator[Path]:
    """A file to write in the place of another; it takes that place when all went well, and is removed when not. Folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        unfinished.chmod(0o666 & ~_mask())  # as any file that is opened for writing
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write rows as parquet."""
    with whole(path) as unfinished:
        frame.to_parquet(unfinished, index=False)


def write_text(text: str, path: Path) -> None:
    """Write text as UTF-8."""
    with whole(path) as unfinished:
        unfinished.write_text(text, "utf-8")


def _mask() -> int:
    """The process's mask of permissions, which can be read only by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
