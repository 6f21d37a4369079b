"""Packaging and automation: contents of the wheel, imports between rooms, constraints, sessions, workflows and the action."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs would be one more dependency

from oracle.tools.programs import run_python

ROOT = Path(__file__).parents[2]
ROOMS = ("oracle", "properties", "benches", "reports")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def run(*command: str, cwd: Path = ROOT) -> str:
    """Returns the output of a command.

    Raises:
        CalledProcessError: the command failed.
    """
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def canonical(requirement: str) -> str:
    """Returns the normalised name of a requirement."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def test_every_test_file_is_run() -> None:
    """A hook that leaves out the differential run by its folder's name left out that folder's own tests too."""
    listed = run_python("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "properties", cwd=ROOT).stdout
    collected = {line.partition("::")[0] for line in listed.splitlines() if "::" in line}
    assert collected == {path.relative_to(ROOT).as_posix() for path in (ROOT / "properties" / "tests").rglob("test_*.py")}


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


def test_the_wheel_has_the_version_of_the_package(wheel: zipfile.ZipFile) -> None:
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
        (("benches/planted.py", "import properties"), "benches know no property"),
        (("oracle/planted.py", "from ultralytics import YOLO"), "one door to the reference"),
        (("properties/planted.py", "import ultralytics.utils.loss"), "one door to the reference"),
        (("reports/planted.py", "import torch"), "reports read rows"),
        (("reports/planted.py", "from oracle import case"), "reports read rows"),
    ],
    ids=lambda value: value[0] + ": " + value[1] if isinstance(value, tuple) else "",
)
def test_a_forbidden_import_fails_the_check(tmp_path: Path, planted: tuple[str, str], broken: str) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "out", "*.json", "golden")
    for room in (*ROOMS, "impl"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / planted[0]).write_text(planted[1] + "\n")
    program = "import sys; sys.path[:0] = ['impl', '.']; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    checked = run_python("-c", program, cwd=tmp_path)
    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert re.search(rf"^{re.escape(broken)}.* BROKEN$", checked.stdout, re.MULTILINE), checked.stdout


def test_constraints_are_plain_pins_and_cover_the_dependency_groups() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line)] == []
    named = {canonical(entry) for group in PROJECT["dependency-groups"].values() for entry in group if isinstance(entry, str)}
    assert named - {canonical(line) for line in lines} == set()


def test_every_session_has_a_docstring_and_lint_is_the_default() -> None:
    functions = [node for node in ast.parse((ROOT / "noxfile.py").read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]
    sessions = {function.name: ast.get_docstring(function) for function in functions if function.decorator_list}
    assert {"diff", "tests", "lint", "report"} <= set(sessions)
    assert [name for name, docstring in sessions.items() if not docstring] == []
    default = json.loads(run(sys.executable, "-m", "nox", "--list", "--json"))
    assert {session["name"] for session in default} == {"suite", "lint"}


def test_the_readme_s_commands_are_those_that_ci_runs() -> None:
    readme, script = (ROOT / "README.md").read_text("utf-8"), (ROOT / ".ci" / "run").read_text("utf-8")
    commands = re.findall(r'^(pip install "nox\[uv\]") && (nox -s \w+) +#', readme, re.MULTILINE)
    assert commands == [('pip install "nox[uv]"', "nox -s diff"), ('pip install "nox[uv]"', "nox -s tests")]
    assert set(commands[1]) <= set(script.splitlines())


WORKFLOWS = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))


def jobs() -> list[tuple[str, dict[str, Any]]]:
    """Returns every job of every workflow with its name."""
    return [(f"{file}: {name}", job) for file, workflow in WORKFLOWS.items() for name, job in workflow["jobs"].items()]


def act(folder: Path, **inputs: str) -> tuple[int, list[str]]:
    """Runs the action's main step with stand-ins for pip and nox; returns its exit status and the arguments of nox."""
    (step,) = [step for step in ACTION["runs"]["steps"] if step.get("id") == "diff"]
    given = {name: str(entry.get("default", "")) for name, entry in ACTION["inputs"].items()} | inputs
    variables = {name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: given[found[1]], value) for name, value in step["env"].items()}
    programs = {"pip": "exit 0", "python": f'exec {sys.executable} "$@"', "nox": f'printf "%s\\0" "$@" > {folder}/received'}
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    environment = os.environ | variables | {"SUITE": "suite", "GITHUB_OUTPUT": str(folder / "output")}
    environment["PATH"] = os.pathsep.join([str(folder), environment["PATH"]])
    (folder / "step.sh").write_text(step["run"])
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "step.sh"]
    ran = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True)
    received = folder / "received"
    return ran.returncode, received.read_text().split("\0")[:-1] if received.exists() else []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", []),
        ("  \n ", []),
        ("--scale 0.1", ["--scale", "0.1"]),
        ("--scale 0.1\n--labels /data/a\n  -x\n", ["--scale", "0.1", "--labels", "/data/a", "-x"]),
        ("-k 'ties or kinks'\n--labels \"/a folder/with 'quotes'\"", ["-k", "ties or kinks", "--labels", "/a folder/with 'quotes'"]),
        (r"--labels D:\a\labels", ["--labels", r"D:\a\labels"]),
        ("--labels /a/#1 $HOME `id` $(id) *", ["--labels", "/a/#1", "$HOME", "`id`", "$(id)", "*"]),
    ],
)
def test_every_line_of_the_action_s_arguments_reaches_the_run(tmp_path: Path, arguments: str, words: list[str]) -> None:
    code, received = act(tmp_path, candidate="package.module:factory", arguments=arguments)
    assert code == 0
    assert received == ["-f", "suite/noxfile.py", "-s", "diff", "--", "--candidate=package.module:factory", *words]


def test_the_action_refuses_an_unclosed_quote(tmp_path: Path) -> None:
    code, received = act(tmp_path, candidate="package.module:factory", arguments="-k 'ties")
    assert code != 0
    assert received == []


def test_workflows_may_only_read_and_jobs_with_foreign_code_keep_no_token() -> None:
    for file, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {"contents": "read"}, file
    for name, job in jobs():
        steps = job["steps"]
        for step in steps:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name
        if "write" in job.get("permissions", {}).values():
            used = {step["uses"].partition("@")[0] for step in steps if "uses" in step}
            assert used <= {"actions/download-artifact", "actions/deploy-pages"}, f"{name} may write, and runs {used}"
            assert not any(re.search(r"\b(nox|pip|uv|python)\b", step.get("run", "")) for step in steps), name


def test_every_job_has_a_time_limit() -> None:
    assert [name for name, job in jobs() if not job.get("timeout-minutes")] == []


def test_scripts_of_workflows_read_values_from_variables() -> None:
    scripts = [(name, step.get("run", "")) for name, job in jobs() for step in job["steps"]]
    scripts += [("action.yml", step.get("run", "")) for step in ACTION["runs"]["steps"]]
    assert [name for name, script in scripts if "${{" in script] == []
