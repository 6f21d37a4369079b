"""Makes a shared library of ``source/`` with the machine's C++ compiler, once per source, compiler and processor."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent / "source"
OPTIONS = [
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math"),
    "-ffp-contract=off",  # fused products would make the last bit depend on the processor, and on what the compiler vectorises
    *("-Wno-psabi", "-Wno-unknown-pragmas"),
]
THREADS = "-fopenmp"

log = logging.getLogger("twinloss")


class NoLibraryError(RuntimeError):
    """There is no library, and none can be made; the message says why."""


def build() -> Path:
    """The library of this source on this machine: from the cache, else compiled now, which takes a few seconds.

    Raises:
        NoLibraryError: no compiler was found, or it refused.
    """
    compiler = find_compiler()
    library = cache_folder() / f"twinloss-{_fingerprint(compiler)}.so"
    if not library.exists():
        log.info("twinloss compiles its CPU kernels, once for this machine: %s", library)
        _compile(compiler, library)
    return library


def find_compiler() -> str:
    """Path of the C++ compiler: that of the environment variable CXX, else the first of c++, g++ and clang++ on the path.

    Raises:
        NoLibraryError: there is none.
    """
    asked = os.environ.get("CXX")
    for name in [asked] if asked else ["c++", "g++", "clang++"]:
        if found := shutil.which(name):
            return found
    looked_for = f"CXX is {asked!r}, which does not exist" if asked else "none of c++, g++ and clang++ is on the path"
    raise NoLibraryError(f"there is no C++ compiler: {looked_for}; install one, or use backend='torch'")


def cache_folder() -> Path:
    """Folder of compiled libraries: TWINLOSS_CACHE, else ``twinloss`` in the user's cache."""
    if own := os.environ.get("TWINLOSS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinloss" / "native"


def _compile(compiler: str, library: Path) -> None:
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder, library.name)
            refusal = _run(compiler, [*OPTIONS, THREADS], made)
            if refusal and (refusal := _run(compiler, OPTIONS, made)):  # a compiler without OpenMP still makes a library of one thread
                raise NoLibraryError(f"{compiler} refused the CPU kernels; use backend='torch', or mend this: {refusal}")
            made.replace(library)  # at once, so that several processes may build at the same time
    except OSError as error:
        raise NoLibraryError(
            f"the CPU kernels cannot be kept in {library.parent}: {error}; set TWINLOSS_CACHE to a folder that can"
        ) from error


def _run(compiler: str, options: list[str], made: Path) -> str | None:
    """Why the compiler refused, or ``None``."""
    command = [compiler, *options, str(SOURCE / "entry.cpp"), "-o", str(made)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if result.returncode == 0 else result.stderr.strip()[-2000:] or f"exit status {result.returncode}"


@cache
def _fingerprint(compiler: str) -> str:
    """Changes with the source, the options, the compiler and the processor; a cache may be shared by machines of several kinds."""
    digest = hashlib.sha256()
    for file in sorted(SOURCE.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    digest.update(repr((OPTIONS, THREADS, version, sys.platform, platform.machine(), _processor())).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """What the processor can do, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
