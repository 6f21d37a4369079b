"""A contender's answers to many batches, kept to be explained, and how far the answers of a variant of the definition are from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from oracle.cases.build import build
from oracle.cases.case import Case, Inputs, Setting
from oracle.cases.tasks import task_of
from oracle.comparison.trial import Trial
from oracle.contract.calls import ContenderFailed
from oracle.contract.contender import Contender
from oracle.contract.run import Outcome, fresh_leaves, run_loss
from oracle.definition.variant import Variant, VariedCriterion
from oracle.judge.truth import DefinitionAnswers
from twinloss import Assignment

ROUNDING = {"float64": 1e-10, "float32": 1e-5}
"""Differences that count as rounding, relative to the largest number of their kind, by dtype; other dtypes are not explained."""

LEAST_DIFFERENCE = 100.0
"""Smallest difference that is explained, in units of :data:`ROUNDING`."""

LOSS_IN_FLOAT32 = 1e-6
"""Relative rounding of a term that is returned in float32, however it was computed."""

Ties = Literal["stable", "reference"]
Gaps = tuple[float, ...]


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


class AnsweredBatch:
    """A recorded answer with what the definition and its variants answer to the same batch.

    The terms of a variant are computed first, and its gradients only where they are needed; variants that keep the assignment share it.

    Args:
        answer: the answer.
        rounding: largest relative difference that counts as rounding; by default that of the answer's dtype.
    """

    def __init__(self, answer: RecordedAnswer, rounding: float | None = None) -> None:
        self.answer, self.case = answer, answer.case
        self.rounding = ROUNDING[answer.dtype] if rounding is None else rounding
        self._gaps: dict[tuple[str, tuple[int, ...], Ties], Gaps] = {}
        self._assignments: dict[tuple[tuple[int, ...], Ties], Assignment] = {}
        self._kept: list[Variant] = []  # so that no other variant gets the identity of one that was run

    @cached_property
    def inputs(self) -> Inputs:
        """The tensors of the batch."""
        return build(self.case, Setting(self.answer.dtype))

    @cached_property
    def flow(self) -> nn.Module | None:
        """The flow of a pose definition with a likelihood term."""
        return task_of(self.case).flow(self.case)

    @property
    def size(self) -> int:
        """A number that the time of one answer grows with."""
        return self.case.batch_size * (50 + self.case.num_anchors) + 30 * len(self.case.boxes)

    @cached_property
    def truth(self) -> Outcome:
        """The definition's answer."""
        return self.outcome(())

    def outcome(self, variants: Sequence[Variant], cotangent: Sequence[float] | None = None, ties: Ties | None = None) -> Outcome:
        """Returns the answer of the definition with these variants, or raises what stands in a variant's way on this batch."""
        criterion = self._criterion(variants, ties or self.answer.ties)
        return run_loss(criterion, self.inputs, Setting("float64"), cotangent, self.case.spec.terms, self.flow)

    def _criterion(self, variants: Sequence[Variant], ties: Ties) -> VariedCriterion:
        return VariedCriterion(self.case.spec, variants, ties, self.flow)

    @property
    def differs(self) -> bool:
        """Whether the contender's answer differs from the definition's by more than rounding."""
        return max(self.terms(()) + self.gradients(())) > LEAST_DIFFERENCE * self.rounding

    @property
    def agrees(self) -> bool:
        """Whether it is the definition's but for rounding; an answer may do neither."""
        return self.explained(())

    def explained(self, variants: Sequence[Variant], *, any_ties: bool = False) -> bool:
        """Whether the definition with these variants gives the answer, but for rounding; if asked, under either rule for ties."""
        rules: tuple[Ties, ...] = (self.answer.ties,)
        if any_ties:
            rules += ("stable" if self.answer.ties == "reference" else "reference",)
        return any(self.distance(variants, ties) <= self.rounding for ties in rules)

    def distance(self, variants: Sequence[Variant], ties: Ties | None = None) -> float:
        """Returns the largest difference, relative to the largest number of its kind; of the terms alone where these differ."""
        ties = ties or self.answer.ties
        of_terms = max(self.terms(variants, ties))
        return of_terms if of_terms > self.rounding else max(of_terms, *self.gradients(variants, ties))

    def terms(self, variants: Sequence[Variant], ties: Ties | None = None) -> Gaps:
        """Returns the difference of each term, relative to its size; infinite where the variants cannot be computed on this batch."""
        return self._cached("terms", variants, ties or self.answer.ties, self._terms)

    def gradients(self, variants: Sequence[Variant], ties: Ties | None = None) -> Gaps:
        """Returns the largest difference of each gradient, relative to its largest number."""
        return self._cached("gradients", variants, ties or self.answer.ties, self._gradients)

    def _cached(self, kind: str, variants: Sequence[Variant], ties: Ties, compute: Callable[[Sequence[Variant], Ties], Gaps]) -> Gaps:
        key = (kind, tuple(map(id, variants)), ties)
        if key not in self._gaps:
            self._kept += variants
            try:
                self._gaps[key] = compute(variants, ties)
            except (ValueError, IndexError, RuntimeError):  # a variant may ask for what this batch's definition cannot have
                self._gaps[key] = (torch.inf,)
        return self._gaps[key]

    def values(self, variants: Sequence[Variant], ties: Ties | None = None) -> Tensor:
        """Returns the terms (T,) of the definition with these variants, without gradients."""
        ties = ties or self.answer.ties
        criterion = self._criterion(variants, ties)
        inputs = fresh_leaves(criterion, self.inputs)
        with torch.no_grad():
            loss, _ = criterion.loss_given(*inputs, self._assignment(variants, ties))
        return loss

    def _terms(self, variants: Sequence[Variant], ties: Ties) -> Gaps:
        loss, found = self.values(variants, ties), self.answer.outcome
        gaps = _apart(found.loss, loss) / loss.abs().nan_to_num(0.0).clamp(min=1e-3)
        if found.loss_dtype == torch.float32:
            gaps = torch.where(gaps <= LOSS_IN_FLOAT32, 0.0, gaps)
        return tuple(gaps.nan_to_num(torch.inf).tolist())

    def _assignment(self, variants: Sequence[Variant], ties: Ties) -> Assignment:
        """Returns the assignment under the variants that change it, computed once for all that share these."""
        needed = [variant for variant in variants if not variant.keeps_assignment(self.case.spec)]
        key = (tuple(map(id, needed)), ties)
        if key not in self._assignments:
            criterion = self._criterion(needed, ties)
            with torch.no_grad():
                found = criterion.assign(*fresh_leaves(criterion, self.inputs))
            if needed and len(needed) == len(variants):
                return found
            self._kept += needed
            self._assignments[key] = found
        return self._assignments[key]

    def _gradients(self, variants: Sequence[Variant], ties: Ties) -> Gaps:
        other = self.outcome(variants, ties=ties) if variants or ties != self.answer.ties else self.truth
        gaps = []
        for name, right in self.truth.gradients.items():
            size = right.abs().max().clamp(min=1e-6) if right.numel() else torch.ones(())
            gap = (_apart(self.answer.outcome.gradients[name], other.gradients[name]) / size).nan_to_num(torch.inf)
            gaps.append(float(gap.max()) if gap.numel() else 0.0)
        return tuple(gaps)

    def removed(self, variants: Sequence[Variant]) -> float:
        """Returns the share of the difference that these variants remove: mean over the terms that differ, 1 for all of it.

        Negative where they add a difference. Where no term differs, it is that of the gradients.
        """
        kind = self.terms if max(self.terms(())) > self.rounding else self.gradients
        before, after = kind(()), kind(variants)
        if len(after) != len(before):
            return -1.0
        shares = [1.0 if b <= self.rounding else 1 - min(b / a, 2.0) for a, b in zip(before, after, strict=True) if a > self.rounding]
        added = sum(b > LEAST_DIFFERENCE * self.rounding for a, b in zip(before, after, strict=True) if a <= self.rounding)
        return (sum(shares) - added) / max(len(shares), 1)

    def shares_assignment(self, variants: Sequence[Variant]) -> bool:
        """Whether the assignment under these variants is the contender's: all numbers of the classification agree, or all others.

        An assignment that is otherwise moves both, and so does another normaliser.
        """
        names, terms = self.case.spec.terms, self.terms(variants)
        if len(terms) != len(names) or not self.case.boxes:
            return False
        parts: dict[bool, list[float]] = {True: [], False: []}
        for name, gap in (*zip(names, terms, strict=True), *zip(self.truth.gradients, self.gradients(variants), strict=False)):
            parts[name in ("cls", "scores")].append(gap)
        return min(map(max, parts.values())) <= self.rounding < max(map(max, parts.values()))

    def settled(self, variants: Sequence[Variant]) -> int:
        """Returns how many differing terms these variants bring to rounding; a term cannot agree to so many digits by chance."""
        before, after = self.terms(()), self.terms(variants)
        if len(after) != len(before):
            return 0
        return sum(b <= self.rounding < a for a, b in zip(before, after, strict=True))


def _apart(found: Tensor, expected: Tensor) -> Tensor:
    """Returns the absolute differences, 0 where both are NaN: a wrong definition that explains an answer has its NaN too."""
    return torch.where(found.isnan() & expected.isnan(), 0.0, (found - expected).abs())
