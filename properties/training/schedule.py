"""All runs of a comparison: which they are, and how they come to be made, two at a time."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import pandas as pd

from oracle.tools.progress import Progress
from properties.training.runs import Options, Run, perform_quietly

FOLDER = Path(__file__).parent
MODEL, END_TO_END = FOLDER / "small.yaml", FOLDER / "small-end-to-end.yaml"
NUDGED, REPEATED_STEPS = 6, 60

STARTING = 50  # steps that would be made in the time that a run takes to begin

NOUN, STEP = f"training steps (a run's start takes as long as {STARTING})", "step"


def of_reference(model: str, seeds: int, end_to_end: str) -> list[Run]:
    """What is learnt from the reference alone, before the twin trains: its curves, how far rounding moves them, its spread over seeds."""
    nudged = [Run(f"nudged {n + 1}", "nudged", model, nudge=n + 1) for n in range(NUDGED)]
    seeded = [Run(f"reference, seed {seed}", "reference", model, seed=seed) for seed in range(seeds)]
    beside = [Run("beside the reference", "shadow", model), Run("beside the reference, end to end", "shadow", end_to_end)]
    return [*beside, *seeded, *nudged]


def of_twin(model: str, seeds: int) -> list[Run]:
    """The same trainings with the twin."""
    return [Run(f"twin, seed {seed}", "twin", model, seed=seed) for seed in range(seeds)]


def repeat(model: str) -> Run:
    """The reference once more; made first, and alone, so that the data set's labels are scanned once."""
    return Run("repeat", "repeat", model, steps=REPEATED_STEPS)


class Course:
    """How far the runs of a plan are, all together.

    Args:
        runs: the whole plan.
        folder: where they write their lines.
        progress: shows it.
    """

    def __init__(self, runs: Sequence[Run], folder: Path, progress: Progress) -> None:
        self.runs, self.folder, self.progress = runs, folder, progress
        progress.plan({STEP: 0})

    def report(self, finished: str = "") -> None:
        """Tell how far it is; whole runs have as many steps as the first run said."""
        if finished:
            self.progress.doing = f"made last: {finished}"
        begun = {run.name: lines for run in self.runs if (lines := lines_of(run, self.folder))}
        if not begun:
            return
        pace = self.progress.pace
        if not pace.planned[STEP]:
            whole = int(json.loads(next(iter(begun.values()))[0])["whole"])
            self.progress.add(STEP, sum(STARTING + min(run.steps or whole, whole) for run in self.runs))
        made = sum(STARTING + sum(line.startswith('{"step"') for line in lines) for lines in begun.values())
        self.progress.done(STEP, made - pace.made[STEP])


def make(runs: Sequence[Run], options: Options, folder: Path, jobs: int, course: Course) -> None:
    """Make runs, each in a fresh process, and tell how far they are.

    Raises:
        RuntimeError: a run failed; the message names it and where it left what it printed.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        waiting: dict[Future[None], Run] = {pool.submit(perform_quietly, run, options, file_of(run, folder)): run for run in runs}
        try:
            while waiting:
                done, _ = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    course.report(waiting.pop(future).name)
                course.report()
        except RuntimeError as error:
            pool.shutdown(cancel_futures=True)  # waits, as Python 3.11 stumbles over workers that are to be replaced
            raise RuntimeError(f"{error}; what it printed is in {folder}") from error


def file_of(run: Run, folder: Path) -> Path:
    """Where a run writes its lines."""
    return folder / f"{run.name.replace(',', '').replace(' ', '-')}.jsonl"


def lines_of(run: Run, folder: Path) -> list[str]:
    """What a run wrote so far."""
    path = file_of(run, folder)
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def read(runs: Sequence[Run], folder: Path) -> pd.DataFrame:
    """What the runs wrote, one value a row."""
    return pd.DataFrame([row for run in runs for row in _values(run, lines_of(run, folder))])


def _values(run: Run, lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line in lines[1:]:
        record = json.loads(line)
        where = {"run": run.name, "role": run.role, "seed": run.seed, "step": record.get("step", float("nan")), "epoch": record["epoch"]}
        yield from ({**where, "quantity": quantity, "value": value} for quantity, value in record["values"].items())
