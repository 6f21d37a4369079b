"""Decides from the gate's measurements.

A row is a workload in a setting. Each pass estimates the ratio head / base for the twin, and as a control for the reference, which is the
same program on both sides: where its ratio differs from 1, the speed of the machine changed, and the pass is void.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from benches.run.estimates import Estimate

REACH = 1.7  # √3: the factor by which three times as many pairs narrow an interval.


class GateVerdict(enum.IntEnum):
    """The outcome, with its exit code; exit code 2 stands for wrong arguments."""

    PASS = 0
    FAIL = 1
    INCONCLUSIVE = 3


@dataclass(frozen=True)
class Limits:
    """Thresholds of the gate.

    Attributes:
        slower: a row fails when the lower 95 % bound of its ratio head / base exceeds this.
        control: a pass is void when the whole interval of the reference is beyond this ratio, or below its inverse.
        passes: largest number of passes; a row fails when it is slower in two.
        void: after this many void passes no further pass is taken.
        accuracy: largest permitted growth of an error ÷ tolerance.
        accuracy_floor: an error ÷ tolerance up to this may grow by any factor.
    """

    slower: float = 1.10
    control: float = 1.05
    passes: int = 3
    void: int = 2
    accuracy: float = 1.25
    accuracy_floor: float = 0.25


@dataclass(frozen=True)
class RowRatios:
    """One row in one pass: the ratios head / base of the twin and of the reference."""

    twin: Estimate
    control: Estimate

    def unsteady(self, limits: Limits) -> str:
        """Returns why the control voids this comparison: its ratio differs from 1, or is too noisy; an empty text where it does not."""
        low, high = self.control.lo95, self.control.hi95
        if low > limits.control or high < 1 / limits.control:
            return f"the reference moved by {_percent(self.control.value)} [{_percent(low)}, {_percent(high)}]"
        if low < 1 / limits.slower or high > limits.slower:
            return f"the reference is too noisy to tell: {_percent(self.control.value)} [{_percent(low)}, {_percent(high)}]"
        return ""

    def slower(self, limits: Limits) -> bool:
        """Whether the lower bound of the twin's ratio exceeds the threshold."""
        return self.twin.lo95 > limits.slower

    def in_doubt(self, limits: Limits) -> bool:
        """Whether more pairs could decide: the twin's interval contains the threshold, or the control is slightly too noisy."""
        undecided = self.twin.lo95 <= limits.slower < self.twin.hi95 and self.twin.value > limits.slower**0.5
        noise = math.log(self.control.hi95 / self.control.lo95) / (2 * math.log(limits.slower))
        return undecided or 1 < noise < REACH


Pass = Mapping[str, RowRatios]
Counts = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class RowFinding:
    """A verdict on one row, with its reason."""

    verdict: GateVerdict
    row: str
    text: str


@dataclass(frozen=True)
class Decision:
    """The verdict, the findings behind it (one or more for each row), and notes on void passes."""

    verdict: GateVerdict
    findings: tuple[RowFinding, ...] = ()
    notes: tuple[RowFinding, ...] = ()


def given_up(passes: Sequence[Pass], limits: Limits) -> bool:
    """Whether so many passes are void that no further one is taken."""
    return sum(bool(_unsteady(one, limits)) for one in passes) >= limits.void


def suspected(passes: Sequence[Pass], limits: Limits) -> set[str]:
    """Returns the rows that were slower in exactly one steady pass and were measured in no other: one more pass decides them."""
    steady = [one for one in passes if not _unsteady(one, limits)]
    seen: dict[str, list[bool]] = {}
    for one in steady:
        for row, ratios in one.items():
            seen.setdefault(row, []).append(ratios.slower(limits))
    return {row for row, slow in seen.items() if slow == [True]}


