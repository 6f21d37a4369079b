"""``python -m properties.training``: train the same model with the reference and with the twin, and compare the trainings.

Exit codes: 0 the trainings agree, 1 a check failed, 2 the arguments or the data are wrong, or a run failed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console

import twinloss
from oracle.cases.case import Setting
from oracle.comparison.compare import compare
from oracle.comparison.registry import REFERENCE_DISTRIBUTIONS, shipped
from oracle.contract.verdict import Verdict
from oracle.tools.atomic_files import write_frame
from oracle.tools.options import DETECT, QUIET, TASK
from oracle.tools.progress import Progress
from properties.training import schedule, tolerance
from properties.training.captured_batches import load_all
from properties.training.dataset import DatasetError, open_dataset
from properties.training.runs import Options, Run
from properties.training.tasks import TRAINED, model_of
from properties.training.tolerance import Check

OUT = Path("reports", "out", "train")
SETTINGS = (Setting("float64"), Setting("float32"), Setting("bfloat16"))
OURS = ("twin", "twin-reference-ties")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parsed = _parse(arguments)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    started = time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"  # The runs are processes that share the cores.
    try:
        with tempfile.TemporaryDirectory() as scratch:
            dataset = open_dataset(parsed.data, Path(scratch), parsed.task)
            console.print(f"training on {dataset.origin}", markup=False)
            _clear(parsed.out)
            _choose_models(parsed, Path(scratch))
            options = Options(str(dataset.yaml), parsed.imgsz, parsed.batch, parsed.epochs, str(parsed.out / "cases"), parsed.task)
            rows, checks = _compare_trainings(parsed, options)
    except (DatasetError, RuntimeError) as error:
        console.print(f"train: {error}", markup=False)
        return 2
    checks.append(_judge_captured(parsed.out / "cases", console))
    _write(parsed, rows, checks, dataset.origin)
    for check in checks:
        console.print(
            f"{'ok  ' if check.passed else 'FAIL'} {check.name}: {check.value:.3g} ≤ {check.limit:.3g} ({check.detail})", markup=False
        )
    passed = all(check.passed for check in checks)
    verdict = "nothing changes: the twin trains as the reference does" if passed else "the training changes: see the failed checks"
    console.print(f"train: {verdict} ({time.monotonic() - started:.0f} s)", markup=False)
    return 0 if passed else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "nox -s train --", description="Train the same model with the reference and with the twin, and compare."
    )
    TASK.add_to(parser.add_argument, action="store", default=DETECT, help="the task of the loss (default: %(default)s)")
    parser.add_argument(
        "--data", metavar="YAML", help="a data set in YOLO layout (default: the task's own, or synthetic images without it)"
    )
    parser.add_argument("--model", metavar="YAML", help="a model of the task (default: small.yaml with the task's head)")
    parser.add_argument("--end-to-end", metavar="YAML", help="a model with an end-to-end head (default: small-end-to-end.yaml, likewise)")
    parser.add_argument("--epochs", type=int, default=24, help="default: %(default)s")
    parser.add_argument("--imgsz", type=int, default=160, metavar="PIXELS", help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=4, help="trainings with each criterion (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="runs at a time, a core each (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help="default: %(default)s")
    QUIET.add_to(parser.add_argument)
    parsed = parser.parse_args(arguments)
    for name, least in (("epochs", 1), ("imgsz", 32), ("batch", 1), ("seeds", 2), ("jobs", 1)):
        if getattr(parsed, name) < least:
            parser.error(f"--{name} is {getattr(parsed, name)}; it must be at least {least}")
    for path in (parsed.model, parsed.end_to_end):
        if path and path.endswith(".pt") and not Path(path).is_file():
            parser.error(f"there is no checkpoint at {path}, and nothing is downloaded; give the YAML of a model, or a file that exists")
    return parsed


def _choose_models(parsed: argparse.Namespace, scratch: Path) -> None:
    """Set the models that were not given."""
    task = TRAINED[parsed.task]
    parsed.model = parsed.model or str(model_of(task, "small", scratch, end_to_end=False))
    parsed.end_to_end = parsed.end_to_end or str(model_of(task, "small", scratch, end_to_end=True))


def _compare_trainings(parsed: argparse.Namespace, options: Options) -> tuple[pd.DataFrame, list[Check]]:
    """Make all runs, the twin's after the tolerances are fixed; returns their rows and the checks."""
    folder = parsed.out / "runs"
    folder.mkdir(parents=True)
    first, references = [schedule.repeat_run(parsed.model)], schedule.reference_runs(parsed.model, parsed.seeds, parsed.end_to_end)
    twins = schedule.twin_runs(parsed.model, parsed.seeds, parsed.task)
    with Progress(schedule.NOUN, file=sys.stderr, quiet=parsed.quiet) as progress:
        progress_of_runs = schedule.RunProgress([*first, *references, *twins], folder, progress)
        schedule.make_runs(first, options, folder, 1, progress_of_runs)
        schedule.make_runs(references, options, folder, parsed.jobs, progress_of_runs)
        rows = schedule.read_rows([*first, *references], folder)
        tolerances = _fix_tolerances(rows, references, parsed.out)
        schedule.make_runs(twins, options, folder, parsed.jobs, progress_of_runs)
    rows = pd.concat([rows, schedule.read_rows(twins, folder), *(_tolerance_rows(*pair) for pair in tolerances.items())], ignore_index=True)
    seeded = _names(references, "reference")
    checks = [
        tolerance.repeatable(rows, seeded[0], first[0].name),
        *tolerance.side_by_side(rows),
        *tolerance.curves(rows, tolerances, seeded[0], twins[0].name),
        *tolerance.scores(rows, seeded, _names(twins, "twin")),
    ]
    return rows, checks


