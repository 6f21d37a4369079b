"""Takes pairs and passes: more for the rows in doubt than for the clear ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from benches.gate.decision import Decision, GateVerdict, Limits, Pass, RowFinding, RowRatios, given_up, suspected, time_verdict
from benches.run.estimates import Estimate, ratio

Clock = Literal["cpu", "wall"]
EXTENSION = 3  # Factor on the number of pairs of a row in doubt.


@dataclass(frozen=True)
class Pair:
    """A turn of the base's process and the next turn of the head's process.

    Attributes:
        row: name of the row.
        program: ``twin`` or ``reference``.
        cluster: number of the pair of processes.
        base, head: nanoseconds of the fastest call of the turn, by each clock.
    """

    row: str
    program: str
    cluster: int
    base: dict[Clock, int]
    head: dict[Clock, int]


Measure = Callable[[Sequence[str], int], list[Pair]]
"""Starts one pair of processes, given the rows and the number of the cluster, and measures each row in it."""


def compare(pairs: Sequence[Pair], clock: Clock) -> Pass:
    """Returns the ratios head / base of every row by one clock."""
    rows = dict.fromkeys(pair.row for pair in pairs)
    return {row: RowRatios(_ratio(pairs, row, "twin", clock), _ratio(pairs, row, "reference", clock)) for row in rows}


def _ratio(pairs: Sequence[Pair], row: str, program: str, clock: Clock) -> Estimate:
    mine = [pair for pair in pairs if pair.row == row and pair.program == program]
    return ratio([pair.head[clock] for pair in mine], [pair.base[clock] for pair in mine], [pair.cluster for pair in mine])


@dataclass(frozen=True)
class PassRunner:
    """Takes the gate's measurements of time.

    Attributes:
        measure: measures rows in one pair of processes.
        rows: names of all rows.
        clusters: number of pairs of processes in a pass.
        limits: thresholds.
        main: clock that decides. Other clocks can fail a row, and are ignored where their control is unsteady.
        others: further clocks.
    """

    measure: Measure
    rows: tuple[str, ...]
    clusters: int
    limits: Limits
    main: Clock = "cpu"
    others: tuple[Clock, ...] = ("wall",)

    def run(self) -> list[list[Pair]]:
        """Take passes until the verdict is final or the limit is reached; later passes measure only the undecided rows."""
        passes: list[list[Pair]] = []
        while (rows := self.open_rows(passes)) and len(passes) < self.limits.passes:
            passes.append(self.take_pass(rows, first=len(passes) * EXTENSION * self.clusters))
        return passes

    def open_rows(self, passes: Sequence[Sequence[Pair]]) -> list[str]:
        """Returns the rows that another pass could decide."""
        if not passes:
            return list(self.rows)
        if given_up([compare(pairs, self.main) for pairs in passes], self.limits):
            return []
        verdicts = {finding.row: finding.verdict for finding in self._by(self.main, passes).findings}
        wanted = {row for row, verdict in verdicts.items() if verdict is GateVerdict.INCONCLUSIVE}
        for clock in self.others:
            wanted |= suspected([compare(pairs, clock) for pairs in passes], self.limits)
        return [row for row in self.rows if row in wanted and verdicts[row] is not GateVerdict.FAIL]

    def _by(self, clock: Clock, passes: Sequence[Sequence[Pair]]) -> Decision:
        return time_verdict([compare(pairs, clock) for pairs in passes], self.limits)

    def take_pass(self, rows: Sequence[str], first: int = 0) -> list[Pair]:
        """Take the pairs of a pass: the same number for every row, then more for the rows in doubt."""
        pairs = [pair for cluster in range(self.clusters) for pair in self.measure(rows, first + cluster)]
        for cluster in range(self.clusters, EXTENSION * self.clusters):
            doubtful = [row for row, ratios in compare(pairs, self.main).items() if ratios.in_doubt(self.limits)]
            if not doubtful:
                break
            pairs += self.measure(doubtful, first + cluster)
        return pairs

    def decide(self, passes: Sequence[Sequence[Pair]]) -> Decision:
        """Returns the decision over all clocks."""
        main = self._by(self.main, passes)
        failures: list[RowFinding] = []
        for clock in self.others:
            slow = [finding for finding in self._by(clock, passes).findings if finding.verdict is GateVerdict.FAIL]
            failures += [RowFinding(GateVerdict.FAIL, finding.row, f"by the {clock} clock {finding.text}") for finding in slow]
        return Decision(GateVerdict.FAIL if failures else main.verdict, (*failures, *main.findings), main.notes)