def time_verdict(passes: Sequence[Pass], limits: Limits) -> Decision:
    """Returns FAIL when a row is slower in two steady passes, PASS when each row is not slower in one, else INCONCLUSIVE.

    A pass in which the control of any row is unsteady is void for all rows, since the speed of the machine changed during it.
    """
    void = {at: reasons for at, one in enumerate(passes) if (reasons := _unsteady(one, limits))}
    steady = [one for at, one in enumerate(passes) if at not in void]
    rows = list(passes[0]) if passes else []
    findings = [_row_finding(row, [one[row] for one in steady if row in one], limits) for row in rows]
    failed = [finding for finding in findings if finding.verdict is GateVerdict.FAIL]
    notes = [RowFinding(GateVerdict.INCONCLUSIVE, row, f"pass {at + 1}: {why}") for at, whys in void.items() for row, why in whys.items()]
    verdict = max((finding.verdict for finding in findings), default=GateVerdict.INCONCLUSIVE)
    return Decision(GateVerdict.FAIL if failed else verdict, tuple(findings), tuple(notes))


def _unsteady(one: Pass, limits: Limits) -> dict[str, str]:
    return {row: why for row, ratios in one.items() if (why := ratios.unsteady(limits))}


def _row_finding(row: str, steady: Sequence[RowRatios], limits: Limits) -> RowFinding:
    slow = [ratios for ratios in steady if ratios.slower(limits)]
    if len(slow) >= 2:
        return RowFinding(GateVerdict.FAIL, row, f"slower: head / base is {', and again '.join(map(_interval, slow[:2]))}")
    if len(slow) < len(steady):
        last = next(one for one in reversed(steady) if not one.slower(limits))
        return RowFinding(GateVerdict.PASS, row, f"head / base is {_interval(last)}")
    if slow:
        return RowFinding(GateVerdict.INCONCLUSIVE, row, f"head / base is {_interval(slow[0])} in one pass; a failure takes two")
    return RowFinding(GateVerdict.INCONCLUSIVE, row, "no pass in which the reference was steady")


def row_findings(base: Sequence[str], head: Sequence[str], allowed: Sequence[str] = ()) -> list[RowFinding]:
    """Returns FAIL for each row that the base has and the head lacks, since its speed is no longer measured."""
    new = [row for row in head if row not in base]
    hint = f" (was it renamed to {' or '.join(new)}?)" if new else ""
    return [
        RowFinding(GateVerdict.FAIL, row, f"missing{hint}; keep it, or give --drop {quote(row)}")
        for row in base
        if row not in head and row not in allowed
    ]


def count_findings(base: Counts, head: Counts, allowed: Sequence[str] = ()) -> list[RowFinding]:
    """Returns FAIL for each exact measure that grew by any amount, except those that ``allowed`` names as ``row:measure``."""
    findings = []
    for row, measures in head.items():
        for measure, after in measures.items():
            before = base.get(row, {}).get(measure)
            if before is not None and after != before:
                grew = after > before and f"{row}:{measure}" not in allowed
                remedy = f"; if this is intended, give --allow {quote(f'{row}:{measure}')}" if grew else ""
                text = f"{measure}: {before:,.0f} before, {after:,.0f} now{remedy}"
                findings.append(RowFinding(GateVerdict.FAIL if grew else GateVerdict.PASS, row, text))
    return findings


def error_findings(base: Counts, head: Counts, limits: Limits) -> list[RowFinding]:
    """Returns FAIL where the largest error ÷ tolerance exceeds 1, or grew by more than the limit."""
    findings = []
    for row, measures in head.items():
        for measure, after in measures.items():
            before = base.get(row, {}).get(measure)
            grew = before is not None and after > limits.accuracy_floor and after > limits.accuracy * before
            if after > 1 or grew:
                was = "not measured" if before is None else f"{before:.3g}"
                findings.append(RowFinding(GateVerdict.FAIL, row, f"worst error ÷ tolerance of {measure}: {was} before, {after:.3g} now"))
    return findings


def conclude(time: Decision, others: Sequence[RowFinding]) -> Decision:
    """Returns the decision on times and on exact measures: a failure of an exact measure is a failure whatever the times are."""
    verdict = GateVerdict.FAIL if any(finding.verdict is GateVerdict.FAIL for finding in others) else time.verdict
    return Decision(verdict, (*others, *time.findings), time.notes)


def _interval(ratios: RowRatios) -> str:
    twin = ratios.twin
    return f"{twin.value:.3f} [{twin.lo95:.3f}, {twin.hi95:.3f}]"


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"
