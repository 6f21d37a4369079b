"""How many pairs and passes the gate takes: few where the answer is plain, more where it is in doubt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from benches.gate.decision import Comparison, Limits, Pass, Verdict, settled, time_verdict
from benches.statistics import Estimate, ratio

Clock = Literal["cpu", "wall"]
CLOCKS: tuple[Clock, ...] = ("cpu", "wall")
EXTENSION = 3  # A row in doubt gets up to so many times the pairs.


@dataclass(frozen=True)
class Pair:
    """One call of the base's and one of the head's program, one right after the other, in two processes that ran side by side.

    Attributes:
        row: what was called.
        program: ``twin`` or ``reference``.
        cluster: the pair of processes.
        base, head: nanoseconds of each clock.
    """

    row: str
    program: str
    cluster: int
    base: dict[Clock, int]
    head: dict[Clock, int]


Measure = Callable[[Sequence[str], int], list[Pair]]
"""Starts one pair of processes, given the rows and the number of the cluster, and measures each row in it."""


def compare(pairs: Sequence[Pair], clock: Clock) -> Pass:
    """Ratios head / base of every row by one clock."""
    return {
        row: Comparison(_ratio(pairs, row, "twin", clock), _ratio(pairs, row, "reference", clock))
        for row in dict.fromkeys(p.row for p in pairs)
    }


def _ratio(pairs: Sequence[Pair], row: str, program: str, clock: Clock) -> Estimate:
    mine = [pair for pair in pairs if pair.row == row and pair.program == program]
    return ratio([pair.head[clock] for pair in mine], [pair.base[clock] for pair in mine], [pair.cluster for pair in mine])


def take_pass(measure: Measure, rows: Sequence[str], clusters: int, limits: Limits, clock: Clock) -> list[Pair]:
    """So many pairs of processes for every row, and more for those that are slower, but not yet beyond doubt."""
    pairs = [pair for cluster in range(clusters) for pair in measure(rows, cluster)]
    for cluster in range(clusters, EXTENSION * clusters):
        doubtful = [row for row, comparison in compare(pairs, clock).items() if comparison.in_doubt(limits)]
        if not doubtful:
            break
        pairs += measure(doubtful, cluster)
    return pairs


def campaign(measure: Measure, rows: Sequence[str], clusters: int, limits: Limits, clock: Clock) -> list[list[Pair]]:
    """Passes until the verdict stands or the passes are used up; later ones measure the rows that are still open."""
    passes: list[list[Pair]] = []
    open_rows = list(rows)
    while open_rows and not settled([compare(pairs, clock) for pairs in passes], limits):
        passes.append(take_pass(measure, open_rows, clusters, limits, clock))
        findings = time_verdict([compare(pairs, clock) for pairs in passes], limits).findings
        closed = {finding.row for finding in findings if finding.verdict is not Verdict.INCONCLUSIVE}
        open_rows = [row for row in rows if row not in closed]
    return passes
