"""Measures the two revisions side by side: two processes, alive at the same time, that call in turns.

One thread each, and the processor's own clock beside the one on the wall: time that a process waited while others ran is not its cost. What
that clock cannot see (a sleep, a lock) the other one does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benches.gate.passes import Clock, Pair
from benches.measure.worker_client import Worker, WorkerError
from benches.plan.contenders import AUTO_TWIN, BASELINE

Samples = dict[str, list[dict[str, int]]]
PROGRAMS = {AUTO_TWIN.label: "twin", BASELINE.label: "reference"}
TURNS = 10  # Of each process, on each row.
CALLS = {AUTO_TWIN.label: 5, BASELINE.label: 2}  # In a turn, of which the least counts: what disturbs a call only ever adds to it.


class CannotBeCalled(WorkerError):  # noqa: N818 - it says what happened, as the message goes on to
    """A program raised where it should answer; the message says which, on what, and what it said."""


@dataclass(frozen=True)
class GateRow:
    """What is called: a batch's folder, dtype and surroundings of the criterion."""

    name: str
    case_folder: Path
    dtype: str = "float32"
    autocast: str | None = None
    device: str = "cpu"


class SideBySide:
    """Measures pairs of processes.

    Args:
        base, head: folders that hold each revision's ``twinloss``.
        rows: by name.
        threads: of each process.
        extra: environment variables of the head's process alone; for tests.
    """

    def __init__(
        self, base: Path, head: Path, rows: Mapping[str, GateRow], threads: int = 1, extra: Mapping[str, str] | None = None
    ) -> None:
        self.base, self.head, self.rows, self.threads, self.extra = base, head, rows, threads, extra

    def __call__(self, rows: Sequence[str], cluster: int) -> list[Pair]:
        """One pair of processes, each row in it."""
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(Worker("steady", self.threads, twin=self.base))
            second = stack.enter_context(Worker("steady", self.threads, twin=self.head, extra=self.extra))
            for worker in (first, second):
                worker.ask("start", threads=self.threads)
            return [pair for name in rows for pair in self._row(first, second, self.rows[name], cluster)]

    def _row(self, base: Worker, head: Worker, row: GateRow, cluster: int) -> list[Pair]:
        for worker in (base, head):
            open_row(worker, row, seed=cluster)
        pairs: list[Pair] = []
        for turn in range(TURNS):
            # Base first in every other turn, so that whoever goes second does not always find the caches in the other's state.
            order = (base, head) if (turn + cluster) % 2 else (head, base)
            answers = {id(worker): worker.ask("turn", calls=CALLS) for worker in order}
            pairs += [_pair(row.name, label, cluster, answers[id(base)], answers[id(head)]) for label in PROGRAMS]
        return pairs


def open_row(worker: Worker, row: GateRow, seed: int) -> None:
    """Bring a worker to a row.

    Raises:
        CannotBeCalled: one of the two programs cannot be called there.
    """
    setting = {"device": row.device, "autocast": row.autocast}
    answer = worker.ask("open", contenders=list(PROGRAMS), case_folder=str(row.case_folder), dtype=row.dtype, setting=setting, seed=seed)
    for label, failure in answer["failures"].items():
        raise CannotBeCalled(f"the {PROGRAMS[label]} cannot be called on {row.name}: {failure}")


def _pair(row: str, label: str, cluster: int, base: Samples, head: Samples) -> Pair:
    return Pair(row, PROGRAMS[label], cluster, _clocks(base[label]), _clocks(head[label]))


def _clocks(samples: list[dict[str, int]]) -> dict[Clock, int]:
    wall = min(sample["forward_ns"] + sample["backward_ns"] for sample in samples)
    return {"cpu": min(sample["cpu_ns"] for sample in samples), "wall": wall}
