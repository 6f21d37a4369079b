"""Folders that keep compiled libraries: no other user may write them, and a file's name holds the hash of its contents."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_MAKING = "making-"
_LEFT_BEHIND_S = 3600.0

log = logging.getLogger("twinloss")


class FolderError(RuntimeError):
    """A folder cannot keep a library that this process may load; the message names the reason."""


def folders() -> Iterator[Callable[[], Path]]:
    """Folders to try, best first, as functions that create and return one, or raise FolderError or OSError if it is unsuitable.

    TWINLOSS_CACHE if it is set, then ``twinloss/native`` in the user's cache, then a folder of the user's own among the temporary ones.
    """
    if os.environ.get("TWINLOSS_CACHE"):
        yield _asked_for
    yield _in_the_user_s_cache
    yield _among_temporary_ones


def kept(folder: Path, key: str) -> Path | None:
    """The library of a key, if it is undamaged and no other user can have written it; else ``None``."""
    faults = []
    for path in sorted(folder.glob(f"{key}-*.so")):
        if (fault := _fault(path)) is None:
            return path
        faults.append(fault)
    for fault in faults:
        log.warning("%s; it is not loaded, and the CPU kernels are compiled again", fault)
    return None


def keep(folder: Path, key: str, make: Callable[[Path], None]) -> Path:
    """Build a library in a temporary folder and move it: several processes can do this at the same time, and a killed one does no harm.

    Args:
        folder: keeps the library.
        key: first part of its file name.
        make: builds it at the given path.

    Raises:
        OSError: the folder cannot store the library.
        FolderError: the folder changed the library.
    """
    _clear(folder)
    stale = list(folder.glob(f"{key}-*.so"))
    aside = tempfile.mkdtemp(prefix=_MAKING, dir=folder)  # TemporaryDirectory would delete it in a forked process too
    try:
        made = Path(aside, "library.so")
        make(made)
        made.chmod(0o755)
        path = folder / f"{key}-{_digest(made)}.so"
        made.replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for other in stale:
        if other != path:
            with contextlib.suppress(OSError):
                other.unlink()
    if fault := _fault(path):
        raise FolderError(fault)
    return path


def _asked_for() -> Path:
    return _checked(Path(os.environ["TWINLOSS_CACHE"]).absolute(), mode=0o755)


def _in_the_user_s_cache() -> Path:
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise FolderError(f"the user's home is unknown: {error}") from error
    if not base.is_absolute():
        raise FolderError(f"the user's cache {str(base)!r} is no absolute path")
    return _checked(base / "twinloss" / "native", mode=0o700)


def _among_temporary_ones() -> Path:
    owner = os.geteuid() if hasattr(os, "geteuid") else "native"
    folder = Path(tempfile.gettempdir()).absolute() / f"twinloss-{owner}"
    if folder.is_symlink():  # any user can create one there
        raise FolderError(f"{folder} is a link")
    return _checked(folder, mode=0o700)


def _checked(folder: Path, mode: int) -> Path:
    """The folder, created if necessary, after a check that libraries in it may be loaded."""
    for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        missing.mkdir(mode=mode, exist_ok=True)
    if not folder.is_dir():
        raise FolderError(f"{folder} is no folder")
    if fault := _others_may_write(folder):
        raise FolderError(fault)
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):
        raise FolderError(f"{folder} lies on a file system that is mounted noexec, from which no library can be loaded")
    return folder


def _others_may_write(path: Path) -> str | None:
    """Message that names the other users who may write a file or folder, or ``None``: a library from there could run any code."""
    if not hasattr(os, "geteuid"):
        return None
    found = path.stat()
    if found.st_uid not in {0, os.geteuid()}:
        return f"{path} belongs to user {found.st_uid}, and this process runs as user {os.geteuid()}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write {path} (its mode is {stat.S_IMODE(found.st_mode):o}; chmod go-w takes that from them)"
    return None


def _fault(path: Path) -> str | None:
    """Reason why a library must not be loaded, or ``None``."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return f"{path} is no file"
        if fault := _others_may_write(path):
            return fault
        if not path.stem.endswith(_digest(path)):
            return f"{path} is damaged: it does not hold what was kept"
    except OSError as error:
        return f"{path} cannot be read: {error}"
    return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _clear(folder: Path) -> None:
    """Remove the temporary folders of processes that were killed while they compiled."""
    for left in folder.glob(f"{_MAKING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND_S:
                shutil.rmtree(left, ignore_errors=True)
