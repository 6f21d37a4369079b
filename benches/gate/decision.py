"""What follows from the gate's measurements; nothing here measures.

A row is a workload in a setting. In each pass its twin is compared with the base revision's by an estimate of the ratio head / base, and
so is the reference, which is the same program on both sides: where *it* differs, the machine moved, and the pass says nothing about time.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from benches.run.estimates import Estimate

REACH = 1.7  # What three times as many pairs can bring down to 1.


class GateVerdict(enum.IntEnum):
    """The outcome, with the exit code that stands for it; 2 is a wrong use of the command."""

    PASS = 0
    FAIL = 1
    INCONCLUSIVE = 3


@dataclass(frozen=True)
class Limits:
    """What is let pass.

    Attributes:
        slower: ratio head / base that the lower 95 % bound must exceed to fail.
        control: the reference moved when its whole interval is beyond this ratio, up or down.
        passes: at most so many, of which two must fail.
        void: after so many passes in which the control was unsteady, the machine is given up.
        accuracy: growth of a worst error ÷ allowance that fails.
        accuracy_floor: a worst error ÷ allowance below this may grow.
    """

    slower: float = 1.10
    control: float = 1.05
    passes: int = 3
    void: int = 2
    accuracy: float = 1.25
    accuracy_floor: float = 0.25


@dataclass(frozen=True)
class Comparison:
    """One row in one pass: head / base of the twin and of the reference."""

    twin: Estimate
    control: Estimate

    def unsteady(self, limits: Limits) -> str:
        """Why the control voids this comparison, or nothing: it moved, or is too noisy to show a change that would matter."""
        low, high = self.control.lo95, self.control.hi95
        if low > limits.control or high < 1 / limits.control:
            return f"the reference moved by {_percent(self.control.value)} [{_percent(low)}, {_percent(high)}]"
        if low < 1 / limits.slower or high > limits.slower:
            return f"the reference is too noisy to tell: {_percent(self.control.value)} [{_percent(low)}, {_percent(high)}]"
        return ""

    def slower(self, limits: Limits) -> bool:
        """Whether the twin is slower beyond doubt."""
        return self.twin.lo95 > limits.slower

    def in_doubt(self, limits: Limits) -> bool:
        """Whether more pairs could decide: the twin may well be slower, or the control is a little too noisy."""
        undecided = self.twin.lo95 <= limits.slower < self.twin.hi95 and self.twin.value > limits.slower**0.5
        noise = math.log(self.control.hi95 / self.control.lo95) / (2 * math.log(limits.slower))
        return undecided or 1 < noise < REACH


Pass = Mapping[str, Comparison]
Counts = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class GateFinding:
    """One thing that the gate has to say about a row."""

    verdict: GateVerdict
    row: str
    text: str


@dataclass(frozen=True)
class Decision:
    """The verdict and what it rests on: one finding or more a row, and notes on passes that count for nothing."""

    verdict: GateVerdict
    findings: tuple[GateFinding, ...] = ()
    notes: tuple[GateFinding, ...] = ()


def given_up(passes: Sequence[Pass], limits: Limits) -> bool:
    """Whether the machine moved too often for another pass to be worth its time."""
    return sum(bool(_unsteady(one, limits)) for one in passes) >= limits.void


def suspected(passes: Sequence[Pass], limits: Limits) -> set[str]:
    """Rows that were slower in a steady pass, and in no other steady pass were not: one more decides."""
    steady = [one for one in passes if not _unsteady(one, limits)]
    seen: dict[str, list[bool]] = {}
    for one in steady:
        for row, comparison in one.items():
            seen.setdefault(row, []).append(comparison.slower(limits))
    return {row for row, slow in seen.items() if slow == [True]}


def time_verdict(passes: Sequence[Pass], limits: Limits) -> Decision:
    """Over all rows: FAIL when one is slower in two steady passes, PASS when every one is not slower in one, else INCONCLUSIVE.

    A pass in which any row's control is unsteady counts for no row: the machine moved while it was taken.
    """
    void = {at: reasons for at, one in enumerate(passes) if (reasons := _unsteady(one, limits))}
    steady = [one for at, one in enumerate(passes) if at not in void]
    rows = list(passes[0]) if passes else []
    findings = [_row_finding(row, [one[row] for one in steady if row in one], limits) for row in rows]
    failed = [finding for finding in findings if finding.verdict is GateVerdict.FAIL]
    notes = [
        GateFinding(GateVerdict.INCONCLUSIVE, row, f"pass {at + 1}: {why}") for at, reasons in void.items() for row, why in reasons.items()
    ]
    verdict = max((finding.verdict for finding in findings), default=GateVerdict.INCONCLUSIVE)
    return Decision(GateVerdict.FAIL if failed else verdict, tuple(findings), tuple(notes))


def _unsteady(one: Pass, limits: Limits) -> dict[str, str]:
    return {row: why for row, comparison in one.items() if (why := comparison.unsteady(limits))}


def _row_finding(row: str, steady: Sequence[Comparison], limits: Limits) -> GateFinding:
    slow = [comparison for comparison in steady if comparison.slower(limits)]
    if len(slow) >= 2:
        return GateFinding(GateVerdict.FAIL, row, f"slower: head / base is {', and again '.join(map(_interval, slow[:2]))}")
    if len(slow) < len(steady):
        return GateFinding(
            GateVerdict.PASS, row, f"head / base is {_interval(next(one for one in reversed(steady) if not one.slower(limits)))}"
        )
    if slow:
        return GateFinding(GateVerdict.INCONCLUSIVE, row, f"head / base is {_interval(slow[0])} in one pass; a failure takes two")
    return GateFinding(GateVerdict.INCONCLUSIVE, row, "no pass in which the reference held still")


def row_findings(base: Sequence[str], head: Sequence[str], allowed: Sequence[str] = ()) -> list[GateFinding]:
    """FAIL for each row that the base has and the head has not: what is no longer measured is not known to be as fast."""
    new = [row for row in head if row not in base]
    hint = f"; was it renamed to {' or '.join(new)}?" if new else ""
    return [
        GateFinding(GateVerdict.FAIL, row, f"missing{hint} Keep it, or say --drop {quote(row)}")
        for row in base
        if row not in head and row not in allowed
    ]


def count_findings(base: Counts, head: Counts, allowed: Sequence[str] = ()) -> list[GateFinding]:
    """FAIL for each exact measure that grew, by however little; ``allowed`` names those that may, as ``row:measure``."""
    findings = []
    for row, measures in head.items():
        for measure, after in measures.items():
            before = base.get(row, {}).get(measure)
            if before is not None and after != before:
                grew = after > before and f"{row}:{measure}" not in allowed
                remedy = f"; if that is meant, say --allow {quote(f'{row}:{measure}')}" if grew else ""
                text = f"{measure}: {before:,.0f} before, {after:,.0f} now{remedy}"
                findings.append(GateFinding(GateVerdict.FAIL if grew else GateVerdict.PASS, row, text))
    return findings


def accuracy_findings(base: Counts, head: Counts, limits: Limits) -> list[GateFinding]:
    """FAIL where the worst error ÷ allowance grew by much, or is beyond 1."""
    findings = []
    for row, measures in head.items():
        for measure, after in measures.items():
            before = base.get(row, {}).get(measure)
            grew = before is not None and after > limits.accuracy_floor and after > limits.accuracy * before
            if after > 1 or grew:
                was = "not measured" if before is None else f"{before:.3g}"
                findings.append(GateFinding(GateVerdict.FAIL, row, f"worst error ÷ allowance of {measure}: {was} before, {after:.3g} now"))
    return findings


def conclude(time: Decision, others: Sequence[GateFinding]) -> Decision:
    """One decision of all: a failure without noise is one whatever the clock says."""
    verdict = GateVerdict.FAIL if any(finding.verdict is GateVerdict.FAIL for finding in others) else time.verdict
    return Decision(verdict, (*others, *time.findings), time.notes)


def _interval(comparison: Comparison) -> str:
    twin = comparison.twin
    return f"{twin.value:.3f} [{twin.lo95:.3f}, {twin.hi95:.3f}]"


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"
