"""Runs the units of a plan in worker processes, and keeps their answers."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benches.measure.case_files import save
from benches.measure.worker_client import Worker, WorkerError
from benches.plan.units import Unit
from oracle.tools.progress import Progress

WORKER = "worker"  # Key of the error that ended the process, in the failures of a unit.
NOUN = "units measured, each once a process"
TRAINING_MODEL, TRAINING_WORKLOAD, TRAINING_STEPS = "yolov8n.yaml", "coco", 3


@dataclass
class Results:
    """Measurements of one unit.

    Attributes:
        rounds: for each process a list of rounds; a round maps a contender to its sample.
        warm: for each process the warm-up of each contender.
        exact: for each contender its counts, which have no noise.
        stages: for each contender rounds of nanoseconds by stage.
        failures: for each contender that failed its error; under ``worker`` the error that ended the process.
    """

    rounds: list[list[dict[str, dict[str, int]]]] = field(default_factory=list)
    warm: list[dict[str, dict[str, float]]] = field(default_factory=list)
    exact: dict[str, dict[str, int]] = field(default_factory=dict)
    stages: dict[str, list[dict[str, int]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerPlan:
    """One worker process and the units that it measures in order; ``cluster`` is its number among the processes of a unit."""

    units: tuple[Unit, ...]
    cluster: int


def worker_plans(units: Sequence[Unit]) -> list[WorkerPlan]:
    """Returns the processes of a run: one for each unit on the default heap, whose state affects times; steady units share them."""
    steady = [unit for unit in units if unit.heap == "steady"]
    shared = [
        WorkerPlan(tuple(unit for unit in steady if cluster < unit.sampling.processes), cluster)
        for cluster in range(max((unit.sampling.processes for unit in steady), default=0))
    ]
    alone = [WorkerPlan((unit,), cluster) for unit in units if unit.heap == "default" for cluster in range(unit.sampling.processes)]
    return shared + alone


class Campaign:
    """The run of a plan. As a context manager it removes the temporary folder of the inputs at its end.

    Args:
        units: the units of the plan.
        threads: number of threads of each worker.
        progress: display of the progress.
    """

    def __init__(self, units: Sequence[Unit], threads: int, progress: Progress | None = None) -> None:
        self.units, self.threads = tuple(units), threads
        self.progress = progress or Progress(NOUN, quiet=True)
        self.results: dict[Unit, Results] = {}
        self.rates: dict[str, float] = {}
        self.training: list[dict[str, dict[str, int]]] = []
        self.versions: dict[str, str] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="bench-inputs-")
        self._case_folders: dict[Unit, Path] = {}

    def case_folder(self, unit: Unit) -> Path:
        """Returns the folder of the unit's inputs; the first call writes them."""
        if unit not in self._case_folders:
            self._case_folders[unit] = save(unit.workload.case(), Path(self._folder.name))
        return self._case_folders[unit]

    def run(self) -> None:
        """Measure all units in order. An interruption keeps the results so far; a worker that dies loses only its current unit."""
        planned = worker_plans(self.units)
        self.progress.plan(Counter(unit.name for plan in planned for unit in plan.units))
        for plan in planned:
            waiting = list(plan.units)
            while waiting:
                with self._worker(plan) as worker:
                    alive = True
                    while waiting and alive:
                        unit = waiting.pop(0)
                        self.progress.doing = f"{unit.name}, process {plan.cluster + 1} of {unit.sampling.processes}"
                        alive = self._measure_or_close(worker, unit, plan.cluster)
                        self.progress.done(unit.name)

    def _worker(self, plan: WorkerPlan) -> Worker:
        worker = Worker(plan.units[0].heap, self.threads)
        self.versions = worker.ask("start", threads=self.threads)
        if not self.rates:
            self.rates = worker.ask("floor")
        return worker

    def _measure_or_close(self, worker: Worker, unit: Unit, cluster: int) -> bool:
        """Measure a unit in this process; returns false after closing the worker because it failed."""
        results = self.results.setdefault(unit, Results())
        if results.failures.get(WORKER):
            return True
        try:
            self._measure(worker, unit, cluster)
        except WorkerError as error:
            results.failures[WORKER] = str(error)
            worker.close(kill=True)
            return False
        return True

    def _measure(self, worker: Worker, unit: Unit, cluster: int) -> None:
        results = self.results.setdefault(unit, Results())
        setting = {"device": unit.setting.device, "autocast": unit.setting.autocast}
        # Contenders that failed in an earlier process are left out, since failing again can take long.
        labels = [
            contender.label
            for contender in unit.contenders
            if contender.label not in results.failures and (cluster == 0 or not contender.compiled)
        ]
        opened = worker.ask(
            "open", contenders=labels, case_folder=str(self.case_folder(unit)), dtype=unit.setting.dtype, setting=setting, seed=cluster
        )
        results.failures |= opened["failures"]
        results.warm.append(opened["warm"])
        sampling = unit.sampling
        results.rounds.append(
            worker.ask("rounds", seconds=sampling.seconds, min_rounds=sampling.min_rounds, max_rounds=sampling.max_rounds)
        )
        if cluster == 0:
            results.exact = worker.ask("exact")
            if unit.stages:
                results.stages = worker.ask("stages", seconds=sampling.seconds)

    def run_training(self) -> None:
        """Time whole training steps of a real model with the loss of each contender."""
        unit = next((unit for unit in self.units if unit.workload.name == TRAINING_WORKLOAD and unit.heap == "steady"), None)
        if unit is None or unit.setting.device != "cpu":
            return
        labels = [contender.label for contender in unit.contenders if not contender.compiled]
        self.progress.doing = "whole training steps"
        with Worker("steady", self.threads) as worker:
            worker.ask("start", threads=self.threads)
            self.training = worker.ask(
                "training", model=TRAINING_MODEL, case_folder=str(self.case_folder(unit)), contenders=labels, steps=TRAINING_STEPS
            )

    def __enter__(self) -> Campaign:  # noqa: PYI034 - Self is not in Python 3.10, and nothing derives from Campaign
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the inputs."""
        self._folder.cleanup()
