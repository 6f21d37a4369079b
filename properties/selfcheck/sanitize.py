"""``python -m properties.selfcheck.sanitize``: run the native backend's tests under AddressSanitizer and UndefinedBehaviorSanitizer.

The library is built with the compiler that CXX names, or with each of g++ and clang++ on the path. A compiler without usable sanitizers is
skipped with a message. Arguments go to pytest: other test files, or ``-k``. Two planted errors first show that the sanitizers work. Exit
codes: 0 no report, 1 a report or a failed test, 2 no compiler has usable sanitizers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from twinloss.backends.native.compiler import NoLibraryError, find_compiler

ROOT = Path(__file__).parents[2]
OUT = Path("reports", "out", "sanitize")
TESTS = (
    "properties/tests/impl/backends/test_native.py",
    "properties/tests/impl/backends/test_native_batches.py",
    "properties/tests/impl/test_segmentation_loss.py",
    "properties/tests/impl/terms/test_masks.py",
    "properties/tests/impl/test_oriented_loss.py",
    "properties/tests/impl/geometry/test_oriented.py",
    "properties/tests/impl/test_pose.py",
)
OPTIONS = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -D_GLIBCXX_ASSERTIONS"
RUNTIMES = ("libclang_rt.asan-x86_64.so", "libclang_rt.asan-aarch64.so", "libclang_rt.asan.so", "libasan.so")
EXCEPTIONS = ("libstdc++.so.6", "libc++abi.so.1")
STARTS_S = 120
PLANTED = """
extern "C" int read(int* numbers, int index) { return numbers[index]; }
extern "C" int overflow(int number) { return number + 2147483647; }
"""
CHECK = """
import ctypes, sys
library, reserve = ctypes.CDLL(sys.argv[1]), ctypes.CDLL(None).malloc
reserve.restype = ctypes.c_void_p
if sys.argv[2] == "heap-buffer-overflow":
    library.read(ctypes.c_void_p(reserve(ctypes.c_size_t(12))), 3)  # the fourth of three
else:
    library.overflow(2)
"""


class UnusableError(RuntimeError):
    """The sanitizers cannot be used; the message names the reason and the remedy."""


def main(arguments: Sequence[str]) -> int:
    """Build and test with every compiler, and return the exit code."""
    shutil.rmtree(OUT, ignore_errors=True)
    found = {name: attempt(name, arguments) for name in compilers()}
    passed = {name: answer for name, answer in found.items() if answer is not None}
    failed = [name for name in passed if not passed[name]]
    print(f"failed with {', '.join(failed)}" if failed else f"no report, and every test passed, with {', '.join(passed) or 'no compiler'}")
    return int(bool(failed)) if passed else 2


def attempt(name: str, arguments: Sequence[str]) -> bool | None:
    """Returns whether a compiler's library passes; prints the reason and returns ``None`` if its sanitizers cannot be used."""
    try:
        return passes(name, arguments)
    except (UnusableError, NoLibraryError) as error:
        print(f"not tested with {name}: {error}", file=sys.stderr)
        return None


def compilers() -> list[str]:
    """Returns the commands of the compilers to try."""
    if os.environ.get("CXX"):
        return [os.environ["CXX"]]
    return [name for name in ("g++", "clang++") if shutil.which(name)] or ["c++"]


def passes(name: str, arguments: Sequence[str]) -> bool:
    """Returns whether the tests pass without a sanitizer's report.

    Raises:
        UnusableError: the sanitizers are not installed, or miss a planted error.
    """
    with tempfile.TemporaryDirectory(prefix="twinloss-sanitize-") as folder:
        command = find_compiler(name)
        environment = environment_for(command, Path(folder)) | {"CXX": name}
        check_sanitizers(command, environment, Path(folder))
        logs = OUT / Path(command[0]).name
        logs.mkdir(parents=True)
        files = () if any(Path(word.partition("::")[0]).exists() for word in arguments) else TESTS
        pytest = [sys.executable, "-m", "pytest", "-p", "no:faulthandler", "-p", "no:cacheprovider", "-n", "0", "-q", "-s"]
        print(f"{name}: {environment['TWINLOSS_CXXFLAGS']}", flush=True)
        words = [*pytest, "--hypothesis-profile", "sanitize", *files, *arguments]
        code = subprocess.run(words, cwd=ROOT, env=with_logs(environment, logs), check=False).returncode
    reports = sorted(logs.iterdir())
    for report in reports:
        print(f"{report}:\n{report.read_text('utf-8', 'replace')}")
    print(f"{name}: {len(reports)} reports in {logs}, pytest's exit status {code}", flush=True)
    return code == 0 and not reports


