"""The greedy search for the wrong definitions that explain a candidate's answers.

For example, a candidate keeps K + 1 anchors and takes the IoU in the box term. Alone, no variant explains a batch with boxes, but K + 1
settles the classification and the distribution term to the last digit, so it is kept. On top of it, on batches not yet explained, only
variants that keep the assignment are run, since the classification agrees. The IoU in the box term explains them, and then all batches.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from oracle.comparison.explanation import Explanation
from oracle.comparison.fitted_numbers import fitted
from oracle.comparison.recorded_answers import AnsweredBatch
from oracle.comparison.term_scales import fitted_scales
from oracle.comparison.wrong_definitions import catalogue
from oracle.definition.variant import Variant

LEAST_SHARE = 0.5
"""Smallest share of the failing batches that an explanation must give to be named; the sentence tells the share."""

MOST_BROKEN = 0.01
"""Largest share of the batches on which the candidate agrees that an explanation may change."""

PROMISING = 0.05
"""Share of the difference that a variant must remove from a batch to be of use there."""

MOST_FITTED = 2
"""Number of batches to which numbers are fitted; each must confirm the other'."""

MOST_VERIFIED = 8
"""Number of combinations that explain the sample and are run on all batches, in units of those that are continued."""

MOST_USELESS = 2
"""Number of batches of the sample on which a variant is of no use before it is given up; on top of others, 1.

The few older releases are run on the whole sample: a fault on top of one may hide it on the first batches, and not on all.
"""


@dataclass(frozen=True)
class Limits:
    """How long to search.

    Attributes:
        sample: number of failing batches on which the whole catalogue is run.
        failing, agreeing: largest numbers of batches on which what explains the sample is run.
        depth: largest number of variants together.
        beam: number of explanations that are continued.
        seconds: processor time of this thread after which no further search begins, so that other programs on the machine do not
            cut it short; ``None`` for no limit.
    """

    sample: int = 6
    failing: int = 400
    agreeing: int = 40
    depth: int = 3
    beam: int = 4
    seconds: float | None = None


USUAL = Limits()


@dataclass(frozen=True)
class _Scored:
    """A combination, with the numbers of batches that it explains and terms that it settles, and the share that it removes."""

    variants: tuple[Variant, ...]
    explained: int
    settled: int
    removed: float

    @property
    def score(self) -> tuple[float, ...]:
        return self.explained, self.settled, self.removed


