"""The pytest plugin of the differential run: options, header, and rows."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
import pandas as pd
import pytest
import torch

from oracle.cases.workloads.label_files import source_of
from oracle.comparison.registry import CandidateError
from oracle.contract.assumptions import ASSUMPTIONS, AssumptionError
from oracle.ladder.contender import ReleaseError, open_release
from oracle.tools.options import CANDIDATE, DETECT, IN_PROCESS, KPT_SHAPE, LABELS, TASK, chosen_tasks
from properties.differential import plan
from properties.differential.contract import contract_text
from properties.differential.options import CASES, LIMIT, SHRINK
from properties.differential.progress import register_progress
from properties.differential.recorder import Recorder, join
from properties.differential.run_explanations import RunExplanation, write
from properties.differential.run_folder import RunFolder
from properties.differential.saved_cases import ReplayCommand, load
from properties.tasks import TASKS
from reports.escape import plain
from twinloss import LossSpec

ROWS = Path("reports", "out", "diff", "rows.parquet")
RECORDER = pytest.StashKey[Recorder]()
ENDED = pytest.StashKey[list[str]]()
EXPLAINED = pytest.StashKey[list[RunExplanation]]()
UNCOMPARED = pytest.StashKey[list[str]]()
DECISIVE = ("cases", "reference", "time_limit", "assume", "in_process")
"""Options on which a verdict depends, repeated in replay commands."""
SIGNALS = pytest.StashKey[list[int]]()
HANDLERS = pytest.StashKey[dict[int, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("differential run")
    TASK.add_to(group.addoption, help="compare this task; repeatable (default: all; with --candidate, --labels or --reference: detect)")
    CANDIDATE.add_to(group.addoption, help="compare this contender; repeatable")
    IN_PROCESS.add_to(group.addoption)
    group.addoption("--contract", action="store_true", help="print the contract of a candidate, and exit")
    group.addoption(
        "--assume",
        action="append",
        default=[],
        metavar="NAME[,NAME]",
        help=f"leave out batches that break an assumption of the candidates; repeatable: {', '.join(ASSUMPTIONS)}",
    )
    group.addoption(
        "--replay", metavar="DIGEST", help="compare one saved batch, by its digest or file name in --cases, and print FIXED or FAILED"
    )
    LABELS.add_to(group.addoption)
    KPT_SHAPE.add_to(group.addoption)
    group.addoption("--scale", type=float, default=1.0, metavar="FACTOR", help="multiply the number of batches")
    group.addoption("--run-seed", type=int, metavar="SEED", help="draw the batches of an earlier run again; its header shows the seed")
    group.addoption(
        "--reference", metavar="RELEASE", help="compare with this release of the reference, such as 8.3.253, by its own definition"
    )
    for option in (LIMIT, SHRINK, CASES):
        option.add_to(group.addoption)
    group.addoption("--rows", default=str(ROWS), metavar="FILE", help="file of the rows (default: %(default)s)")
    group.addoption("--notes", metavar="FOLDER", help="record the progress in this folder, for a program that shows it, and show none")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # Workers share the cores.
    worker = getattr(config, "workerinput", {})
    config.option.run_seed = worker.get("run_seed", config.option.run_seed)
    if config.option.run_seed is None:
        config.option.run_seed = 0 if os.environ.get("CI") else secrets.randbelow(2**31)
    try:
        option = config.option
        option.labels = list(dict.fromkeys(option.labels))
        option.task = tasks_of(option)
        if not hasattr(config, "workerinput"):  # once, before any worker starts
            check_files(option)
        if option.reference is not None:
            LossSpec.for_release(option.reference, num_classes=1)
            open_release(option.reference)
        config.stash[RECORDER] = recorder = Recorder(
            option.candidate,
            f"diff x{option.scale:g}",
            option.run_seed,
            Path(option.cases),
            option.reference,
            option.time_limit,
            option.assume,
            isolated=not option.in_process,
        )
        recorder.replay = ReplayCommand.here(*_decisive(config))
        if option.hypothesis_profile == "nightly":
            recorder.database = hypothesis.settings().database  # continues with the examples of the last night
        recorder.shrink = option.shrink
        recorder.on_compared = register_progress(config, option.notes).compared
    except (AssumptionError, CandidateError, ReleaseError, ValueError) as error:
        raise pytest.UsageError(plain(str(error))) from error
    if option.candidate:
        if getattr(option, "timeout", None) is None:
            option.timeout = 0  # each call has its own limit of processor time
        for lost in ("PytestUnraisableExceptionWarning", "PytestUnhandledThreadExceptionWarning"):
            config.addinivalue_line("filterwarnings", f"ignore::pytest.{lost}")  # threads and destructors of a candidate fail no test
    recorder.folder = RunFolder(Path(worker["run_folder"]), worker["workerid"]) if worker else RunFolder.create(Path(option.rows))
    _listen(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    # Workers get the command's arguments, but not the seed that the controller drew.
    folder = node.config.stash[RECORDER].folder
    node.workerinput |= {"run_seed": node.config.option.run_seed, "run_folder": str(folder.path)}


def _listen(config: pytest.Config) -> None:
    """Makes SIGTERM end the run like SIGINT, and records the signal."""
    came: list[int] = []
    config.stash[SIGNALS] = came

    def interrupt(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt(signal.Signals(number).name)

    if threading.current_thread() is threading.main_thread():
        before: dict[int, Any] = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        config.stash[HANDLERS] = before


def pytest_unconfigure(config: pytest.Config) -> None:
    for number, handler in config.stash.get(HANDLERS, {}).items():
        signal.signal(number, handler)
    recorder = config.stash.get(RECORDER, None)
    if recorder and recorder.folder and not hasattr(config, "workerinput"):
        recorder.folder.close()


def _decisive(config: pytest.Config) -> list[str]:
    """Returns the options in :data:`DECISIVE` that differ from their defaults, as words of a command."""
    usual = {"cases": CASES.keywords["default"], "time_limit": LIMIT.keywords["default"]}
    given = {name: getattr(config.option, name) for name in DECISIVE}
    typed = [(name, value) for name, values in given.items() for value in (values if isinstance(values, list) else [values])]
    changed = [(f"--{name.replace('_', '-')}", value) for name, value in typed if value not in (None, False, usual.get(name))]
    return [word for flag, value in changed for word in ((flag,) if value is True else (flag, str(value)))]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if not config.option.contract:
        return None
    sys.stdout.write(f"{contract_text()}\n")
    return 0


def tasks_of(option: argparse.Namespace) -> tuple[str, ...]:
    """Returns the tasks of a run: those of ``--task``; without it all, or detection where another option is made for that alone.

    Raises:
        ValueError: an option does not go with a named task.
    """
    if option.reference is not None:
        other = next((name for name in option.task if name != DETECT), None)
        if other is not None:
            raise ValueError(f"releases are compared in detection alone, which does not go with --task {other}; leave one of the two out")
        return (DETECT,)
    return chosen_tasks(option.task or ([DETECT] if option.candidate or option.labels else []), tuple(TASKS))


def check_files(option: argparse.Namespace) -> None:
    """Reads the saved case and the labels that the options name.

    Raises:
        ValueError: a file cannot be read.
    """
    try:
        if option.replay is not None:
            device = load(option.replay, Path(option.cases)).setting.device
            if device.startswith("cuda") and not torch.cuda.is_available():
                raise ValueError(
                    f"case {option.replay} was found on {device}, and there is no CUDA device here; replay it on a machine with one"
                )
        for path in option.labels:
            for task in tasks_of(option):
                TASKS[task].images(source_of(path, option.kpt_shape))
    except OSError as error:
        raise ValueError(str(error)) from error


def pytest_report_header(config: pytest.Config) -> list[str]:
    contenders = config.stash[RECORDER].contenders().values()
    shown = [f"{contender.name} ({contender.version})" for contender in contenders]
    tasks = config.option.task
    saved = None if config.option.replay is None else load(config.option.replay, Path(config.option.cases))
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, so nothing is checked on CUDA"
    dtypes = dict.fromkeys(setting.name for task in tasks for setting in TASKS[task].settings)
    return [
        plain(f"contenders: {', '.join(shown)}"),
        f"torch {torch.__version__}; devices: cpu; cuda: {cuda}",
        f"tasks: {', '.join(tasks)}; dtypes: {', '.join(dtypes)}" if saved is None else f"task: {saved.case.spec.task}",
        f"scale {config.option.scale:g}, seed {config.option.run_seed} (again: --run-seed {config.option.run_seed})",
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.option
    replaying = option.replay is not None
    if "generated_share" in metafunc.fixturenames:
        shares = [] if replaying or option.labels else plan.generated(option.scale, option.candidate, option.task)
        metafunc.parametrize("generated_share", shares, ids=[share.name for share in shares])
    if "real_share" in metafunc.fixturenames:
        real = [] if replaying else plan.real(option.scale, option.candidate, option.labels, option.task, option.kpt_shape)
        metafunc.parametrize("real_share", real, ids=[share.name for share in real])
    if "soak_share" in metafunc.fixturenames:
        soaks = [] if replaying or option.labels else plan.soaks(option.candidate, option.task)
        metafunc.parametrize("soak_share", soaks, ids=[share.name for share in soaks])
    if "digest" in metafunc.fixturenames:
        metafunc.parametrize("digest", [option.replay] if replaying else [])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Tests without shares are left out, not skipped.
    items[:] = [item for item in items if "NOTSET" not in item.name]


@pytest.fixture
def recorder(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    recorder = request.config.stash[RECORDER]
    yield recorder
    recorder.flush()


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    recorder = config.stash[RECORDER]
    recorder.flush()
    if hasattr(config, "workerinput") or recorder.folder is None:
        return
    if not config.stash[SIGNALS]:  # after an interruption, a candidate that was being called did not end its process
        config.stash[ENDED] = [recorder.ended(note) for note in recorder.folder.notes()]
        recorder.flush()
    rows = Path(config.option.rows)
    join(recorder.folder, rows)
    if not config.stash[SIGNALS] and config.option.replay is None:  # one batch explains little
        try:
            config.stash[EXPLAINED] = found = recorder.explanations(partial(_say, config))
        except KeyboardInterrupt:  # the rows are complete; their explanation alone is missing
            found, session.exitstatus = [], pytest.ExitCode.INTERRUPTED
        write(found, rows)
    config.stash[UNCOMPARED] = uncompared = _uncompared(rows, recorder)
    if uncompared and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _say(config: pytest.Config, text: str) -> None:
    """Prints a line, unless the run is quiet."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and config.get_verbosity() >= 0:
        reporter.ensure_newline()
        reporter.write_line(plain(text))
        reporter.flush()


def _uncompared(rows: Path, recorder: Recorder) -> list[str]:
    """Returns the candidates that declined every batch."""
    if not rows.exists():
        return []
    frame = pd.read_parquet(rows, columns=["contender", "verdict"])
    compared = (frame["verdict"] != "NOT COMPARED").groupby(frame["contender"]).any()
    return [str(name) for name, any_ in compared.items() if name in recorder.candidates and not any_]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for report in config.stash.get(ENDED, []):
        terminalreporter.section("a process ended in a candidate's code", red=True)
        terminalreporter.line(plain(report))
    for one in config.stash.get(EXPLAINED, []):
        terminalreporter.section(f"{plain(one.contender)}, all batches that differ")
        terminalreporter.line(plain(one.sentence))
    for name in config.stash.get(UNCOMPARED, []):
        terminalreporter.section("nothing was compared", red=True)
        terminalreporter.line(plain(f"{name} declined every batch, so its agreement is unknown; the report lists its reasons"))
    if came := config.stash.get(SIGNALS, []):
        terminalreporter.section(f"interrupted by {signal.Signals(came[0]).name}", yellow=True)
        terminalreporter.line("The rows hold the comparisons finished before; they do not include the interrupted one.")
