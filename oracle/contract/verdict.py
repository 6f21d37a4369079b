"""What the judge says: a verdict with the arithmetic behind it and, for a failure, everything that one needs to see it for oneself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Verdict(str, Enum):
    """Whether an answer agrees.

    ``AMBIGUOUS`` only where a computed margin says that rounding or a tie could tip a decision, and the answer is one that the definition
    allows.
    """

    AGREE = "AGREE"
    AMBIGUOUS = "AMBIGUOUS"
    DIFFER = "DIFFER"
    NOT_COMPARED = "NOT COMPARED"

    def __str__(self) -> str:
        return self.value


def worst(verdicts: list[Verdict]) -> Verdict:
    """The verdict of a whole from those of its parts."""
    for verdict in (Verdict.DIFFER, Verdict.AMBIGUOUS, Verdict.AGREE):
        if verdict in verdicts:
            return verdict
    return Verdict.NOT_COMPARED


@dataclass(frozen=True)
class Finding:
    """One difference.

    Attributes:
        stage: where in the pipeline.
        quantity: what differs there.
        what: one sentence that says how.
        where: the worst element's index, by name.
        exact, reference, candidate: the three values there, as text; empty where there is none.
        error, allowance: of that element, where it is a number.
        shapes: of the compared tensors, by name.
        hint: the kind of fault that such a pattern suggests, or empty.
        notes: further lines, each a word and what it introduces.
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
        """How many times the allowance the error is."""
        return ratio(self.error, self.allowance)

    def lines(self) -> list[str]:
        """The finding as indented text."""
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
        stage, quantity: what was compared.
        verdict: the outcome.
        error, allowance: of the element with the largest error ÷ allowance; not-a-number where decisions were compared.
        error_over_allowance: the largest ratio; the error of a number at a kink is its distance from the interval that it may lie in.
        kinks, kink_reach: how many numbers lie at a kink, and how far into its interval the contender stands, the largest of all: 0 where
            the definition does, 1 at an end; no number where there are none.
        margin: smallest gap of a decision over its tolerance; below 1 it is open.
        decisions, open_decisions, ambiguous_decisions: how many there were; how many rounding or a tie could tip, whatever the contenders
            did; and in how many the contender differs from the definition, as it may.
        reason: why the verdict is AMBIGUOUS or NOT COMPARED.
        finding: what differs, for DIFFER.
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
    """The judgement that a finding alone decides."""
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
    """The judgement on what could not be compared."""
    return Judgement(stage, quantity, Verdict.NOT_COMPARED, reason=reason)


def ratio(error: float, allowance: float) -> float:
    """Error ÷ allowance, where 0 ÷ 0 is 0 and no number is infinitely far."""
    if math.isnan(error) or math.isnan(allowance):
        return float("inf")
    if error == 0:
        return 0.0
    return error / allowance if allowance > 0 else float("inf")
