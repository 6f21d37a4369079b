"""Where compiled libraries are kept: folders that nobody else may write, and files whose names hold the hash of what they hold."""

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
    """A folder cannot keep a library that this process may load; the message says why."""


def folders() -> Iterator[Callable[[], Path]]:
    """Those to try, best first: each is made when it is called for, which raises FolderError or OSError where it does not serve.

    TWINLOSS_CACHE if it is set, then ``twinloss/native`` in the user's cache, then a folder of the user's own among the temporary ones.
    """
    if os.environ.get("TWINLOSS_CACHE"):
        yield _asked_for
    yield _in_the_user_s_cache
    yield _among_temporary_ones


def kept(folder: Path, key: str) -> Path | None:
    """The library of a key, if it is whole and nobody else may have written it."""
    faults = []
    for path in sorted(folder.glob(f"{key}-*.so")):
        if (fault := _fault(path)) is None:
            return path
        faults.append(fault)
    for fault in faults:
        log.warning("%s; it is not loaded, and the CPU kernels are compiled again", fault)
    return None


def keep(folder: Path, key: str, make: Callable[[Path], None]) -> Path:
    """Make a library aside and rename it, so that several processes may do so at the same time, and one that is killed harms none.

    Raises:
        OSError: the folder does not take it.
        FolderError: it takes it and changes it.
    """
    _clear(folder)
    stale = list(folder.glob(f"{key}-*.so"))
    aside = tempfile.mkdtemp(prefix=_MAKING, dir=folder)  # TemporaryDirectory would delete it from a process that forks meanwhile, too
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
    if folder.is_symlink():  # anybody may put one there
        raise FolderError(f"{folder} is a link")
    return _checked(folder, mode=0o700)


def _checked(folder: Path, mode: int) -> Path:
    """The folder, made if need be, if what lies in it may be loaded."""
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
    """Who else may write a file or a folder, where the system knows users: a library from there could run anybody's code."""
    if not hasattr(os, "geteuid"):
        return None
    found = path.stat()
    if found.st_uid not in {0, os.geteuid()}:
        return f"{path} belongs to user {found.st_uid}, and this process runs as user {os.geteuid()}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write {path} (its mode is {stat.S_IMODE(found.st_mode):o}; chmod go-w takes that from them)"
    return None


def _fault(path: Path) -> str | None:
    """Why a library is not to be loaded."""
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
    """Remove what processes left behind that were killed while they compiled."""
    for left in folder.glob(f"{_MAKING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND_S:
                shutil.rmtree(left, ignore_errors=True)
