"""Explains a candidate's differences: which wrong definition, or which two or three together, gives its answers.

The interface for whoever has recorded a candidate's answers, in this process or in another::

    answers = [record(case, setting, contender) for case, setting in batches]  # oracle.comparison.recorded_answers
    found = explain_answers([answer for answer in answers if answer is not None])
    found.sentence()  # "is Ultralytics 8.0.101 to before 8.4.0, but conflicts go to the first picker [5.5]: explains 41 of 41 batches"
    found.variants  # what it names, as variants; empty where nothing is named
    counter_proof(found.variants, more_answers)  # on how many further batches the definition with them gives the candidate's answers

Answers to batches on which the candidate agrees belong to it: a variant that changes one of them explains nothing. An answer that was
recorded elsewhere is a :class:`~oracle.comparison.recorded_answers.RecordedAnswer` of the case, and of loss and gradients; its tensors are
built again here.

How it searches: every variant of the catalogue is run on a sample of failing batches, the smallest ones of each kind. The best ones are
kept, and every further one is run on top of them, on batches that are not yet explained, until the rest is rounding. What explains the
sample is then run on all batches. Only what gives the candidate's numbers to rounding is named; anything else is called the nearest, with
what it removes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from oracle.comparison.fitted_numbers import fitted
from oracle.comparison.recorded_answers import AnsweredBatch, RecordedAnswer
from oracle.comparison.term_scales import TermScales, fitted_scales
from oracle.comparison.wrong_definitions import catalogue
from oracle.definition.variant import Variant

LEAST_SHARE = 0.5
"""Smallest share of the failing batches that an explanation must give to be named; the sentence tells the share."""

MOST_BROKEN = 0.01
"""Largest share of the batches on which the candidate agrees that an explanation may change."""

PROMISING = 0.05
"""Share of the difference that a variant must remove from a batch to be of use there."""

MOST_FITTED = 3
"""Number of batches to which numbers are fitted; each must confirm the others'."""

MOST_USELESS = 2
"""Number of batches of the sample on which a variant is of no use before it is given up."""


@dataclass(frozen=True)
class Limits:
    """How long to search.

    Attributes:
        sample: number of failing batches on which the whole catalogue is run.
        failing, agreeing: largest numbers of batches on which what explains the sample is run.
        depth: largest number of variants together.
        beam: number of explanations that are continued.
        seconds: time after which no further search begins; ``None`` for no limit.
    """

    sample: int = 6
    failing: int = 400
    agreeing: int = 40
    depth: int = 3
    beam: int = 4
    seconds: float | None = None


USUAL = Limits()


@dataclass(frozen=True)
class CounterProof:
    """Whether the definition with some variants gives a candidate's answers.

    Attributes:
        agree, of: number of batches on which it does, and of all.
        residual: largest relative difference on those.
        remainder: digests of the other batches.
    """

    agree: int
    of: int
    residual: float
    remainder: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """What explains a candidate's differences.

    Attributes:
        variants: wrong definitions that together give its answers; empty where none do.
        scales: constant factors of terms and gradients on top of them, if there are any.
        explained, failing: number of failing batches that they explain to rounding, and of those tried.
        steps: number of failing batches that the first variant explains, that the first two do, and so on.
        broken, agreeing: number of agreeing batches that they would change, and of those tried.
        residual: largest difference left on the explained batches, relative to the largest number of its kind.
        also: other variants that give the same answers on all batches.
        arithmetic: a remark on the arithmetic, or empty.
        nearest: where nothing is named, what removes most of the difference.
        removed: the share that it removes.
    """

    variants: tuple[Variant, ...] = ()
    scales: TermScales | None = None
    explained: int = 0
    failing: int = 0
    steps: tuple[int, ...] = ()
    broken: int = 0
    agreeing: int = 0
    residual: float = 0.0
    also: tuple[str, ...] = ()
    arithmetic: str = ""
    nearest: str = ""
    removed: float = 0.0

    @property
    def named(self) -> bool:
        """Whether something is named."""
        return bool(self.variants or self.scales or self.arithmetic)

    def left(self, batch: AnsweredBatch) -> float | None:
        """Returns the largest relative difference that it leaves on a batch; ``None`` if that is more than rounding."""
        if self.scales is not None:
            left = self.scales.left(batch, self.variants)
            return left if left <= batch.rounding else None
        return min(batch.distance(self.variants), batch.rounding) if batch.explained(self.variants, any_ties=True) else None

    def what(self) -> str:
        """Returns what is otherwise, in one clause; empty if nothing is named."""
        releases = [str(variant) for variant in self.variants if variant.release]
        others = [str(variant) for variant in self.variants if not variant.release]
        others += [str(self.scales)] if self.scales else []
        others += [self.arithmetic] if self.arithmetic else []
        is_release = f"is {' and '.join(releases)}" if releases else ""
        rest = ", and ".join(others)
        if is_release and rest:
            return f"{is_release}, but {rest}"
        return is_release or rest

    def sentence(self) -> str:
        """Returns the explanation in one sentence."""
        if not self.failing:
            return "no batch differs by more than rounding"
        if not self.named:
            if not self.nearest:
                return f"not explained: {self.failing} batches differ, and no known wrong definition is nearer to them than the right one"
            return f"not explained; nearest: {self.nearest}, which removes {100 * self.removed:.2g} % of the difference"
        same = f" (or {'; '.join(self.also)}: no batch tells them apart)" if self.also else ""
        one_by_one = f" ({', then '.join(map(str, self.steps))})" if len(self.steps) > 1 else ""
        rest = "" if self.explained == self.failing else "; the rest is not explained"
        return f"{self.what()}{same}: explains {self.explained} of {self.failing} batches{one_by_one}{rest}"


