"""Runs the units of a plan in worker processes, and keeps what they answered."""

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

WORKER = "worker"  # Under this name a unit's failures hold what ended its process.
NOUN = "units measured, each once a process"
TRAINING_MODEL, TRAINING_WORKLOAD, TRAINING_STEPS = "yolov8n.yaml", "coco", 3


@dataclass
class Results:
    """What was measured of one unit.

    Attributes:
        rounds: by process, a list of rounds; a round maps a contender to its sample.
        warm: by process, what warming a contender took.
        exact: by contender, counts without noise.
        stages: by contender, rounds of nanoseconds by stage.
        failures: by contender, why it could not be called; under ``worker`` why the process ended.
    """

    rounds: list[list[dict[str, dict[str, int]]]] = field(default_factory=list)
    warm: list[dict[str, dict[str, float]]] = field(default_factory=list)
    exact: dict[str, dict[str, int]] = field(default_factory=dict)
    stages: dict[str, list[dict[str, int]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One process, and the units that it is asked in turn. ``cluster`` counts the processes of a unit."""

    units: tuple[Unit, ...]
    cluster: int


def tasks(units: Sequence[Unit]) -> list[Task]:
    """A process for each unit on the default heap, whose state is part of the measurement; steady ones share their processes."""
    steady = [unit for unit in units if unit.heap == "steady"]
    shared = [
        Task(tuple(unit for unit in steady if cluster < unit.effort.processes), cluster)
        for cluster in range(max((unit.effort.processes for unit in steady), default=0))
    ]
    alone = [Task((unit,), cluster) for unit in units if unit.heap == "default" for cluster in range(unit.effort.processes)]
    return shared + alone


class Campaign:
    """The run, to be used as a context manager: it keeps the inputs in a temporary folder.

    Args:
        units: the plan.
        threads: of each worker.
        progress: shows how far the run is.
    """

    def __init__(self, units: Sequence[Unit], threads: int, progress: Progress | None = None) -> None:
        self.units, self.threads = tuple(units), threads
        self.progress = progress or Progress(NOUN, quiet=True)
        self.results: dict[Unit, Results] = {}
        self.rates: dict[str, float] = {}
        self.training: list[dict[str, dict[str, int]]] = []
        self.versions: dict[str, str] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="bench-inputs-")
        self._places: dict[Unit, Path] = {}

    def place(self, unit: Unit) -> Path:
        """Folder of the unit's inputs, written when first asked for."""
        if unit not in self._places:
            self._places[unit] = save(unit.workload.case(), Path(self._folder.name))
        return self._places[unit]

    def run(self) -> None:
        """Everything, in order. What was measured before an interruption stays; a worker that dies takes the unit it was at with it."""
        planned = tasks(self.units)
        self.progress.plan(Counter(unit.name for task in planned for unit in task.units))
        for task in planned:
            waiting = list(task.units)
            while waiting:
                with self._worker(task) as worker:
                    alive = True
                    while waiting and alive:
                        unit = waiting.pop(0)
                        self.progress.doing = f"{unit.name}, process {task.cluster + 1} of {unit.effort.processes}"
                        alive = self._measured(worker, unit, task.cluster)
                        self.progress.done(unit.name)

    def _worker(self, task: Task) -> Worker:
        worker = Worker(task.units[0].heap, self.threads)
        self.versions = worker.ask("start", threads=self.threads)
        if not self.rates:
            self.rates = worker.ask("floor")
        return worker

    def _measured(self, worker: Worker, unit: Unit, cluster: int) -> bool:
        """Measure a unit in this process; false when the worker is of no more use."""
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
        surroundings = {"device": unit.setting.device, "autocast": unit.setting.autocast}
        # What failed once fails again, and may take long to do so.
        labels = [entry.label for entry in unit.entries if entry.label not in results.failures and (cluster == 0 or not entry.compiled)]
        opened = worker.ask(
            "open", entries=labels, place=str(self.place(unit)), dtype=unit.setting.dtype, surroundings=surroundings, seed=cluster
        )
        results.failures |= opened["failures"]
        results.warm.append(opened["warm"])
        effort = unit.effort
        results.rounds.append(worker.ask("rounds", seconds=effort.seconds, least=effort.least, most=effort.most))
        if cluster == 0:
            results.exact = worker.ask("exact")
            if unit.stages:
                results.stages = worker.ask("stages", seconds=effort.seconds)

    def run_training(self) -> None:
        """Whole training steps of a real model, with the baseline's and the others' losses."""
        unit = next((unit for unit in self.units if unit.workload.name == TRAINING_WORKLOAD and unit.heap == "steady"), None)
        if unit is None or unit.setting.device != "cpu":
            return
        labels = [entry.label for entry in unit.entries if not entry.compiled]
        self.progress.doing = "whole training steps"
        with Worker("steady", self.threads) as worker:
            worker.ask("start", threads=self.threads)
            self.training = worker.ask("training", model=TRAINING_MODEL, place=str(self.place(unit)), entries=labels, steps=TRAINING_STEPS)

    def __enter__(self) -> Campaign:  # noqa: PYI034 - Self is not in Python 3.10, and nobody derives from a campaign
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the inputs."""
        self._folder.cleanup()
