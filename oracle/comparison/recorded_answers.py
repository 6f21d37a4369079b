"""A contender's answers to many batches, kept to be explained, and how far the answers of a variant of the definition are from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from oracle.cases.build import build
from oracle.cases.case import Case, Inputs, Setting
from oracle.cases.tasks import task_of
from oracle.comparison.trial import Trial
from oracle.contract.calls import ContenderFailed
from oracle.contract.contender import Contender
from oracle.contract.run import Outcome, run_loss
from oracle.definition.variant import Variant, VariedCriterion
from oracle.judge.truth import DefinitionAnswers

ROUNDING = {"float64": 1e-10, "float32": 1e-5}
"""Differences that count as rounding, relative to the largest number of their kind, by dtype; other dtypes are not explained."""

LEAST_DIFFERENCE = 100.0
"""Smallest difference that is explained, in units of :data:`ROUNDING`."""

LOSS_IN_FLOAT32 = 1e-6
"""Relative rounding of a term that is returned in float32, however it was computed."""

Ties = Literal["stable", "reference"]


@dataclass(frozen=True)
class RecordedAnswer:
    """A contender's answer to one batch.

    Attributes:
        case: the batch.
        outcome: loss and gradients of the sum of its terms, on the CPU.
        dtype: dtype of the logits, ``"float64"`` or ``"float32"``; float64 tells far more faults apart.
        ties: the contender's rule for ties.
    """

    case: Case
    outcome: Outcome
    dtype: Literal["float64", "float32"] = "float64"
    ties: Ties = "reference"


def record(case: Case, setting: Setting, contender: Contender) -> RecordedAnswer | None:
    """Runs a contender on a batch in float64, or in float32 if it declines float64 and the setting is float32; else returns ``None``."""
    for asked in dict.fromkeys((Setting("float64", device=setting.device), setting)):
        if asked.dtype not in ROUNDING or asked.autocast is not None:
            continue
        definition = DefinitionAnswers(case, asked)
        inputs = definition.inputs if asked.device == "cpu" else build(case, asked)
        if contender.declines is not None and contender.declines(case.spec, inputs, asked):
            continue
        try:
            trial = Trial(contender, definition, inputs)
            outcome = trial.outcome().on_host()
        except ContenderFailed:
            continue
        ties: Ties = "stable" if trial.rules.ties == "stable" else "reference"
        return RecordedAnswer(case, outcome, "float64" if asked.dtype == "float64" else "float32", ties)
    return None


@dataclass(frozen=True)
class Remainder:
    """What a variant of the definition leaves of the distance to a contender's answer.

    Attributes:
        largest: largest difference, relative to the largest number of its kind.
        kinds: mean difference of each term, then of each gradient, relative to the same.
    """

    largest: float
    kinds: tuple[float, ...]


class AnsweredBatch:
    """A recorded answer with what the definition and its variants answer to the same batch.

    Args:
        answer: the answer.
        rounding: largest relative difference that counts as rounding; by default that of the answer's dtype.
    """

    def __init__(self, answer: RecordedAnswer, rounding: float | None = None) -> None:
        self.answer, self.case = answer, answer.case
        self.rounding = ROUNDING[answer.dtype] if rounding is None else rounding
        self._remainders: dict[tuple[int, ...], Remainder] = {}
        self._kept: list[Variant] = []

    @cached_property
    def inputs(self) -> Inputs:
        """The tensors of the batch."""
        return build(self.case, Setting(self.answer.dtype))

    @cached_property
    def size(self) -> int:
        """A number that the time of one answer grows with."""
        return self.case.num_anchors * (self.case.batch_size * self.case.spec.num_classes + 4 * len(self.case.boxes) + 50)

    @cached_property
    def truth(self) -> Outcome:
        """The definition's answer."""
        return self.outcome(())

    def outcome(self, variants: Sequence[Variant], cotangent: Sequence[float] | None = None, ties: Ties | None = None) -> Outcome:
        """Returns the answer of the definition with these variants.

        Raises:
            ValueError: a variant's number is out of its range for the batch's definition.
        """
        spec, flow = self.case.spec, task_of(self.case).flow(self.case)
        criterion = VariedCriterion(spec, variants, ties or self.answer.ties, flow)
        return run_loss(criterion, self.inputs, Setting("float64"), cotangent, spec.terms, flow)

    @property
    def differs(self) -> bool:
        """Whether the contender's answer differs from the definition's by more than rounding."""
        return self.remainder(()).largest > LEAST_DIFFERENCE * self.rounding

    @property
    def agrees(self) -> bool:
        """Whether it is the definition's but for rounding; an answer may do neither."""
        return self.explained(())

    def explained(self, variants: Sequence[Variant], *, any_ties: bool = False) -> bool:
        """Whether the definition with these variants gives the answer, but for rounding; if asked, under either rule for ties."""
        if self.remainder(variants).largest <= self.rounding:
            return True
        other: Ties = "stable" if self.answer.ties == "reference" else "reference"
        return any_ties and self._remainder(variants, other).largest <= self.rounding

    def remainder(self, variants: Sequence[Variant]) -> Remainder:
        """Returns what these variants leave; infinite where they do not apply to this batch's definition, or cannot be computed."""
        key = tuple(map(id, variants))
        if key not in self._remainders:
            self._kept += variants  # so that no other variant gets their identities
            self._remainders[key] = self._remainder(variants, self.answer.ties)
        return self._remainders[key]

    def _remainder(self, variants: Sequence[Variant], ties: Ties) -> Remainder:
        try:
            other = self.outcome(variants, ties=ties) if variants or ties != self.answer.ties else self.truth
        except (ValueError, IndexError, RuntimeError):  # a variant may ask for what this definition cannot have
            return Remainder(torch.inf, (torch.inf,) * (len(self.case.spec.terms) + len(self.answer.outcome.gradients)))
        return self.distance(other)

    def distance(self, other: Outcome) -> Remainder:
        """Returns the distance of the contender's answer from another."""
        found, scale = self.answer.outcome, self.truth
        terms = (found.loss - other.loss).abs() / scale.loss.abs().clamp(min=1e-3)
        if found.loss_dtype == torch.float32:
            terms = torch.where(terms <= LOSS_IN_FLOAT32, 0.0, terms)
        gaps = [terms[k : k + 1] for k in range(len(terms))]
        for name, right in scale.gradients.items():
            size = right.abs().max().clamp(min=1e-6) if right.numel() else torch.ones(())
            gaps.append(((found.gradients[name] - other.gradients[name]).abs() / size).flatten())
        gaps = [gap.nan_to_num(torch.inf) for gap in gaps]
        return Remainder(
            max((float(gap.max()) for gap in gaps if gap.numel()), default=0.0),
            tuple(float(gap.mean()) if gap.numel() else 0.0 for gap in gaps),
        )

    def removed(self, variants: Sequence[Variant]) -> float:
        """Returns the share of the difference that these variants remove: mean over the kinds of number that differ, 1 for all of it.

        Negative where they add a difference.
        """
        before, after = self.remainder(()).kinds, self.remainder(variants).kinds
        shares = [1 - min(b / a, 2.0) for a, b in zip(before, after, strict=True) if a > self.rounding]
        added = sum(b > LEAST_DIFFERENCE * self.rounding for a, b in zip(before, after, strict=True) if a <= self.rounding)
        return (sum(shares) - added) / max(len(shares), 1)
