"""`nox -s sanitize` fails on a report of a sanitizer, and when the sanitizers do not work."""

from __future__ import annotations

from pathlib import Path

import pytest

from properties.selfcheck import sanitize
from twinloss.backends.native.compiler import find_compiler

OVERFLOWS = """
import ctypes, os, subprocess

def test_that_passes(tmp_path):
    source, library = tmp_path / "planted.cpp", tmp_path / "planted.so"
    source.write_text({planted!r})
    options = [*os.environ["TWINLOSS_CXXFLAGS"].split(), "-shared", "-fPIC"]
    subprocess.run([*{command!r}, *options, str(source), "-o", str(library)], check=True)
    if {overflow}:
        ctypes.CDLL(str(library)).overflow(2)
"""


def usable() -> bool:
    try:
        return bool(sanitize.environment_for(find_compiler(), Path()))
    except sanitize.UnusableError:
        return False


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sanitize, "OUT", tmp_path / "out")
    return tmp_path


@pytest.mark.skipif(not usable(), reason="the compiler brings no sanitizers")
@pytest.mark.parametrize("overflow", [True, False])
def test_an_overflow_in_a_passing_test_fails_the_session(
    overflow: bool, out: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", " ".join(find_compiler()))
    (out / "test_planted.py").write_text(OVERFLOWS.format(planted=sanitize.PLANTED, command=find_compiler(), overflow=overflow))
    assert sanitize.main([str(out / "test_planted.py"), "--hypothesis-profile", "default"]) == overflow
    said = capfd.readouterr()
    assert ("signed integer overflow" in said.out + said.err) == overflow
    assert ("1 passed" in said.out) != overflow


@pytest.mark.parametrize("options", ["-O1", "-O1 -fsanitize=undefined", "-no-such-option"])
def test_sanitizers_that_report_nothing_are_refused(
    options: str, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", " ".join(find_compiler()))
    monkeypatch.setattr(sanitize, "OPTIONS", options)
    monkeypatch.setattr(sanitize, "runtime", lambda *_: "")
    assert sanitize.main([str(out / "no test")]) == 2
    assert "set CXX to another compiler" in capsys.readouterr().err


def test_a_compiler_without_sanitizers_is_named(out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sanitize, "RUNTIMES", ("libof-no-sanitizer.so",))
    assert sanitize.main([str(out / "no test")]) == 2
    assert "has no libof-no-sanitizer.so to load; install it" in capsys.readouterr().err


def test_without_a_compiler(out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert sanitize.main([str(out / "no test")]) == 2
    assert "there is no C++ compiler" in capsys.readouterr().err