def environment_for(command: list[str], folder: Path) -> dict[str, str]:
    """Returns variables that make Python load the sanitizers first and build the library with them, in a separate cache.

    Raises:
        UnusableError: the compiler has no AddressSanitizer library that can be loaded.
    """
    own = {"TWINLOSS_CACHE": str(folder / "cache"), "TWINLOSS_NATIVE": "1"}
    clang = "clang" in subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    flags = f"{OPTIONS} -shared-libasan" if clang else OPTIONS
    # AddressSanitizer intercepts functions of the exception library, which Python itself does not load.
    return os.environ | own | {"TWINLOSS_CXXFLAGS": flags, "LD_PRELOAD": f"{runtime(command, RUNTIMES)} {runtime(command, EXCEPTIONS)}"}


def runtime(command: list[str], names: Sequence[str]) -> Path:
    """Returns the path of the first library in ``names`` that the compiler has.

    Raises:
        UnusableError: it has none of them.
    """
    for name in names:
        asked = subprocess.run([*command, f"-print-file-name={name}"], capture_output=True, text=True, check=False)
        found = Path(asked.stdout.strip())
        if found.is_absolute() and found.is_file() and found.read_bytes()[:4] == b"\x7fELF":
            return found.resolve()
    raise UnusableError(
        f"{' '.join(command)} has no {names[-1]} to load; install it (libasan, or compiler-rt), or set CXX to another compiler"
    )


def with_logs(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """Returns the environment with reports in files of ``folder``. UndefinedBehaviorSanitizer may print instead; it ends the process."""
    common = f"log_path={(ROOT / folder / 'report').absolute()}:print_stacktrace=1"
    address = f"{common}:detect_leaks=0:detect_stack_use_after_return=1:strict_init_order=1:allocator_may_return_null=1"
    return environment | {"ASAN_OPTIONS": address, "UBSAN_OPTIONS": common}


def check_sanitizers(command: list[str], environment: dict[str, str], folder: Path) -> None:
    """Check that the sanitizers report a read beyond an array and an integer overflow.

    Raises:
        UnusableError: one of them is not reported.
    """
    source, library, logs = folder / "planted.cpp", folder / "planted.so", folder / "logs"
    source.write_text(PLANTED)
    logs.mkdir()
    whole = [*command, *environment["TWINLOSS_CXXFLAGS"].split(), "-shared", "-fPIC", str(source), "-o", str(library)]
    made = subprocess.run(whole, capture_output=True, text=True, check=False)
    if made.returncode:
        raise UnusableError(f"{' '.join(whole)} failed; install its sanitizers, or set CXX to another compiler: {made.stderr.strip()}")
    for words in ("heap-buffer-overflow", "signed integer overflow"):
        program = [sys.executable, "-c", CHECK, str(library), words]
        try:
            ran = subprocess.run(program, env=with_logs(environment, logs), capture_output=True, text=True, check=False, timeout=STARTS_S)
        except subprocess.TimeoutExpired as error:
            raise UnusableError(
                f"{command[0]}'s sanitizers do not start within {STARTS_S} s (old ones fail on new kernels); set CXX to another compiler"
            ) from error
        output = ran.stderr + "".join(report.read_text("utf-8", "replace") for report in logs.iterdir())
        if ran.returncode == 0 or words not in output:
            raise UnusableError(f"{command[0]}'s sanitizers miss a planted {words}; set CXX to another compiler: {output.strip()[-2000:]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
