"""Compiling on this machine: done wherever it can be, never loaded if others can have written it, and no failure ends a training."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

import twinloss
from oracle.cases.build import build as build_inputs
from properties.tests.impl.backends.test_native import CASE, SPEC, answer, native, same_bits
from twinloss import DetectionLoss
from twinloss.backends.native import availability, build, compiler, dispatch, instruction_sets, library, openmp
from twinloss.backends.native.instruction_sets import PROCESSOR

ROOMS = os.pathsep.join(str(Path(module).parents[1]) for module in (twinloss.__file__, __file__))
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
NOBODY = 65534


def forget() -> None:
    """No library was looked for yet."""
    for cached in (library.load, availability.no_library):
        cached.cache_clear()
    availability._unsaid.clear()


@pytest.fixture(scope="module")
def good() -> Path:
    """A library that serves; tests that need no compiler copy it."""
    return build.build(dispatch.choose(dispatch.runnable()), lambda path: path)


@pytest.fixture(scope="module")
def processor() -> Path:
    """A library that says what the machine runs."""
    return build.build(PROCESSOR, lambda path: path)


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, good: Path) -> Iterator[Path]:
    """No library yet, and empty caches."""
    assert good.is_file()
    forget()
    monkeypatch.setenv("TWINLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TWINLOSS_BUILD", "1")
    monkeypatch.delenv("CXX", raising=False)
    yield tmp_path
    forget()


def of_ours(folder: Path, script: str, name: str = "c++-of-ours") -> str:
    """A compiler that the test defines."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + textwrap.dedent(script))
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return str(path)


ASKED = 'case "$*" in *--version*|*-dM*) echo ours; exit 0;; esac\n'
LAST = 'for made in "$@"; do :; done\n'


def copying(good: Path, processor: Path) -> str:
    """A script that copies the library that is asked for; an object is a copy too."""
    return f'{ASKED}{LAST}case "$*" in *processor*) cp {processor} "$made";; *) cp {good} "$made";; esac\n'


