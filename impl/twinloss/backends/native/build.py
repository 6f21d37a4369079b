"""Compiles the kernels with the machine's C++ compiler, once per source, compiler and options, where TWINLOSS_BUILD=1 asks for it."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from twinloss.backends.native import instruction_sets
from twinloss.backends.native.cache_folders import FolderError, folders, keep, kept
from twinloss.backends.native.compiler import NoLibraryError, find_compiler, more_options, run
from twinloss.backends.native.instruction_sets import PROCESSOR

NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))

log = logging.getLogger("twinloss")

Loaded = TypeVar("Loaded")


class Compilation(NamedTuple):
    """What is compiled, and with what.

    Attributes:
        name: an instruction set of this machine, or ``PROCESSOR``.
        compiler: the command that runs the compiler.
        more: its options after those of the package.
        version: what the compiler says that it is.
    """

    name: str
    compiler: list[str]
    more: list[str]
    version: str

    @classmethod
    def of(cls, name: str) -> Compilation:
        """The compilation of a library with the machine's compiler.

        Raises:
            NoLibraryError: there is no compiler, or it cannot be run.
        """
        compiler, more = find_compiler(), more_options()
        return cls(name, compiler, more, run([*compiler, "--version"]).text)

    def commands(self, made: Path, parallel: bool = True) -> list[list[str]]:
        """The commands that compile the library to ``made``."""
        way = None if not parallel else "clang" if "clang" in self.version else "gcc"
        return list(instruction_sets.commands(self.compiler, self.name, platform.machine(), made, self.more, way))

    def key(self) -> str:
        """First part of the library's file name: a hash of the source, the commands, the compiler and the kind of machine.

        Raises:
            NoLibraryError: the source cannot be read.
        """
        digest = hashlib.sha256()
        try:
            for file in sorted(path for path in instruction_sets.SOURCE.rglob("*") if path.is_file()):
                digest.update(repr((file.name, file.read_bytes())).encode())
        except OSError as error:
            raise NoLibraryError(
                f"the source of the CPU kernels cannot be read: {error}; install twinloss again, or use backend='torch'"
            ) from error
        system = (sys.platform, platform.machine(), platform.libc_ver())
        digest.update(repr((self.commands(Path("made")), self.version, system)).encode("utf-8", "surrogatepass"))
        return f"twinloss-{self.name}-{digest.hexdigest()[:16]}"


def build(name: str, load: Callable[[Path], Loaded]) -> Loaded:
    """Load a library that is compiled on this machine: the kept one, else one compiled now, which takes about half a minute.

    Args:
        name: an instruction set of this machine, or ``PROCESSOR``.
        load: loads a library; raises OSError if it cannot be loaded from its folder.

    Raises:
        NoLibraryError: no compiler was found, or it failed, or no folder can keep a library that this process may load.
    """
    compilation = Compilation.of(name)
    key = compilation.key()
    passed_over: list[str] = []
    for open_folder in folders():
        try:
            folder = open_folder()
            path = kept(folder, key) or _compile(compilation, folder, key)
            loaded = load(path)
        except (FolderError, OSError) as error:
            passed_over.append(str(error))
            continue
        if passed_over and name != PROCESSOR:  # the kernels' own library, which follows, gives the same reasons
            log.warning("twinloss keeps its CPU kernels in %s: %s; TWINLOSS_CACHE names another folder", folder, "; ".join(passed_over))
        return loaded
    raise NoLibraryError(
        f"no folder can keep the CPU kernels: {'; '.join(passed_over)}; set TWINLOSS_CACHE to a folder that can, or use backend='torch'"
    )


def _compile(compilation: Compilation, folder: Path, key: str) -> Path:
    if compilation.name != PROCESSOR:
        log.info("twinloss compiles its CPU kernels, once for this machine: %s in %s", compilation.name, folder)

    def make(made: Path) -> None:
        refusal = _refusal(compilation.commands(made), made)
        if refusal is None:
            return
        compiler = " ".join(compilation.compiler)
        if _refusal(compilation.commands(made, parallel=False), made) is not None:
            raise NoLibraryError(f"{compiler} refused the CPU kernels; use backend='torch', or mend this: {refusal}")
        log.warning("twinloss's CPU kernels run in one thread: %s does not know OpenMP: %s", compiler, refusal)

    return keep(folder, key, make)


def _refusal(wanted: list[list[str]], made: Path) -> str | None:
    """Reason why the compiler failed, or ``None`` if it compiled the library.

    Raises:
        FolderError: the folder is full.
    """
    for command in wanted:
        outcome = run(command, str(made.parent))
        if outcome.status == 0 and Path(command[-1]).is_file():
            continue
        for words in NO_ROOM:
            if words in outcome.text:
                raise FolderError(f"the compiler has no room in {made.parent.parent}: {words}")
        return outcome.refusal()
    return None
