"""The project keeps its own promises: what the wheel holds, who may import whom, what the README says."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from oracle.tools.programs import run_python

ROOT = Path(__file__).parents[2]
ROOMS = ("oracle", "properties", "benches", "reports")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def run(*command: str, cwd: Path = ROOT) -> str:
    """What the command printed.

    Raises:
        CalledProcessError: it failed.
    """
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def canonical(requirement: str) -> str:
    """A requirement's bare name, as registries compare names."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_the_twin_alone(wheel: zipfile.ZipFile) -> None:
    modules = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {path.relative_to(ROOT / "impl").as_posix() for path in (ROOT / "impl" / "twinloss").rglob("*") if path.is_file()}
    assert modules == {name for name in expected if "__pycache__" not in name}


def test_the_wheel_requires_torch_alone_and_is_apache(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    lines = wheel.read(metadata).decode().splitlines()
    assert [line for line in lines if line.startswith("Requires-Dist")] == ["Requires-Dist: torch>=2.6"]
    assert "License-Expression: Apache-2.0" in lines
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_wheel_says_the_version_that_the_twin_says(wheel: zipfile.ZipFile) -> None:
    import twinloss

    assert wheel.filename is not None
    assert Path(wheel.filename).name.startswith(f"twinloss-{twinloss.__version__}-")


def test_the_twin_imports_torch_and_the_standard_library_alone() -> None:
    allowed = sys.stdlib_module_names | {"torch", "triton", "twinloss"}
    for path in (ROOT / "impl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            strange = {module.partition(".")[0] for module in modules} - allowed
            assert not strange, f"{path.relative_to(ROOT)} imports {', '.join(strange)}"


@pytest.mark.parametrize(
    ("planted", "broken"),
    [
        (("impl/twinloss/planted.py", "import oracle.cases.case"), "impl <- oracle <- properties, benches"),
        (("impl/twinloss/planted.py", "def late(): import ultralytics"), "the twin stands alone"),
        (("oracle/planted.py", "from properties import strategies"), "impl <- oracle <- properties, benches"),
        (("benches/planted.py", "import properties"), "impl <- oracle <- properties, benches"),
        (("oracle/planted.py", "from ultralytics import YOLO"), "one door to the reference"),
        (("properties/planted.py", "import ultralytics.utils.loss"), "one door to the reference"),
        (("reports/planted.py", "import torch"), "reports read rows"),
        (("reports/planted.py", "from oracle import case"), "reports read rows"),
    ],
    ids=lambda value: value[0] + ": " + value[1] if isinstance(value, tuple) else "",
)
def test_an_import_between_rooms_that_should_not_be_fails_the_check(tmp_path: Path, planted: tuple[str, str], broken: str) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "out", "cases", "golden")
    for room in (*ROOMS, "impl"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / planted[0]).write_text(planted[1] + "\n")
    program = "import sys; sys.path[:0] = ['impl', '.']; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    checked = run_python("-c", program, cwd=tmp_path)
    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert re.search(rf"^{re.escape(broken)}.* BROKEN$", checked.stdout, re.MULTILINE), checked.stdout


def test_constraints_are_plain_pins_and_cover_what_the_groups_name() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line)] == []
    named = {canonical(entry) for group in PROJECT["dependency-groups"].values() for entry in group if isinstance(entry, str)}
    assert named - {canonical(line) for line in lines} == set()


def test_every_session_is_explained_and_the_cheap_one_is_the_default() -> None:
    functions = [node for node in ast.parse((ROOT / "noxfile.py").read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]
    sessions = {function.name: ast.get_docstring(function) for function in functions if function.decorator_list}
    assert {"diff", "tests", "lint", "report"} <= set(sessions)
    assert [name for name, docstring in sessions.items() if not docstring] == []
    default = json.loads(run(sys.executable, "-m", "nox", "--list", "--json"))
    assert {session["name"] for session in default} == {"suite", "lint"}


def test_the_readme_s_commands_are_those_that_ci_runs() -> None:
    readme, script = (ROOT / "README.md").read_text("utf-8"), (ROOT / ".ci" / "run").read_text("utf-8")
    commands = re.findall(r'^(pip install "nox\[uv\]") && (nox -s \w+)', readme, re.MULTILINE)
    assert commands == [('pip install "nox[uv]"', "nox -s diff"), ('pip install "nox[uv]"', "nox -s tests")]
    assert set(commands[1]) <= set(script.splitlines())


@pytest.mark.parametrize("number", [0, 1])
def test_the_readme_s_programs_run(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    every = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    programs = [program for program in every if "ultralytics" not in program]  # test_examples.py has the one that trains
    assert len(programs) == 2
    found: dict[str, object] = {}
    exec(compile(programs[number], f"README.md, program {number + 1}", "exec"), found)
    assert tuple(getattr(found["loss"], "shape", ())) == (3,)
    if number == 0:
        assert "box_loss" in capsys.readouterr().out
