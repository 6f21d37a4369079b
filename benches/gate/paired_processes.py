"""Measures the two revisions side by side: two processes that exist at the same time and call in turns.

Each has one thread. Processor time excludes the time during which other processes ran; wall-clock time is recorded as well, since it alone
includes sleeping and waiting for locks.
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
TURNS = 10  # Turns of each process, on each row.
CALLS = {AUTO_TWIN.label: 5, BASELINE.label: 2}  # Calls in a turn, of which the fastest counts: a disturbance can only add time.


class CannotBeCalled(WorkerError):  # noqa: N818 - the name states the failure, as the message does
    """A program raised an error; the message names the program, the row and the error."""


@dataclass(frozen=True)
class GateRow:
    """A row of the gate: the folder of its batch, the dtype of the logits, autocast and device."""

    name: str
    case_folder: Path
    dtype: str = "float32"
    autocast: str | None = None
    device: str = "cpu"


class SideBySide:
    """Measures pairs of processes.

    Args:
        base, head: folders that contain each revision's ``twinloss``.
        rows: the rows by name.
        threads: number of threads of each process.
        extra: environment variables of the head's process only; used by tests.
    """

    def __init__(
        self, base: Path, head: Path, rows: Mapping[str, GateRow], threads: int = 1, extra: Mapping[str, str] | None = None
    ) -> None:
        self.base, self.head, self.rows, self.threads, self.extra = base, head, rows, threads, extra

    def __call__(self, rows: Sequence[str], cluster: int) -> list[Pair]:
        """Start one pair of processes and measure each row in it."""
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
            # The base goes first in every other turn, so that the state that one process leaves in the caches affects both alike.
            order = (base, head) if (turn + cluster) % 2 else (head, base)
            answers = {id(worker): worker.ask("turn", calls=CALLS) for worker in order}
            pairs += [_pair(row.name, label, cluster, answers[id(base)], answers[id(head)]) for label in PROGRAMS]
        return pairs


def open_row(worker: Worker, row: GateRow, seed: int) -> None:
    """Make a worker load a row.

    Raises:
        CannotBeCalled: one of the two programs raised an error.
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
