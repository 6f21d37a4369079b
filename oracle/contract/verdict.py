"""Verdicts, with the numbers that they rest on and, for a difference, everything needed to reproduce it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Verdict(str, Enum):
    """Whether an answer agrees with the definition.

    ``AMBIGUOUS``: the answer differs, but the definition allows it, because a decision lies within its rounding margin or is a tie.
    """

    AGREE = "AGREE"
    AMBIGUOUS = "AMBIGUOUS"
    DIFFER = "DIFFER"
    NOT_COMPARED = "NOT COMPARED"

    def __str__(self) -> str:
        return self.value


def worst(verdicts: list[Verdict]) -> Verdict:
    """Returns the gravest of the verdicts; NOT COMPARED if there are none."""
    for verdict in (Verdict.DIFFER, Verdict.AMBIGUOUS, Verdict.AGREE):
        if verdict in verdicts:
            return verdict
    return Verdict.NOT_COMPARED


@dataclass(frozen=True)
class Finding:
    """One difference.

    Attributes:
        stage: stage of the loss.
        quantity: the compared quantity of the stage.
        what: description of the difference in one sentence.
        where: indices of the worst element, by name.
        exact, reference, candidate: the three values of that element, as text; empty if there is none.
        error, allowance: error and tolerance of that element, if it is a number.
        shapes: shapes of the compared tensors, by name.
        hint: the likely kind of fault, or empty.
        notes: further lines, each as a label and a text.
    """

    stage: str
    quantity: str
    what: str
    where: Mapping[str, int | str] = field(default_factory=dict)
    exact: str = ""
    reference: str = ""
    candidate: str = ""
    error: float = float("nan")
    allowance: float = float("nan")
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    hint: str = ""
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def error_over_allowance(self) -> float:
        """Error divided by tolerance."""
        return ratio(self.error, self.allowance)

    def lines(self) -> list[str]:
        """Returns the finding as lines of text."""
        text = [f"{self.stage}, {self.quantity}: {self.what}"]
        if self.where:
            text.append("  where      " + ", ".join(f"{name} {value}" for name, value in self.where.items()))
        text += [
            f"  {name:<10} {value}"
            for name, value in (("exact", self.exact), ("reference", self.reference), ("candidate", self.candidate))
            if value
        ]
        if not math.isnan(self.error):
            text.append(f"  error      {self.error:.3g}, {self.error_over_allowance:.3g} × the allowance of {self.allowance:.3g}")
        if self.shapes:
            text.append("  shapes     " + ", ".join(f"{name} {tuple(shape)}" for name, shape in self.shapes.items()))
        if self.hint:
            text.append(f"  looks like {self.hint}")
        return text + [f"  {word:<10} {note}" for word, note in self.notes]


@dataclass(frozen=True)
class Judgement:
    """The verdict on one quantity of one stage.

    Attributes:
        stage, quantity: the compared quantity.
        verdict: the verdict.
        error, allowance: error and tolerance of the element with the largest ratio; not-a-number for decisions.
        error_over_allowance: the largest ratio; the error of a number at a kink is its distance from the interval of allowed values.
        kinks, kink_reach: number of values at a kink, and the contender's largest relative position in their intervals: 0 is the
            definition's value, 1 an end; not-a-number if there are none.
        margin: smallest margin of a decision in units of its tolerance; a decision below 1 is open.
        decisions, open_decisions, ambiguous_decisions: total; those within their tolerance, or tied; those in which the contender differs
            permissibly.
        reason: reason of an AMBIGUOUS or NOT COMPARED verdict.
        finding: the difference, for DIFFER.
    """

    stage: str
    quantity: str
    verdict: Verdict
    error: float = float("nan")
    allowance: float = float("nan")
    error_over_allowance: float = float("nan")
    margin: float = float("nan")
    decisions: int = 0
    open_decisions: int = 0
    ambiguous_decisions: int = 0
    reason: str = ""
    finding: Finding | None = None
    kinks: int = 0
    kink_reach: float = float("nan")


def differs(finding: Finding) -> Judgement:
    """Returns the DIFFER judgement of a finding."""
    return Judgement(
        finding.stage,
        finding.quantity,
        Verdict.DIFFER,
        finding.error,
        finding.allowance,
        finding.error_over_allowance,
        reason=finding.what,
        finding=finding,
    )


def not_compared(stage: str, reason: str, quantity: str = "all") -> Judgement:
    """Returns the judgement on a quantity that could not be compared."""
    return Judgement(stage, quantity, Verdict.NOT_COMPARED, reason=reason)


def ratio(error: float, allowance: float) -> float:
    """Returns error ÷ tolerance; 0 ÷ 0 is 0, and not-a-number counts as infinite."""
    if math.isnan(error) or math.isnan(allowance):
        return float("inf")
    if error == 0:
        return 0.0
    return error / allowance if allowance > 0 else float("inf")