class Search:
    """The search for what explains some batches.

    Args:
        batches: batches of one task with their answers, failing and agreeing ones.
        variants: the catalogue; by default all wrong definitions of the task.
        limits: how long to search.
    """

    def __init__(self, batches: Sequence[AnsweredBatch], variants: Sequence[Variant] | None, limits: Limits) -> None:
        self.limits, self.start = limits, time.thread_time()
        ordered = sorted(batches, key=lambda batch: batch.size)
        self.failing = [batch for batch in ordered if batch.differs][: limits.failing]
        self.agreeing = [batch for batch in ordered if batch.agrees][: limits.agreeing]
        task = batches[0].case.spec.task if batches else "detect"
        self.variants = catalogue(task) if variants is None else tuple(variants)

    def confirmed(self, known: Explanation) -> Explanation | None:
        """Returns an explanation with the counts of these batches; ``None`` unless it explains every failing one and breaks none."""
        left = [known.left(batch) for batch in (*self.failing, *self.agreeing)]
        if not self.failing or not (known.variants or known.scales) or any(one is None for one in left):
            return None
        steps = self._steps(known)
        residual = max(one for one in left if one is not None)
        return replace(
            known,
            explained=len(self.failing),
            failing=len(self.failing),
            agreeing=len(self.agreeing),
            residual=residual,
            steps=steps,
            also=(),
        )

    def run(self) -> Explanation:
        """Returns the explanation."""
        if not self.failing:
            return Explanation(agreeing=len(self.agreeing))
        base: list[_Scored] = [_Scored((), 0, 0, 0.0)]
        best, nearest = Explanation(failing=len(self.failing)), base[0]
        for depth in range(self.limits.depth):
            if depth:  # a number that is fitted alone comes after the catalogue: a known fault says more than a factor
                best = self._numbers(best, base)
            scored = [] if self._done(best) else self._continued(base)
            best = self._best_verified(best, [one for one in scored if one.explained == scored[0].explained > 0])
            if not depth:
                best = self._numbers(best, base)
            nearest = max([nearest, *scored[:1]], key=lambda one: one.removed)
            base = self._continuable(scored)
            if not base or self._done(best):
                break
        if best.explained < LEAST_SHARE * best.failing or not best.named:
            text = ", and ".join(map(str, nearest.variants))
            return Explanation(failing=len(self.failing), agreeing=len(self.agreeing), nearest=text, removed=max(nearest.removed, 0.0))
        return replace(best, steps=self._steps(best), also=self._alike(best))

    def _best_verified(self, best: Explanation, alike: Sequence[_Scored]) -> Explanation:
        """Runs combinations that explain the sample alike on all batches, until twice the beam's number of them break no agreeing batch."""
        sound = 0
        for one in alike[: MOST_VERIFIED * self.limits.beam]:
            found = self._verified(one.variants)
            best, sound = self._better(best, found), sound + (found.explained > 0)
            if sound == 2 * self.limits.beam:
                break
        return best

    def _done(self, best: Explanation) -> bool:
        return best.explained == best.failing or self._late()

    def _numbers(self, best: Explanation, base: Sequence[_Scored]) -> Explanation:
        """Fits a number on top of each combination, until one explains all."""
        for one in base:
            if not self._done(best):
                best = self._better(best, self._with_number(one.variants))
        return best

    def _late(self) -> bool:
        return self.limits.seconds is not None and time.thread_time() - self.start > self.limits.seconds

    def _sample(self, base: Sequence[Variant]) -> list[AnsweredBatch]:
        """Returns the smallest failing batches that are not explained yet, of as many kinds of difference as there are."""
        kinds: dict[tuple[object, ...], list[AnsweredBatch]] = {}
        for batch in self.failing:
            if not base or not batch.explained(base):
                kinds.setdefault(_kind(batch), []).append(batch)
        chosen = [batch for turn in range(self.limits.sample) for group in kinds.values() for batch in group[turn : turn + 1]]
        return chosen[: self.limits.sample]

    def _continued(self, base: Sequence[_Scored]) -> list[_Scored]:
        """Returns each variant on top of each combination, with its score on batches that this does not explain, the best first."""
        found: list[_Scored] = []
        for one in base:
            sample = self._sample(one.variants)
            kept = bool(sample) and all(batch.shares_assignment(one.variants) for batch in sample)
            for variant in self.variants:
                if variant in one.variants or self._late() or (kept and not variant.keeps_assignment(sample[0].case.spec)):
                    continue
                scored = self._scored((*one.variants, variant), sample)
                found += [] if scored is None else [scored]
        return sorted(_distinct(found), key=lambda one: one.score, reverse=True)

    def _scored(self, variants: tuple[Variant, ...], sample: Sequence[AnsweredBatch]) -> _Scored | None:
        """Returns the score of a combination; ``None`` where it does no good on the first batches that it could change."""
        explained, settled, removed, useless = 0, 0, 0.0, 0
        for batch in sample:
            if not variants[-1].applies(batch.case.spec):
                continue
            more = batch.settled(variants) - batch.settled(variants[:-1])
            share = batch.removed(variants)
            explained, settled, removed = explained + batch.explained(variants), settled + more, removed + share
            useless += not variants[-1].release and more <= 0 and share < batch.removed(variants[:-1]) + PROMISING
            if useless >= (1 if len(variants) > 1 else MOST_USELESS) and not explained:
                return None
        return _Scored(variants, explained, settled, removed / max(len(sample), 1))

    def _continuable(self, scored: Sequence[_Scored]) -> list[_Scored]:
        """Returns the combinations to continue: the best by the batches that they explain, and by what they remove, that break nothing."""
        by_share = sorted(scored, key=lambda one: one.removed, reverse=True)
        merged = [one for pair in zip(scored, by_share, strict=True) for one in pair]
        kept: list[_Scored] = []
        for one in _distinct(merged):
            if len(kept) == self.limits.beam:
                break
            if self._broken(one.variants, self.agreeing[:8]) == 0:
                kept.append(one)
        return kept

    def _broken(self, variants: Sequence[Variant], agreeing: Sequence[AnsweredBatch]) -> int:
        return sum(not batch.explained(variants, any_ties=True) for batch in agreeing)

    def _verified(self, variants: tuple[Variant, ...]) -> Explanation:
        """Runs a combination on all batches."""
        broken = self._broken(variants, self.agreeing)
        if broken > MOST_BROKEN * len(self.agreeing):
            return Explanation(failing=len(self.failing))
        explained = [batch for batch in self.failing if batch.explained(variants, any_ties=True)]
        residual = max((min(batch.distance(variants), batch.rounding) for batch in explained), default=0.0)
        return Explanation(variants, None, len(explained), len(self.failing), (), broken, len(self.agreeing), residual)

    def _with_number(self, variants: tuple[Variant, ...]) -> Explanation:
        """Returns what explains most with one number that is fitted on top of a combination: a factor of a term, or another."""
        best = self._with_scales(variants)
        left = self._sample(variants)
        for batch in left[:MOST_FITTED]:
            if best.explained == best.failing:
                break
            for variant in fitted(batch, variants):
                together = (*variants, variant)
                if all(one.explained(together) for one in left[:MOST_FITTED]):
                    best = self._better(best, self._verified(together))
        return best

    def _with_scales(self, variants: tuple[Variant, ...]) -> Explanation:
        """Fits constant factors of terms and gradients on top of a combination; they must be the same on all batches."""
        scales = fitted_scales(self.failing, self.agreeing, variants)
        nothing = Explanation(failing=len(self.failing))
        if scales is None:
            return nothing
        return Explanation(variants, scales, len(self.failing), len(self.failing), (), 0, len(self.agreeing), scales.residual)

    @staticmethod
    def _better(one: Explanation, other: Explanation) -> Explanation:
        """Returns the one that explains more batches; of two, the one with fewer variants, and then the first."""
        return other if other.explained > one.explained else one

    def _steps(self, best: Explanation) -> tuple[int, ...]:
        if len(best.variants) < 2:
            return ()
        ends = range(1, len(best.variants) + 1)
        return tuple(sum(batch.explained(best.variants[:end], any_ties=True) for batch in self.failing) for end in ends)

    def _alike(self, best: Explanation) -> tuple[str, ...]:
        """Returns variants, and a constant factor, that in place of the last one explain as many failing batches, and break none."""
        if not best.variants or best.scales:
            return ()
        found = []
        first = self._sample(best.variants[:-1])
        for variant in self.variants:
            together = (*best.variants[:-1], variant)
            if variant is best.variants[-1] or not all(batch.explained(together) for batch in first[:2]):
                continue
            if self._verified(together).explained >= best.explained:
                found.append(str(variant))
        scales = fitted_scales(self.failing, self.agreeing, best.variants[:-1])
        return tuple(found) if scales is None or not scales.is_one_factor else (*found, str(scales))


def _kind(batch: AnsweredBatch) -> tuple[object, ...]:
    """Returns what sets batches apart: which kinds of number differ, and which parts of the definition are in use."""
    spec = batch.case.spec
    kinds = tuple(gap > batch.rounding for gap in batch.terms(()) + batch.gradients(()))
    return kinds, spec.reg_max == 1, spec.second_topk is not None, spec.class_weights is not None


def _distinct(scored: Iterable[_Scored]) -> list[_Scored]:
    seen: set[frozenset[int]] = set()
    found = []
    for one in scored:
        key = frozenset(map(id, one.variants))
        if key not in seen:
            seen.add(key)
            found.append(one)
    return found
