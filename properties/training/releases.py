"""``python -m properties.training.releases [RELEASE ...]``: the drop-in inside releases of the reference, each in a folder of its own.

Where a release's trainer runs here, it trains for an epoch on a few pictures; where it does not, its model and criterion are called. Exit
codes: 0 each release is served, or refused by name; 1 one is not; 2 usage.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from oracle.ladder.install import InstallError, add_dependency, cache_folder, dependency_folder, release_folder
from oracle.ladder.release_process import environment
from oracle.tools.atomic_files import write_frame
from oracle.tools.options import DETECT, TASK, chosen_tasks
from properties.training.dataset import copied, own_data
from properties.training.synthetic_images import make_images
from properties.training.tasks import TRAINED, model_of
from twinloss.release_definitions import number

DEFAULT = ("8.0.100", "8.1.0", "8.2.103", "8.3.0", "8.3.253", "8.4.0", "8.4.60", "8.4.127", "8.4.128", "8.4.190")
ROWS = Path("reports", "out", "hook", "rows.parquet")
ROOT = Path(__file__).resolve().parents[2]
PICTURES = {"train": 16, "val": 8}
PATIENCE = 900.0  # seconds of processor time that a training of a few steps may take


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the answer is the exit code."""
    asked = _parse(arguments)
    console = Console(soft_wrap=True, highlight=False)
    rows = []
    with tempfile.TemporaryDirectory(prefix="hook-") as folder:
        data = {task: few_pictures(Path(folder, task), task) for task in chosen_tasks(asked.task)}
        for release in sorted(set(asked.releases) or set(DEFAULT), key=number):
            for row in (row for task in data for row in tried(release, task, str(data[task]), Path(folder, task))):
                rows.append(row)
                trial = f"{release:<8} {row['task']}, {row['head']}: {row['how']} {row['verdict']}"
                console.print(f"{trial} {row['message'] or row['note']}", markup=False)
    frame = pd.DataFrame(rows)
    write_frame(frame, asked.rows)
    good = frame["verdict"].isin(["verified", "refused"])
    console.print(
        f"{frame['release'][good].nunique()} of {frame['release'].nunique()} releases are served or refused by name: {asked.rows}"
    )
    return int(not good.all())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("nox -s hook --", description="Try the drop-in inside releases of the reference.")
    parser.add_argument("releases", nargs="*", metavar="RELEASE", help=f"such as 8.3.253; without any: {' '.join(DEFAULT)}")
    TASK.add_to(parser.add_argument, help="try a model of this task; repeatable (default: all)")
    parser.add_argument("--rows", type=Path, default=ROWS, help="where to write the rows (default %(default)s)")
    asked = parser.parse_args(arguments)
    for release in asked.releases:
        if not re.fullmatch(r"\d+\.\d+\.\d+", release):
            parser.error(f"{release!r} is not a release: give three numbers, such as 8.3.253")
    return asked


def few_pictures(folder: Path, task: str) -> Path:
    """A few pictures of the task's own data set, or made-up ones where that is absent; the answer is the data set's YAML."""
    source = own_data(task)
    if source is None:
        return make_images(folder / "data", side=160, task=task, train=PICTURES["train"], val=PICTURES["val"])
    return copied(source, folder / "data", PICTURES)


def heads(release: str, task: str, folder: Path) -> Iterator[tuple[str, str, bool]]:
    """What is tried of a release: a name, the YAML of a model, and whether it is trained."""
    if task != "oriented" or number(release) >= (8, 1, 0):
        yield "plain", str(model_of(TRAINED[task], "tiny", folder, end_to_end=False)), True
    if task == DETECT and number(release) >= (8, 2, 0):
        yield "YOLOv10", "yolov10n.yaml", False
    if number(release) >= (8, 4, 0):
        yield "end-to-end", str(model_of(TRAINED[task], "tiny", folder, end_to_end=True)), True


def tried(release: str, task: str, data: str, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each head of a release."""
    for head, model, train in heads(release, task, folder):
        blank: dict[str, Any] = {
            **dict.fromkeys(("how", "definition", "returns", "criterion", "verdict", "message", "note"), ""),
            "training_calls": 0,
            "validation_calls": 0,
            "verifications": 0,
            "difference": float("nan"),
        }
        yield blank | {"task": task, "release": release, "head": head} | perform(release, model, data if train else "", folder)


def perform(release: str, model: str, data: str, folder: Path) -> dict[str, Any]:
    """The drop-in in a process of the release's; what an import misses is installed, and the process started anew."""
    cache = cache_folder()
    try:
        place = release_folder(release, cache)
        while True:
            found = _in_process(place, model, data, folder, dependency_folder(cache))
            if found["verdict"] != "lacks":
                return found
            add_dependency(found["message"], cache)
    except InstallError as error:
        return {"verdict": "not installed", "message": str(error)}


def _in_process(place: Path, model: str, data: str, folder: Path, dependencies: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="hook-", dir=folder) as scratch:
        out = Path(scratch, "outcome.json")
        task = {
            "model": model,
            "data": data,
            "imgsz": 160,
            "batch": 4,
            "scratch": scratch,
            "dependencies": str(dependencies),
            "out": str(out),
        }
        done = subprocess.run(
            [sys.executable, "-m", "oracle.ladder.hook_trial"],
            input=json.dumps(task),
            env=os.environ | environment(scratch) | _surroundings(place),
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=_limit,
        )
        if out.exists():
            outcome: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
            return outcome
    return {"verdict": "failed", "message": f"its process ended with {done.returncode}"}


def _surroundings(place: Path) -> dict[str, str]:
    """The release first on the path, then the rooms; older trainers load their own checkpoints in a way that torch now asks leave for."""
    path = os.pathsep.join([str(place), str(ROOT / "impl"), str(ROOT)])
    return {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}


def _limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (int(PATIENCE), int(PATIENCE)))


if __name__ == "__main__":
    sys.exit(main())
