"""The pytest plugin behind ``python -m benches``: the options, the run that measures, and the benchmarks that replay its samples.

pytest-benchmark times one function after the other in its own process; ratios need interleaved calls in several processes. Therefore worker
processes measure first, and each benchmark replays its samples to pytest-benchmark through a clock: statistics, table, JSON, comparison
with earlier runs and their options are those of pytest-benchmark.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from benches.plan.contenders import BASELINE, NATIVE_TWIN, TORCH_TWIN, TRITON_TWIN, BenchContender, candidates
from benches.plan.units import Unit, units
from benches.plan.workloads import Workload, labelled
from benches.run.campaign import NOUN, Campaign
from benches.run.rows import PHASES
from benches.run.write_rows import OUT, write
from oracle.tools.options import CANDIDATE, DETECT, KPT_SHAPE, LABELS, TASK, chosen_tasks
from oracle.tools.progress import Progress

QUIET = -1
"""The verbosity at which ``python -m benches`` starts pytest; one more ``-q`` hides the progress."""

if TYPE_CHECKING:
    from _pytest.capture import CaptureManager


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a bench run."""
    group = parser.getgroup("bench", "what is measured")
    TASK.add_to(group.addoption, help="measure this task's workloads; repeatable (default: all; with --labels or --candidate: detect)")
    LABELS.add_to(group.addoption)
    KPT_SHAPE.add_to(group.addoption)
    group.addoption("--imgsz", type=int, default=640, metavar="PX", help="side of the network's input, with --labels (default: 640)")
    group.addoption("--batch", type=int, default=16, metavar="N", help="images in a batch, with --labels (default: 16)")
    CANDIDATE.add_to(group.addoption, help="measure this candidate as well; repeatable")
    group.addoption("--extent", choices=("quick", "default", "full"), default="default", help="how much to measure (default: default)")
    group.addoption("--threads", type=int, metavar="N", help="threads of each worker (default: the processor's cores)")
    group.addoption("--device", default="cpu", help="cpu or a CUDA device (default: cpu)")
    group.addoption(
        "--no-compile", action="store_true", help="leave out the reference under torch.compile, which takes a minute to compile"
    )
    group.addoption("--out", type=Path, default=OUT, metavar="FOLDER", help=f"where the rows go (default: {OUT})")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read a user's labels before anything is measured, so that an error in them ends the run at once."""
    labels, imgsz, batch, keypoints = (config.getoption(name) for name in ("--labels", "--imgsz", "--batch", "--kpt-shape"))
    check_labels(labels, imgsz, batch, config.getoption("--task") or [DETECT], keypoints)


def check_labels(
    labels: Sequence[str], imgsz: int, batch: int, tasks: Sequence[str] = (DETECT,), keypoints: tuple[int, int] | None = None
) -> None:
    """Build the batches of a user's labels.

    Raises:
        pytest.UsageError: labels cannot be read, or give no batch of this size.
    """
    try:
        for workload in _labelled(labels, imgsz, batch, tasks, keypoints):
            workload.case()
    except (OSError, ValueError) as error:
        raise pytest.UsageError(str(error)) from error


def _labelled(labels: Sequence[str], imgsz: int, batch: int, tasks: Sequence[str], keypoints: tuple[int, int] | None) -> list[Workload]:
    """Returns the workloads of a user's labels, named "labels", "labels-2" and so on, of another task than detection with its name."""
    found = []
    for task in tasks:
        for at, path in enumerate(labels):
            name = "-".join(["labels", *([] if task == DETECT else [task]), *([str(at + 1)] if at else [])])
            found.append(labelled(path, imgsz, batch, name, task, keypoints))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Generate one benchmark for each unit, contender and phase."""
    if "contender" in metafunc.fixturenames:
        planned = _planned(metafunc.config)
        cases = [(unit, contender, phase) for unit in planned for contender in unit.contenders for phase in PHASES]
        names = [f"{unit.name}-{contender.label}-{phase}" for unit, contender, phase in cases]
        metafunc.parametrize(("unit", "contender", "phase"), cases, ids=names)


def _planned(config: pytest.Config) -> list[Unit]:
    labels, device = config.getoption("--labels"), config.getoption("--device")
    graph = BenchContender(TRITON_TWIN.program, f"{TRITON_TWIN.backend}+graph")
    compiled = [NATIVE_TWIN] if device == "cpu" else [TRITON_TWIN, graph]
    contenders = [BASELINE, *compiled, TORCH_TWIN, *candidates(config.getoption("--candidate"))]
    if not config.getoption("--no-compile"):
        contenders.append(BenchContender(BASELINE.program, "compile"))
    detection_alone = [DETECT] if labels or config.getoption("--candidate") else []
    tasks = chosen_tasks(config.getoption("--task") or detection_alone)
    imgsz, batch, keypoints = (config.getoption(name) for name in ("--imgsz", "--batch", "--kpt-shape"))
    workloads = _labelled(labels, imgsz, batch, tasks, keypoints)
    return list(units(config.getoption("--extent"), contenders, workloads, device, tasks))


@pytest.fixture(scope="session")
def campaign(request: pytest.FixtureRequest) -> Iterator[Campaign]:
    """Measure the units of the selected benchmarks, and write the rows before the first benchmark replays its samples."""
    config = request.config
    functions = [item for item in request.session.items if isinstance(item, pytest.Function) and hasattr(item, "callspec")]
    chosen = [cast("Unit", function.callspec.params["unit"]) for function in functions]
    threads = config.getoption("--threads") or len(os.sched_getaffinity(0))
    capture: CaptureManager = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        progress = Progress(NOUN, file=sys.stderr, quiet=config.get_verbosity() < QUIET)
    with Campaign(list(dict.fromkeys(chosen)), threads, progress) as made:
        with capture.global_and_fixture_disabled(), progress:
            try:
                made.run()
                made.run_training()
            finally:
                write(made, config.getoption("--out"))
        yield made