def _fix_tolerances(rows: pd.DataFrame, references: Sequence[Run], out: Path) -> dict[str, tolerance.Floats]:
    """Returns the tolerance of every curve, from the reference's runs alone, and writes it to a file before the twin trains."""
    reference, nudged, side_by_side = (_names(references, role) for role in ("reference", "nudged", "shadow"))
    tolerances = {}
    for name in tolerance.CURVES:
        expected = tolerance.curve(rows, reference[0], name)
        apart = [tolerance.deviation(tolerance.curve(rows, run, name), expected) for run in nudged]
        tolerances[name] = tolerance.allowed_deviation(apart, tolerance.own_rounding(rows, side_by_side[0], name.split()[0]))
    write_frame(pd.concat([_tolerance_rows(*pair) for pair in tolerances.items()]), out / "tolerance.parquet")
    return tolerances


def _names(runs: Sequence[Run], role: str) -> list[str]:
    return [run.name for run in runs if run.role == role]


def _tolerance_rows(name: str, values: tolerance.Floats) -> pd.DataFrame:
    """Returns the tolerance of a curve as rows of the same table as the runs."""
    return pd.DataFrame({"run": "tolerance", "role": "tolerance", "seed": 0, "step": range(len(values)), "quantity": name, "value": values})


def _judge_captured(folder: Path, console: Console) -> Check:
    """Check that the differential suite finds no difference on the batches captured during the runs."""
    judged, found = 0, []
    for case in load_all(folder):
        contenders = shipped(case.spec.task)
        for setting in SETTINGS:
            comparison = compare(case, setting, [contenders[name] for name in OURS], contenders["reference"])
            judged += 1
            if comparison.verdict is Verdict.DIFFER:
                found.append(comparison.report())
    for report in found:
        console.print(report, markup=False)
    detail = f"captured batches, each in {len(SETTINGS)} dtypes, on which a stage differs; {judged} judged"
    return Check("captured batches in the differential suite", float(len(found)) if judged else float("nan"), 0.0, detail)


def _write(parsed: argparse.Namespace, rows: pd.DataFrame, checks: list[Check], origin: str) -> None:
    """Write the rows of the report."""
    judged = pd.DataFrame([{"run": "", "role": "check", "quantity": check.name, **vars(check), "passed": check.passed} for check in checks])
    frame = pd.concat([rows, judged.drop(columns="name")], ignore_index=True)
    installed = {distribution.metadata["Name"]: distribution.version for distribution in importlib.metadata.distributions()}
    versions = {
        "torch": torch.__version__,
        "ultralytics": next((installed[name] for name in REFERENCE_DISTRIBUTIONS if name in installed), ""),
        "twinloss": twinloss.__version__,
        "python": platform.python_version(),
    }
    model = Path(parsed.model).name
    recipe = f"{model}, {parsed.epochs} epochs, {parsed.imgsz} px, batch {parsed.batch}, {parsed.seeds} seeds"
    write_frame(frame.assign(**versions, source=origin, recipe=recipe, task=parsed.task), parsed.out / "rows.parquet")


def _clear(out: Path) -> None:
    """Remove the files of an earlier comparison, and no others."""
    for name in ("runs", "cases"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("rows.parquet", "tolerance.parquet"):
        (out / name).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
