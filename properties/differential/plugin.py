"""The pytest plugin of the differential run: its options, its header, and the rows that it leaves behind."""

from __future__ import annotations

import argparse
import os
import secrets
from pathlib import Path

import hypothesis
import pytest
import torch

from oracle.cases.workloads import open_pack
from oracle.comparison.registry import TIME_LIMIT, CandidateError
from oracle.ladder.contender import ReleaseError, open_release
from properties.differential import plan
from properties.differential.progress import shown_or_noted
from properties.differential.recorder import SHRINK, Recorder, join
from properties.differential.saved_cases import FOLDER, load
from twinloss import LossSpec

ROWS = Path("reports", "out", "diff", "rows.parquet")
RECORDER = pytest.StashKey[Recorder]()
ENDED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("differential run")
    group.addoption("--candidate", action="append", default=[], metavar="PACKAGE.MODULE:FACTORY", help="compare this contender; repeatable")
    group.addoption(
        "--replay", metavar="DIGEST", help="compare one saved batch, by its digest or file name in --cases, and say FIXED or FAILED"
    )
    group.addoption(
        "--labels",
        action="append",
        default=[],
        metavar="PATH",
        help="real boxes: a COCO instances_*.json, a folder of YOLO labels, a dataset's root or its data.yaml; repeatable",
    )
    group.addoption("--scale", type=float, default=1.0, metavar="FACTOR", help="multiply the number of batches")
    group.addoption("--run-seed", type=int, metavar="SEED", help="draw the batches of an earlier run again; its header says the seed")
    group.addoption(
        "--reference", metavar="RELEASE", help="compare with this release of the reference, such as 8.3.253, by its own definition"
    )
    group.addoption(
        "--time-limit",
        type=float,
        default=TIME_LIMIT,
        metavar="SECONDS",
        help="for one call of a candidate (default: %(default)g)",
    )
    group.addoption(
        "--shrink", type=float, default=SHRINK, metavar="SECONDS", help="to make a failing batch smaller (default: %(default)g)"
    )
    group.addoption("--cases", default=str(FOLDER), metavar="FOLDER", help="where failing batches are saved, and replayed from")
    group.addoption("--rows", default=str(ROWS), metavar="FILE", help="where to write the rows (default: %(default)s)")
    group.addoption("--notes", metavar="FOLDER", help="note there how far the run is, for a program that shows it, and show nothing")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # Workers share the cores.
    if config.option.run_seed is None:
        config.option.run_seed = 0 if os.environ.get("CI") else secrets.randbelow(2**31)
    try:
        option = config.option
        option.labels = list(dict.fromkeys(option.labels))
        if not hasattr(config, "workerinput"):  # once, before any worker starts
            check_files(option)
        if option.reference is not None:
            LossSpec.for_release(option.reference, num_classes=1)
            open_release(option.reference)
        config.stash[RECORDER] = recorder = Recorder(
            option.candidate, f"diff x{option.scale:g}", option.run_seed, Path(option.cases), option.reference, option.time_limit
        )
        if option.hypothesis_profile == "nightly":
            recorder.database = hypothesis.settings().database  # goes on where the last night ended
        recorder.shrink = option.shrink
        recorder.tell = shown_or_noted(config, option.notes).compared
        rows = Path(option.rows)
        rows.parent.mkdir(parents=True, exist_ok=True)
        recorder.note = rows.with_name(f"calling-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.json")
    except (CandidateError, ReleaseError, ValueError) as error:
        raise pytest.UsageError(str(error)) from error


def check_files(option: argparse.Namespace) -> None:
    """Read the saved case and the labels that the options name.

    Raises:
        ValueError: something cannot be read.
    """
    try:
        if option.replay is not None:
            device = load(option.replay, Path(option.cases)).setting.device
            if device.startswith("cuda") and not torch.cuda.is_available():
                raise ValueError(
                    f"case {option.replay} was found on {device}, and there is no CUDA device here; replay it where there is one"
                )
        for path in option.labels:
            open_pack(f"labels:{path}")
    except OSError as error:
        raise ValueError(str(error)) from error


def pytest_report_header(config: pytest.Config) -> list[str]:
    contenders = config.stash[RECORDER].contenders.values()
    shown = [f"{contender.name} ({contender.version})" for contender in contenders]
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, so nothing is checked on CUDA"
    dtypes = dict.fromkeys(setting.name for setting, _, _ in ((plan.DEFINITION, "", 0), *plan.ARITHMETIC))
    return [
        f"contenders: {', '.join(shown)}",
        f"torch {torch.__version__}; devices: cpu; cuda: {cuda}",
        f"dtypes: {', '.join(dtypes)}",
        f"scale {config.option.scale:g}, seed {config.option.run_seed} (again: --run-seed {config.option.run_seed})",
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.option
    replaying = option.replay is not None
    if "generated_share" in metafunc.fixturenames:
        shares = [] if replaying or option.labels else plan.generated(option.scale, option.candidate)
        metafunc.parametrize("generated_share", shares, ids=[share.name for share in shares])
    if "real_share" in metafunc.fixturenames:
        real = [] if replaying else plan.real(option.scale, option.candidate, option.labels)
        metafunc.parametrize("real_share", real, ids=[share.name for share in real])
    if "digest" in metafunc.fixturenames:
        metafunc.parametrize("digest", [option.replay] if replaying else [])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What was not asked for is no skipped test.
    items[:] = [item for item in items if "NOTSET" not in item.name]


@pytest.fixture
def recorder(request: pytest.FixtureRequest) -> Recorder:
    return request.config.stash[RECORDER]


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    recorder, rows = config.stash[RECORDER], Path(config.option.rows)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        config.stash[ENDED] = [recorder.ended(note) for note in sorted(rows.parent.glob("calling-*.json"))]
    recorder.write(rows.with_name(f"part-{worker or 'main'}.parquet"))
    if worker is None:
        join(sorted(rows.parent.glob("part-*.parquet")), rows)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for report in config.stash.get(ENDED, []):
        terminalreporter.section("a candidate ended the process", red=True)
        terminalreporter.line(report)
