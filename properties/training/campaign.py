"""All runs of a comparison: which they are, and how they come to be made, two at a time."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import pandas as pd

from properties.training.runs import Options, Run, perform_quietly

FOLDER = Path(__file__).parent
MODEL, END_TO_END = FOLDER / "small.yaml", FOLDER / "small-end-to-end.yaml"
WHOLE_NUDGED, SHORT_NUDGED, SHORT_STEPS = 2, 4, 60

Tell = Callable[[float, str], None]


def of_reference(model: str, seeds: int, end_to_end: str) -> list[Run]:
    """What is learnt from the reference alone, before the twin trains: its curves, how far rounding moves them, its spread over seeds."""
    whole = [Run(f"nudged {n + 1}", "nudged", model, nudge=n + 1) for n in range(WHOLE_NUDGED)]
    short = [
        Run(f"nudged {n + 1}", "nudged", model, nudge=n + 1, steps=SHORT_STEPS) for n in range(WHOLE_NUDGED, WHOLE_NUDGED + SHORT_NUDGED)
    ]
    seeded = [Run(f"reference, seed {seed}", "reference", model, seed=seed) for seed in range(seeds)]
    beside = [Run("beside the reference", "shadow", model), Run("beside the reference, end to end", "shadow", end_to_end)]
    return [*beside, *seeded, *whole, *short]


def of_twin(model: str, seeds: int) -> list[Run]:
    """The same trainings with the twin, and one with its own choice among ties."""
    return [
        *(Run(f"twin, seed {seed}", "twin", model, seed=seed) for seed in range(seeds)),
        Run("twin, stable ties", "twin", model, ties="stable"),
    ]


def repeat(model: str) -> Run:
    """The reference once more; made first, and alone, so that the data set's labels are scanned once."""
    return Run("repeat", "repeat", model, steps=SHORT_STEPS)


def make(runs: Sequence[Run], options: Options, folder: Path, jobs: int, tell: Tell) -> None:
    """Make runs, each in a fresh process, and tell how far they are.

    Raises:
        RuntimeError: a run failed; the message names it and where it left what it printed.
    """
    spawn = multiprocessing.get_context("spawn")
    started = time.monotonic()
    with ProcessPoolExecutor(jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        waiting: dict[Future[None], Run] = {pool.submit(perform_quietly, run, options, file_of(run, folder)): run for run in runs}
        try:
            while waiting:
                done, _ = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                share = sum(progress(file_of(run, folder)) for run in runs) / len(runs)
                for future in done:
                    run = waiting.pop(future)
                    future.result()
                    tell(share, f"{run.name} made; {len(runs) - len(waiting)} of {len(runs)}, {time.monotonic() - started:.0f} s")
                tell(share, "")
        except RuntimeError as error:
            pool.shutdown(wait=False, cancel_futures=True)
            raise RuntimeError(f"{error}; what it printed is in {folder}") from error


def file_of(run: Run, folder: Path) -> Path:
    """Where a run writes its lines."""
    return folder / f"{run.name.replace(',', '').replace(' ', '-')}.jsonl"


def progress(path: Path) -> float:
    """The share of a run that is made."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if not lines:
        return 0.0
    return min(sum(line.startswith('{"step"') for line in lines) / int(json.loads(lines[0])["steps"]), 1.0)


def read(runs: Sequence[Run], folder: Path) -> pd.DataFrame:
    """What the runs wrote, one value a row."""
    return pd.DataFrame([row for run in runs for row in _values(run, file_of(run, folder))])


def _values(run: Run, path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        record = json.loads(line)
        where = {"run": run.name, "role": run.role, "seed": run.seed, "step": record.get("step", float("nan")), "epoch": record["epoch"]}
        yield from ({**where, "quantity": quantity, "value": value} for quantity, value in record["values"].items())