@pytest.fixture
def copier(anew: Path, good: Path, processor: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A compiler that takes no time: it copies libraries."""
    path = of_ours(anew, f'{copying(good, processor)}case "$*" in *processor*) ;; *-shared*) echo made >> {anew}/made;; esac\n')
    monkeypatch.setenv("CXX", path)
    return path


def made(folder: Path) -> int:
    """How often the copier was asked for a library of kernels."""
    return (folder / "made").read_text().count("made") if (folder / "made").exists() else 0


def refusal() -> str:
    with pytest.raises(ValueError, match=r"(?s)backend='native' cannot serve this call.*use backend='torch'") as caught:
        native()(*build_inputs(CASE))
    assert DetectionLoss(SPEC)(*build_inputs(CASE))[0].isfinite().all()  # left to torch
    return str(caught.value)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def serves() -> Path:
    """Path of the library that is loaded, in this process and as if in the next one."""
    forget()
    assert native()(*build_inputs(CASE))[0].isfinite().all()
    return Path(library.load()._name)


# The compiler


@pytest.mark.usefixtures("anew")
def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "CXX is 'no-such-compiler', which names no program that can be run" in refusal()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    availability.no_library.cache_clear()
    assert "none of c++, g++ and clang++ is on the path; install one, or use backend='torch'" in refusal()


WAYS_TO_NAME = {
    "options": "{plain} -m64 '-DSAID=with a space'",
    "a wrapper": "{wrapper} {plain}",
    "a quoted path": "'{spaced}' -m64",
    "a path with a space": "{spaced}",
    "space around": "  {plain}\n",
}


@pytest.mark.parametrize("way", WAYS_TO_NAME)
def test_cxx_may_be_a_command(way: str, anew: Path, copier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = of_ours(anew, 'exec "$@"\n', "wrapper")
    spaced = of_ours(anew, f'exec {copier} "$@"\n', "a folder/c++ of ours")
    monkeypatch.setenv("CXX", WAYS_TO_NAME[way].format(plain=copier, wrapper=wrapper, spaced=spaced))
    assert serves().is_relative_to(anew / "cache")


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_cxx_counts_as_unset(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = compiler.find_compiler()
    monkeypatch.setenv("CXX", empty)
    assert compiler.find_compiler() == wanted


BAD: dict[str, tuple[Callable[[Path], str], str]] = {
    "unknown": (lambda _: "no-such-compiler", "names no program that can be run"),
    "quotes": (lambda _: "g++ '-m64", "No closing quotation"),
    "nothing in quotes": (lambda _: "''", "names no program that can be run"),
    "a folder": (str, "names no program that can be run"),
    "refuses": (lambda folder: of_ours(folder, ASKED + 'echo "lanes.hpp: what is this?" >&2; exit 1'), "lanes.hpp: what is this?"),
    "refuses in no encoding": (lambda folder: of_ours(folder, ASKED + r"printf 'caf\351 \377\376'; exit 1"), "caf\ufffd"),
    "says what it is in no encoding": (lambda folder: of_ours(folder, r"printf 'caf\351 \377\376'; exit 1"), "caf\ufffd"),
    "killed": (lambda folder: of_ours(folder, ASKED + "kill -9 $$"), "signal 9 ended it"),
    "killed at once": (lambda folder: of_ours(folder, "kill -9 $$"), "signal 9 ended it"),
    "makes nothing": (lambda folder: of_ours(folder, ASKED), "exit status 0"),
    "makes a text": (
        lambda folder: of_ours(folder, ASKED + LAST + 'echo "no library" > "$made"'),
        "cannot be loaded|file too short|invalid ELF",
    ),
    "makes another library": (
        lambda folder: of_ours(
            folder, f'{ASKED}{LAST}echo "int x;" | {" ".join(compiler.find_compiler())} -x c++ -shared -fPIC - -o "$made"'
        ),
        "lack a function",
    ),
    "makes a folder": (lambda folder: of_ours(folder, ASKED + LAST + 'mkdir -p "$made"'), "exit status 0|exists"),
}


def not_executable(folder: Path) -> str:
    path = Path(of_ours(folder, "exit 0"))
    path.chmod(0o644)
    return str(path)


def of_no_format(folder: Path) -> str:
    path = Path(of_ours(folder, ""))
    path.write_bytes(b"\x7fELF of another world")
    return str(path)


BAD |= {"not executable": (not_executable, "names no program that can be run"), "of no format": (of_no_format, "cannot be run: ")}


@pytest.mark.parametrize("name", BAD)
def test_no_compiler_ends_a_training(name: str, anew: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    make, words = BAD[name]
    monkeypatch.setenv("CXX", make(anew))
    for _ in range(3):
        assert any(word in refusal() for word in words.split("|"))
    (said,) = warnings(caplog)
    assert said.startswith("twinloss computes with torch's operators")
    assert any(word in said for word in words.split("|"))
    assert "use backend='torch'" in said
    assert not list(anew.rglob("making-*"))  # nothing half-made is left


HANGS = {
    "compiling": ASKED + "echo begun; sleep 600 & wait",
    "asked": "sleep 600",
    "talking": ASKED + "yes",
    "deaf": ASKED + "exec >&- 2>&-; sleep 600",
}


@pytest.mark.parametrize("way", HANGS)
def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(way: str, anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "LIMIT_S", 1.0)
    monkeypatch.setenv("CXX", of_ours(anew, f"echo $$ >> {anew}/groups\n" + HANGS[way]))
    begun = time.monotonic()
    assert "did not end within 1 s; set CXX to another, or use backend='torch'" in refusal()
    assert time.monotonic() - begun < 30
    for group in map(int, (anew / "groups").read_text().split()):
        gone(group)


def gone(group: int) -> None:
    """Wait until no process of a group is left; the system removes ended processes with a delay."""
    deadline = time.monotonic() + 20
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
        pytest.fail(f"processes of group {group} still run")


def test_an_interruption_ends_the_compiler_and_is_no_reason(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> NoReturn:
        while not (anew / "group").exists() or not (anew / "group").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(compiler, "_listen", interrupted)
    monkeypatch.setenv("CXX", of_ours(anew, f"echo $$ > {anew}/group; sleep 600 & wait"))
    with pytest.raises(KeyboardInterrupt):
        DetectionLoss(SPEC)(*build_inputs(CASE))
    gone(int((anew / "group").read_text()))


def test_a_server_that_a_compiler_leaves_behind_is_not_waited_for(anew: Path, copier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", of_ours(anew, f'sleep 30 &\necho $! >> {anew}/servers\nexec {copier} "$@"\n', "with-a-server"))
    begun = time.monotonic()
    serves()
    assert time.monotonic() - begun < 25
    for server in map(int, (anew / "servers").read_text().split()):
        os.kill(server, 9)


def test_a_compiler_without_threads_makes_the_same_bits_and_it_is_said(
    anew: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = answer(native(), build_inputs(CASE))
    (real,) = compiler.find_compiler()
    monkeypatch.setenv("CXX", of_ours(anew, f'case "$*" in *-fopenmp*) echo "no -fopenmp here" >&2; exit 1;; esac\nexec {real} "$@"\n'))
    forget()
    assert same_bits(answer(native(), build_inputs(CASE)), wanted)
    (said,) = warnings(caplog)
    assert "run in one thread" in said
    assert "no -fopenmp here" in said


@pytest.mark.usefixtures("anew")
def test_an_unexpected_error_ends_no_training(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(build, "more_options", functools.partial(next, iter(())))
    assert "StopIteration" in refusal()
    assert len(warnings(caplog)) == 1


@pytest.mark.usefixtures("anew")
def test_what_torch_serves_by_design_is_not_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TWINLOSS_NATIVE", "0")
    assert "TWINLOSS_NATIVE switches the kernels off" in refusal()
    DetectionLoss(SPEC, ties="reference")(*build_inputs(CASE))
    assert warnings(caplog) == []


def test_without_being_asked_nothing_is_compiled(anew: Path, copier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert copier
    for unset in ("", "0", "off"):
        monkeypatch.setenv("TWINLOSS_BUILD", unset)
        forget()
        said = refusal()
        assert "was installed without CPU kernels for" in said
        assert "set TWINLOSS_BUILD=1 to compile them with this machine's C++ compiler" in said
    monkeypatch.setenv("TWINLOSS_BUILD", "perhaps")
    forget()
    assert "TWINLOSS_BUILD is 'perhaps'; set it to 1 or 0" in refusal()
    assert made(anew) == 0


def test_torch_s_openmp_library_is_the_one_that_it_has_loaded() -> None:
    found = openmp.share_with_torch()
    assert found is not None
    assert Path(found).is_file()
    if sys.platform == "linux":
        assert str(Path(found).resolve()) in Path("/proc/self/maps").read_text()


def test_an_openmp_library_that_was_replaced_is_not_loaded_beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copy(str(openmp.share_with_torch()), tmp_path / "libgomp-of-another.so.1")
    monkeypatch.setattr(openmp, "_runtime_of_torch", lambda: str(tmp_path / "libgomp-of-another.so.1"))
    openmp.share_with_torch()
    assert "libgomp-of-another" not in Path("/proc/self/maps").read_text()


def _raise(error: Exception) -> NoReturn:
    raise error


# The folders


@pytest.mark.usefixtures("anew", "copier")
def test_a_library_of_another_layout_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    class Longer(library.KernelArguments):
        _fields_ = (("more", ctypes.c_int64),)

    monkeypatch.setattr(library, "KernelArguments", Longer)
    assert "were built for another version of twinloss; delete that file" in refusal()


@pytest.mark.usefixtures("copier")
def test_compiled_once_and_said_so(anew: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="twinloss")
    paths = {serves() for _ in range(3)}
    assert [record.message.partition(":")[0] for record in caplog.records] == ["twinloss compiles its CPU kernels, once for this machine"]
    assert made(anew) == len(paths) == 1


@pytest.mark.usefixtures("anew")
def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    program = "from twinloss.backends.native.library import load; load(); print('loaded')"
    environment = {**os.environ, "PYTHONPATH": ROOMS}
    two = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in two] == ["loaded", "loaded"]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def truncated(path: Path) -> bytes:
    return path.read_bytes()[:5000]


def flipped(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    return bytes(data)


DAMAGE: dict[str, Callable[[Path], bytes]] = {
    "truncated": truncated,
    "a flipped bit": flipped,
    "a text": lambda _: b"no library\n",
    "empty": lambda _: b"",
    "longer": lambda path: path.read_bytes() + b"\0",
}


@pytest.mark.usefixtures("copier")
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_library_is_made_again(name: str, anew: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = serves()
    damaged = DAMAGE[name](path)
    path.unlink()  # this process has it in its memory
    path.write_bytes(damaged)
    assert serves() == path
    assert made(anew) == 2
    (said,) = warnings(caplog)
    assert f"{path} is damaged" in said
    serves()
    assert len(warnings(caplog)) == 1


@pytest.mark.usefixtures("copier")
@pytest.mark.parametrize("kind", ["a folder", "a link to nothing", "a link"])
def test_what_is_no_library_is_not_loaded(kind: str, anew: Path, good: Path) -> None:
    path = serves()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to(good if kind == "a link" else anew / "nothing")
    found = serves()
    assert found.is_file()
    assert not found.is_symlink()


@pytest.mark.usefixtures("copier")
def test_a_library_of_another_name_is_another_library(anew: Path) -> None:
    path = serves()
    shutil.copy(path, path.with_name(path.name.replace(path.stem.split("-")[2], "0" * 16)))
    assert serves() == path
    assert made(anew) == 1


@pytest.mark.usefixtures("copier")
@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777, 0o757])
def test_a_folder_that_others_may_write_is_refused_and_another_serves(mode: int, anew: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = serves()
    (anew / "cache").chmod(mode)
    other = serves()
    assert other.is_relative_to(anew / "user" / "twinloss" / "native")
    assert other != path
    (said,) = warnings(caplog)
    assert f"others may write {anew / 'cache'} (its mode is {mode:o}; chmod go-w takes that from them)" in said
    assert "TWINLOSS_CACHE names another folder" in said


@pytest.mark.usefixtures("copier")
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_library_that_others_may_write_is_made_again(mode: int, anew: Path, caplog: pytest.LogCaptureFixture) -> None:
    serves().chmod(mode)
    path = serves()
    assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0
    assert made(anew) == 2
    (said,) = warnings(caplog)
    assert f"others may write {path}" in said


@pytest.fixture
def another_user(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Gives a file to another user, or, without the right to do so, makes its status report that user."""
    given: set[str] = set()
    plain = Path.stat

    def stat_of(path: Path, **options: Any) -> Any:
        found = plain(path, **options)
        return SimpleNamespace(st_uid=NOBODY, st_mode=found.st_mode) if str(path) in given else found

    if not ROOT:
        monkeypatch.setattr(Path, "stat", stat_of)
    return (lambda path: os.chown(path, NOBODY, NOBODY)) if ROOT else lambda path: given.add(str(path))


@pytest.mark.usefixtures("copier")
@pytest.mark.parametrize("what", ["folder", "library"])
def test_what_belongs_to_another_user_is_not_loaded(
    what: str, anew: Path, another_user: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = serves()
    another_user(path if what == "library" else path.parent)
    if what == "folder":
        assert serves().is_relative_to(anew / "user")
    elif ROOT:
        assert serves() == path
    (said,) = warnings(caplog) if what == "folder" or ROOT else ("belongs to user 65534",)
    assert "belongs to user 65534" in said


@pytest.mark.usefixtures("copier")
def test_a_mask_that_lets_a_group_write_does_no_harm(anew: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = os.umask(0o002)
    try:
        assert serves().is_relative_to(anew / "cache")
        assert serves().is_relative_to(anew / "cache")
    finally:
        os.umask(before)
    assert warnings(caplog) == []
    assert made(anew) == 1


def blocked(folder: Path) -> None:
    """A path where no folder can be created, even by root, because a file is in the way."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("")


@pytest.mark.usefixtures("copier")
def test_each_folder_stands_in_for_those_before(anew: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = f"twinloss-{os.geteuid()}"
    for folder, following in (("cache", "user"), ("user", own)):
        blocked(anew / folder)
        assert serves().is_relative_to(anew / following)
        assert str(anew / folder) in warnings(caplog)[-1]
    assert stat.S_IMODE((anew / own).stat().st_mode) == 0o700
    shutil.rmtree(anew / own)
    (anew / own).symlink_to(anew)
    forget()
    caplog.clear()
    for _ in range(2):
        assert "set TWINLOSS_CACHE to a folder that can, or use backend='torch'" in refusal()
    (said,) = warnings(caplog)
    for reason in (str(anew / "cache"), str(anew / "user"), f"{own} is a link"):
        assert reason in said


@pytest.mark.usefixtures("copier")
def test_without_a_usable_folder_at_all(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked(anew / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: _raise(FileNotFoundError("No usable temporary directory found")))
    said = refusal()
    assert "'not/absolute' is no absolute path" in said
    assert "No usable temporary directory" in said


@pytest.mark.usefixtures("copier")
@pytest.mark.skipif(not hasattr(os, "ST_NOEXEC"), reason="mounts without execution are known by this flag")
def test_a_folder_from_which_nothing_can_be_executed(anew: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    plain = os.statvfs
    for barred, serving in (("cache", "user"), ("", None)):
        barred_path = str(anew / barred)

        def statvfs(path: Path, barred_path: str = barred_path) -> Any:
            return SimpleNamespace(f_flag=os.ST_NOEXEC) if str(path).startswith(barred_path) else plain(path)

        monkeypatch.setattr(os, "statvfs", statvfs)
        if serving:
            assert serves().is_relative_to(anew / serving)
        else:
            forget()
            assert "noexec" in refusal()
        assert "mounted noexec, from which no library can be loaded" in warnings(caplog)[-1]
    assert len(warnings(caplog)) == 2


@pytest.mark.usefixtures("copier")
def test_a_library_that_cannot_be_loaded_from_where_it_lies(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = library.Library
    words = "failed to map segment from shared object: Operation not permitted"

    def load(path: str, **options: Any) -> ctypes.CDLL:
        return _raise(OSError(f"{path}: {words}")) if path.startswith(str(anew / "cache")) else plain(path, **options)

    monkeypatch.setattr(library, "Library", load)
    assert serves().is_relative_to(anew / "user")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(number: int, anew: Path, copier: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    words = os.strerror(number)
    full = f'case "$made" in {anew}/cache/*) echo "fatal error: error writing to /tmp/x.s: {words}" >&2; exit 1;; esac'
    monkeypatch.setenv("CXX", of_ours(anew, f'{LAST}{full}\nexec {copier} "$@"\n', "when-full"))
    assert serves().is_relative_to(anew / "user")
    (said,) = warnings(caplog)
    assert words in said
    assert not list((anew / "cache").iterdir())


@pytest.mark.usefixtures("copier")
def test_a_disk_that_is_full_everywhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(Path, "replace", lambda *_: _raise(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    for _ in range(2):
        assert os.strerror(errno.ENOSPC) in refusal()
    assert len(warnings(caplog)) == 1


@pytest.mark.usefixtures("copier")
def test_what_a_killed_process_left_is_cleared_and_what_another_makes_now_is_not(anew: Path) -> None:
    old, young = anew / "cache" / "making-old", anew / "cache" / "making-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "library.so").write_text("half")
    os.utime(old, (0, 0))
    serves()
    assert not old.exists()
    assert young.exists()


def test_the_key_holds_instruction_set_compiler_options_and_source(anew: Path, copier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [serves().name]
    monkeypatch.setenv("TWINLOSS_CXXFLAGS", "-g '-DSAID=with a space'")
    keys.append(serves().name)
    monkeypatch.setenv("CXX", f"{copier} -m64")
    keys.append(serves().name)
    Path(copier).write_text(Path(copier).read_text().replace("echo ours", "echo ours, of a later version"))
    keys.append(serves().name)
    shutil.copytree(instruction_sets.SOURCE, anew / "source")
    (anew / "source" / "lanes.hpp").write_text("// changed")
    monkeypatch.setattr(instruction_sets, "SOURCE", anew / "source")
    keys.append(serves().name)
    for name in dispatch.runnable()[1:]:
        monkeypatch.setenv("TWINLOSS_ISA", name)
        keys.append(serves().name)
        assert keys[-1].startswith(f"twinloss-{name}-")
    assert len({key.split("-")[2] for key in keys}) == len(keys) == made(anew)


def test_options_of_the_user_s_reach_the_compiler_after_ours(anew: Path, copier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", of_ours(anew, f'printf "%s\\n" "$@" > {anew}/words\nexec {copier} "$@"\n', "listed"))
    monkeypatch.setenv("TWINLOSS_CXXFLAGS", "-g '-DSAID=with a space'")
    serves()
    words = (anew / "words").read_text().splitlines()
    assert words.index("-DSAID=with a space") > words.index("-O3")
    monkeypatch.setenv("TWINLOSS_CXXFLAGS", "'-g")
    forget()
    assert "TWINLOSS_CXXFLAGS" in refusal()


# Other users, and processes


PROGRAM = """
import contextlib, json, logging, os, sys, tempfile
from pathlib import Path
from oracle.cases.build import build as build_inputs
from properties.tests.impl.backends.test_native import CASE
from twinloss import DetectionLoss
from twinloss.backends.native import availability, instruction_sets, library, loss
import pwd, selectors, shlex
said = []
handler = logging.Handler(); handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("twinloss").addHandler(handler)
sys.argv.pop(0)
user, source, *homes = json.loads(sys.argv[0])
instruction_sets.SOURCE = Path(source)
inputs = build_inputs(CASE)
DetectionLoss(CASE.spec, backend="torch")(*inputs)  # imports what torch imports late
if user is not None:
    os.setgroups([]); os.setresgid(user, user, user); os.setresuid(user, user, user)
os.chdir("/")
for home, temporary in homes:
    os.environ.pop("HOME", None)
    if home is not None: os.environ["HOME"] = home
    os.environ["TMPDIR"] = temporary; tempfile.tempdir = None
    library.load.cache_clear(); availability.no_library.cache_clear(); availability._unsaid.clear(); said.clear()
    for _ in range(2):
        terms = DetectionLoss(CASE.spec)(*inputs)[0].tolist()
    print(json.dumps([terms, availability.no_library(), said]), flush=True)
"""


@pytest.fixture
def everybody_s(good: Path, processor: Path) -> Iterator[Path]:
    """A folder that every user may read and write, with the compiler's source and a compiler that takes no time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o1777)
        shutil.copytree(instruction_sets.SOURCE, folder / "source")
        for found, copied in ((good, "good.so"), (processor, "runs.so")):
            shutil.copy(found, folder / copied)
            (folder / copied).chmod(0o755)
        of_ours(folder, copying(folder / "good.so", folder / "runs.so"))
        (folder / "barred").mkdir(mode=0o700 if ROOT else 0o000)
        for temporary in ("temporary", "squatted"):
            (folder / temporary).mkdir()
            (folder / temporary).chmod(0o1777)
        yield folder
        (folder / "barred").chmod(0o700)


@pytest.mark.parametrize("user", [NOBODY, 54321] if ROOT else [None])
def test_a_user_without_home_or_rights(user: int | None, everybody_s: Path) -> None:
    mine = os.geteuid() if user is None else user
    (everybody_s / "squatted" / f"twinloss-{mine}").write_text("")
    temporary, squatted = str(everybody_s / "temporary"), str(everybody_s / "squatted")
    homes = [None, str(everybody_s / "barred"), "/nonexistent", "", "relative", str(everybody_s / "good.so")]
    asked = [user, str(everybody_s / "source"), *((home, temporary) for home in homes), *((home, squatted) for home in homes[1:3])]
    environment = {**os.environ, "PYTHONPATH": ROOMS, "CXX": str(everybody_s / "c++-of-ours"), "OMP_NUM_THREADS": "1"}
    for name in ("TWINLOSS_CACHE", "XDG_CACHE_HOME", "TWINLOSS_CXXFLAGS"):
        environment.pop(name, None)
    command = [sys.executable, "-c", PROGRAM, json.dumps(asked)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(rows) == len(homes) + 2
    for home, (terms, reason, said) in zip(homes, rows, strict=False):
        assert all(term > 0 for term in terms)
        assert reason is None
        if user is not None or home not in {None, ""}:  # a tester's own account has a home
            assert len(said) == 1
            assert f"{temporary}/twinloss-{mine}" in said[0]
    for terms, reason, said in rows[len(homes) :]:
        assert all(term > 0 for term in terms)
        assert "use backend='torch'" in reason
        assert len(said) == 1
        assert reason in said[0]


FORKS = """
import os, sys, threading, time
from pathlib import Path
from twinloss.backends.native import library
begun = Path(sys.argv[1])
found = []
thread = threading.Thread(target=lambda: found.append(library.load()))
thread.start()
while not begun.exists():
    time.sleep(0.01)
child = os.fork()
if child == 0:
    sys.exit(0)  # with all that a process does at its end
os.waitpid(child, 0)
begun.with_name("go on").touch()
thread.join()
print("loaded", len(found))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_process_that_forks_while_it_builds(anew: Path, copier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = f'touch {anew}/begun\nwhile [ ! -e "{anew}/go on" ]; do sleep 0.05; done\n'
    monkeypatch.setenv("CXX", of_ours(anew, f'{ASKED}{wait}exec {copier} "$@"\n', "waits"))
    environment = {**os.environ, "PYTHONPATH": ROOMS}
    ran = subprocess.run([sys.executable, "-c", FORKS, str(anew / "begun")], env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout == "loaded 1\n", ran.stderr


def test_threads_may_build_at_once_and_one_warns(anew: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("CXX", of_ours(anew, "sleep 0.2; exit 1"))
    inputs = build_inputs(CASE)
    threads = [threading.Thread(target=lambda: DetectionLoss(SPEC)(*inputs)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(warnings(caplog)) == 1
