"""The runs of a comparison of trainings, and their execution in a pool of processes."""

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
from twinloss.loss import LOSSES

NUDGED, REPEATED_STEPS = 6, 60

STARTING = 50  # The start of a run takes as long as this many steps.

NOUN, STEP = f"training steps (a run's start takes as long as {STARTING})", "step"


def reference_runs(model: str, seeds: int, end_to_end: str) -> list[Run]:
    """Returns the runs of the reference: over seeds, with nudged logits, and with the twin compared at every step."""
    nudged = [Run(f"nudged {n + 1}", "nudged", model, nudge=n + 1) for n in range(NUDGED)]
    seeded = [Run(f"reference, seed {seed}", "reference", model, seed=seed) for seed in range(seeds)]
    beside = [Run("beside the reference", "shadow", model), Run("beside the reference, end to end", "shadow", end_to_end)]
    return [*beside, *seeded, *nudged]


def twin_runs(model: str, seeds: int, task: str) -> list[Run]:
    """Returns the same trainings with the twin.

    Where terms count held anchors without a soft target, only the twin with ``ties="reference"`` gives the reference's numbers step by
    step: with an untrained model there are many, and ``torch.topk`` chooses them. That run comes first.
    """
    tied = [Run("twin with the reference's ties, seed 0", "tied", model)] if LOSSES[task].task.counts_weightless else []
    return [*tied, *(Run(f"twin, seed {seed}", "twin", model, seed=seed) for seed in range(seeds))]


def repeat_run(model: str) -> Run:
    """Returns a repeated run of the reference. It is made first and alone, so that the data set's labels are scanned once."""
    return Run("repeat", "repeat", model, steps=REPEATED_STEPS)


class RunProgress:
    """Progress over all runs of a plan.

    Args:
        runs: the whole plan.
        folder: folder of the files that the runs write.
        progress: the display.
    """

    def __init__(self, runs: Sequence[Run], folder: Path, progress: Progress) -> None:
        self.runs, self.folder, self.progress = runs, folder, progress
        progress.plan({STEP: 0})

    def report(self, finished: str = "") -> None:
        """Update the display. The first run's file gives the number of steps of a whole run."""
        if finished:
            self.progress.doing = f"last finished: {finished}"
        begun = {run.name: lines for run in self.runs if (lines := lines_of(run, self.folder))}
        if not begun:
            return
        pace = self.progress.estimate
        if not pace.planned[STEP]:
            whole = int(json.loads(next(iter(begun.values()))[0])["whole"])
            self.progress.add(STEP, sum(STARTING + min(run.steps or whole, whole) for run in self.runs))
        made = sum(STARTING + sum(line.startswith('{"step"') for line in lines) for lines in begun.values())
        self.progress.done(STEP, made - pace.made[STEP])


def make_runs(runs: Sequence[Run], options: Options, folder: Path, jobs: int, progress_of_runs: RunProgress) -> None:
    """Make runs, each in a fresh process, and update the progress.

    Raises:
        RuntimeError: a run failed; the message names it and the folder of its printed output.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        waiting: dict[Future[None], Run] = {pool.submit(perform_quietly, run, options, file_of(run, folder)): run for run in runs}
        try:
            while waiting:
                done, _ = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    progress_of_runs.report(waiting.pop(future).name)
                progress_of_runs.report()
        except RuntimeError as error:
            pool.shutdown(cancel_futures=True)  # This waits, because Python 3.11 fails on workers that it still has to replace.
            raise RuntimeError(f"{error}; its printed output is in {folder}") from error


def file_of(run: Run, folder: Path) -> Path:
    """Returns the path of a run's file."""
    return folder / f"{run.name.replace(',', '').replace(' ', '-')}.jsonl"


def lines_of(run: Run, folder: Path) -> list[str]:
    """Returns the lines that a run has written until now."""
    path = file_of(run, folder)
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def read_rows(runs: Sequence[Run], folder: Path) -> pd.DataFrame:
    """Returns the recorded values of the runs, one value a row."""
    return pd.DataFrame([row for run in runs for row in _values(run, lines_of(run, folder))])


def _values(run: Run, lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line in lines[1:]:
        record = json.loads(line)
        where = {"run": run.name, "role": run.role, "seed": run.seed, "step": record.get("step", float("nan")), "epoch": record["epoch"]}
        yield from ({**where, "quantity": quantity, "value": value} for quantity, value in record["values"].items())
