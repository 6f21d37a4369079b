"""Programs, commands and links of the README and the documentation work."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import twinloss

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("[!_]*/*.md")))


def blocks(page: Path, language: str) -> list[str]:
    """Returns the code blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


PROGRAMS = [(page, number) for page in PAGES for number, text in enumerate(blocks(page, "python")) if "ultralytics" not in text]
COMMANDS = sorted({line.split(" #")[0].strip() for page in PAGES for text in blocks(page, "sh") for line in text.splitlines()})


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120


@pytest.mark.parametrize(("page", "number"), PROGRAMS, ids=[f"{page.stem}-{number}" for page, number in PROGRAMS])
def test_a_program_runs(page: Path, number: int) -> None:
    exec(compile(blocks(page, "python")[number], f"{page.name}, program {number + 1}", "exec"), {"__name__": "program"})


@pytest.fixture(scope="module")
def sessions() -> set[str]:
    """Returns the names of all sessions."""
    listed = subprocess.run(
        [sys.executable, "-m", "nox", "--list", "--json", "--sessions", *_declared()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {session["name"] for session in json.loads(listed.stdout)}


def _declared() -> list[str]:
    return re.findall(
        r"^def (\w+)\(session: nox\.Session(?:, torch: str)?\) -> None:", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE
    )


def test_commands_name_sessions_and_modules_that_exist(sessions: set[str]) -> None:
    named = {name for line in COMMANDS for name in re.findall(r"nox -s (\w+)", line)}
    assert named <= sessions
    modules = {name for line in COMMANDS for name in re.findall(r"python -m ([\w.]+)", line)}
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_local_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


PUBLIC = [name for _, name, _ in pkgutil.walk_packages(twinloss.__path__, "twinloss.") if "triton" not in name and "native" not in name]


EXAMPLES = ["inference.assignment", "judge.indistinguishable", "tolerance.intervals", "tolerance.kinks"]


@pytest.mark.parametrize("name", [*PUBLIC, *(f"oracle.{name}" for name in EXAMPLES)])
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