def explain_answers(answers: Iterable[RecordedAnswer], variants: Sequence[Variant] | None = None, limits: Limits = Limits()) -> Explanation:
    """Returns what explains a candidate's answers, to failing and agreeing batches of one task.

    Args:
        answers: the recorded answers, in any order.
        variants: the catalogue; by default all wrong definitions of the task.
        limits: how long to search.
    """
    given = list(answers)
    found = _Search([AnsweredBatch(answer) for answer in given], variants, limits).run()
    if found.named or not found.failing or not _is_float32(given):
        return found
    wide = _Search([AnsweredBatch(answer, FLOAT32) for answer in given], variants, limits).run()
    if wide.failing and not wide.named:
        return found
    return replace(wide, failing=found.failing, explained=found.failing - wide.failing + wide.explained, arithmetic=IN_FLOAT32)


FLOAT32 = 1e-5
IN_FLOAT32 = "float64 logits are computed in float32 [8a]"


def _is_float32(answers: Sequence[RecordedAnswer]) -> bool:
    """Whether answers in float64 look like float32 arithmetic: no batch is exact, and most are within float32's rounding or far off."""
    batches = [AnsweredBatch(answer) for answer in answers if answer.dtype == "float64"]
    distances = [max(batch.terms(()) + batch.gradients(())) for batch in batches]
    near = [distance for distance in distances if distance <= FLOAT32]
    return len(near) >= 3 and sum(distance <= 1e-10 for distance in near) <= 0.05 * len(near)


def counter_proof(found: Explanation, answers: Iterable[RecordedAnswer]) -> CounterProof:
    """Compares the definition with what an explanation names with a candidate's answers, batch by batch.

    Args:
        found: the explanation.
        answers: answers to any batches, also to others than it was made from; failing and agreeing ones.
    """
    residual, agree, remainder, count = 0.0, 0, [], 0
    for answer in answers:
        count += 1
        left = found.left(AnsweredBatch(answer, FLOAT32 if found.arithmetic else None))
        if left is None:
            remainder.append(answer.case.digest)
        else:
            agree, residual = agree + 1, max(residual, left)
    return CounterProof(agree, count, residual, tuple(remainder))


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


class _Search:
    def __init__(self, batches: Sequence[AnsweredBatch], variants: Sequence[Variant] | None, limits: Limits) -> None:
        self.limits, self.start = limits, time.monotonic()
        ordered = sorted(batches, key=lambda batch: batch.size)
        self.failing = [batch for batch in ordered if batch.differs][: limits.failing]
        self.agreeing = [batch for batch in ordered if batch.agrees][: limits.agreeing]
        task = batches[0].case.spec.task if batches else "detect"
        self.variants = catalogue(task) if variants is None else tuple(variants)

    def run(self) -> Explanation:
        if not self.failing:
            return Explanation(agreeing=len(self.agreeing))
        base: list[_Scored] = [_Scored((), 0, 0, 0.0)]
        best, nearest = Explanation(failing=len(self.failing)), base[0]
        for _ in range(1, self.limits.depth + 1):
            for one in base:
                best = self._better(best, self._with_number(one.variants))
            if best.explained == best.failing or self._late():
                break
            scored = [found for one in base for found in self._continued(one.variants)]
            scored = sorted(_distinct(scored), key=lambda one: one.score, reverse=True)
            full = [one for one in scored if one.explained == scored[0].explained > 0][: 2 * self.limits.beam]
            for one in full:
                best = self._better(best, self._verified(one.variants))
            if best.explained == best.failing:
                break
            nearest = max([nearest, *scored[:1]], key=lambda one: one.removed)
            base = self._continuable(scored)
            if not base:
                break
        if best.explained < LEAST_SHARE * best.failing or not best.named:
            text = ", and ".join(map(str, nearest.variants))
            return Explanation(failing=len(self.failing), agreeing=len(self.agreeing), nearest=text, removed=max(nearest.removed, 0.0))
        return replace(best, steps=self._steps(best), also=self._alike(best))

    def _late(self) -> bool:
        return self.limits.seconds is not None and time.monotonic() - self.start > self.limits.seconds

    def _sample(self, base: Sequence[Variant]) -> list[AnsweredBatch]:
        """Returns the smallest failing batches that are not explained yet, of as many kinds of difference as there are."""
        kinds: dict[tuple[object, ...], list[AnsweredBatch]] = {}
        for batch in self.failing:
            if not base or not batch.explained(base):
                kinds.setdefault(_kind(batch), []).append(batch)
        chosen = [batch for turn in range(self.limits.sample) for group in kinds.values() for batch in group[turn : turn + 1]]
        return chosen[: self.limits.sample]

    def _continued(self, base: tuple[Variant, ...]) -> list[_Scored]:
        """Returns each variant on top of others, with its score on batches that those do not explain."""
        sample = self._sample(base)
        found = []
        for variant in self.variants:
            if variant in base or self._late():
                continue
            scored = self._scored((*base, variant), sample)
            if scored is not None:
                found.append(scored)
        return found

    def _scored(self, variants: tuple[Variant, ...], sample: Sequence[AnsweredBatch]) -> _Scored | None:
        """Returns the score of a combination; ``None`` where it does no good on the first batches that it could change."""
        explained, settled, removed, useless = 0, 0, 0.0, 0
        for batch in sample:
            if not variants[-1].applies(batch.case.spec):
                continue
            more = batch.settled(variants) - batch.settled(variants[:-1])
            share = batch.removed(variants)
            explained, settled, removed = explained + batch.explained(variants), settled + more, removed + share
            useless += more <= 0 and share < batch.removed(variants[:-1]) + PROMISING
            if useless >= MOST_USELESS and not explained:
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
        """Returns variants that in place of the last one give the same answers on all failing batches, and break none."""
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
        return tuple(found)


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
