"""Compiles ``source/`` to a shared library with the machine's C++ compiler, once per source, compiler, options and processor."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twinloss.backends.native.cache_folders import FolderError, folders, keep, kept
from twinloss.backends.native.compiler import NoLibraryError, find_compiler, more_options, run

SOURCE = Path(__file__).parent / "source"
OPTIONS = [
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math"),
    "-ffp-contract=off",  # fused products would make the last bit depend on the processor and on what the compiler vectorises
    *("-Wno-psabi", "-Wno-unknown-pragmas"),
]
THREADS = "-fopenmp"
NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))

log = logging.getLogger("twinloss")

Loaded = TypeVar("Loaded")


def build(load: Callable[[Path], Loaded]) -> Loaded:
    """Load the library of this source on this machine: the kept one, else one compiled now, which takes a few seconds.

    Args:
        load: loads a library; raises OSError if it cannot be loaded from its folder.

    Raises:
        NoLibraryError: no compiler was found, or it failed, or no folder can keep a library that this process may load.
    """
    command, options = find_compiler(), [*OPTIONS, *more_options()]
    key = f"twinloss-{_fingerprint(command, options)}"
    passed_over: list[str] = []
    for open_folder in folders():
        try:
            folder = open_folder()
            path = kept(folder, key) or _compile(command, options, folder, key)
            loaded = load(path)
        except (FolderError, OSError) as error:
            passed_over.append(str(error))
            continue
        if passed_over:
            log.warning("twinloss keeps its CPU kernels in %s: %s; TWINLOSS_CACHE names another folder", folder, "; ".join(passed_over))
        return loaded
    raise NoLibraryError(
        f"no folder can keep the CPU kernels: {'; '.join(passed_over)}; set TWINLOSS_CACHE to a folder that can, or use backend='torch'"
    )


def _compile(command: list[str], options: list[str], folder: Path, key: str) -> Path:
    log.info("twinloss compiles its CPU kernels, once for this machine: %s", folder)

    def make(made: Path) -> None:
        refusal = _refusal(command, [*options, THREADS], made)
        if refusal is None:
            return
        if _refusal(command, options, made) is not None:
            raise NoLibraryError(f"{' '.join(command)} refused the CPU kernels; use backend='torch', or mend this: {refusal}")
        log.warning("twinloss's CPU kernels run in one thread: %s does not know %s: %s", command[0], THREADS, refusal)

    return keep(folder, key, make)


def _refusal(command: list[str], options: list[str], made: Path) -> str | None:
    """Reason why the compiler failed, or ``None`` if it compiled the library.

    Raises:
        FolderError: the folder is full.
    """
    outcome = run([*command, *options, *map(str, sorted(SOURCE.glob("*.cpp"))), "-o", str(made)], str(made.parent))
    if outcome.status == 0 and made.is_file():
        return None
    for words in NO_ROOM:
        if words in outcome.text:
            raise FolderError(f"the compiler has no room in {made.parent.parent}: {words}")
    return outcome.refusal()


def _fingerprint(command: list[str], options: list[str]) -> str:
    """Hash of the source, the options, the compiler and the processor: machines of several kinds can share a cache."""
    digest = hashlib.sha256()
    try:
        for file in sorted(SOURCE.iterdir()):
            digest.update(repr((file.name, file.read_bytes())).encode())
    except OSError as error:
        raise NoLibraryError(
            f"the source of the CPU kernels cannot be read: {error}; install twinloss again, or use backend='torch'"
        ) from error
    version = run([*command, "--version"]).text
    macros = run([*command, *options, "-dM", "-E", "-x", "c++", os.devnull]).text  # they depend on the processor that it compiles for
    machine = (sys.platform, platform.machine(), platform.libc_ver(), _processor())
    digest.update(repr((command, options, THREADS, version, macros, machine)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _processor() -> str:
    """Model and instruction sets of the processor, where the system lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
