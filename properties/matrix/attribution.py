"""Finds the wrong definitions that together give an implementation's answers to the directed batches of the matrix.

Third-party implementations depart from the definition in several places at once, each of which shows on the batches of its own feature.
The search adds one wrong definition at a time: one that, on top of the earlier ones, gives the answer to the smallest open batch of a
feature, or else the one that brings the open batches nearest. A batch is open if the definition with what was found so far does not give
the answer to it. The search ends when everything is explained, or when nothing helps.

For example, an implementation takes the IoU for the CIoU in the box term, and lengthens no sides. At first every batch with boxes is open.
The IoU alone gives the answers to batches of large boxes, and is added. Then the batches of tiny boxes alone are open; "sides never
lengthened" on top of the IoU gives the answers to all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oracle.comparison.recorded_answers import AnsweredBatch, RecordedAnswer, Ties
from oracle.comparison.wrong_definitions import catalogue
from oracle.definition.variant import Variant

Batches = Mapping[str, Sequence[AnsweredBatch]]
Answers = Mapping[str, Sequence[RecordedAnswer]]
Variants = tuple[Variant, ...]

FLOAT64, FLOAT32 = 1e-8, 2e-5
"""Relative differences that count as rounding: of float64, and of implementations that compute parts of it in float32."""

TIES: tuple[Ties, ...] = ("stable", "reference")
"""Rules for ties, either of which an implementation may follow."""

MOST = 7
"""Largest number of wrong definitions together."""

FEATURES_TRIED = 3
"""Number of features whose smallest open batch is tried before a wrong definition is added that only brings the answers nearer."""

SAMPLE = 2
"""Number of open batches on which wrong definitions are ranked by how near they bring the answers."""

EQUALS = 8
"""Largest number of wrong definitions that are told apart on further batches."""

PROMISING = 0.05
"""Share of the difference that a wrong definition must remove where it explains nothing."""


@dataclass(frozen=True)
class _Scored:
    variant: Variant
    settled: int
    removed: float

    @property
    def score(self) -> tuple[float, ...]:
        return self.settled, round(self.removed, 9)


@dataclass(frozen=True)
class Attribution:
    """What explains a column.

    Attributes:
        variants: the wrong definitions, in the order in which they were found.
        batches: the answered batches of each feature, with the rounding that counts.
        rounding: largest relative difference that counts as rounding.
    """

    variants: Variants
    batches: Batches
    rounding: float


def attributed(answers: Answers) -> Attribution:
    """Returns what explains most answers; float64's rounding counts where it explains all that float32's does."""
    coarse = {name: [AnsweredBatch(answer, FLOAT32) for answer in group] for name, group in answers.items()}
    variants = _greedy(coarse)
    explained = [batch for group in coarse.values() for batch in group if batch.explained(variants, any_ties=True)]
    if any(min(batch.distance(variants, ties) for ties in TIES) > FLOAT64 for batch in explained):
        return Attribution(variants, coarse, FLOAT32)
    return Attribution(variants, {name: [AnsweredBatch(answer, FLOAT64) for answer in group] for name, group in answers.items()}, FLOAT64)


def _greedy(batches: Batches) -> Variants:
    """Returns the wrong definitions that explain the answers to most batches, in the order in which they were found."""
    base: Variants = ()
    for _ in range(MOST):
        groups = _open(batches, base)
        far = 2 * sum(map(len, groups)) > sum(map(len, batches.values()))
        first, rest = (groups[:FEATURES_TRIED], groups[FEATURES_TRIED:]) if far else (groups, [])
        found = next(filter(None, (_exact(group, base, batches) for group in first)), None)
        if found is None and far:  # several differences at once, none of which explains a batch alone
            found = _nearer([group[0] for group in groups[:SAMPLE]], base)
        found = found or next(filter(None, (_exact(group, base, batches) for group in rest)), None)
        if found is None:
            break
        base = (*base, found)
    return _pruned(base, [batch for group in batches.values() for batch in group])


def _open(batches: Batches, base: Variants) -> list[list[AnsweredBatch]]:
    """Returns the open batches of each feature that has any, the smallest first; first the features of which the fewest are open.

    Where few of a feature's batches are open, they are so for one reason more often.
    """
    groups = [(group, [batch for batch in group if not batch.explained(base, any_ties=True)]) for group in batches.values()]
    ordered = [(len(found) / len(group), sorted(found, key=lambda batch: batch.size)) for group, found in groups if found]
    return [found for _, found in sorted(ordered, key=lambda one: (one[0], one[1][0].size))]


def _exact(group: Sequence[AnsweredBatch], base: Variants, batches: Batches) -> Variant | None:
    """Returns the wrong definition that, on top of others, gives the answer to a feature's smallest open batch, and to most others.

    The first that gives the answers to all of several open batches is taken at once; older releases come first in the catalogue.
    """
    first, good = group[0], list[Variant]()
    for one in catalogue():
        if one not in base and one.applies(first.case.spec) and first.explained((*base, one)):
            if len(group) > 2 and _explained((*base, one), group) == len(group):
                return one
            good.append(one)
    if len(good) < 2:
        return good[0] if good else None
    others = [min(own, key=lambda batch: batch.size) for own in batches.values() if own]
    return max(good[:EQUALS], key=lambda one: _explained((*base, one), [*group, *others]))


def _nearer(sample: Sequence[AnsweredBatch], base: Variants) -> Variant | None:
    """Returns the wrong definition that, on top of others, brings most terms to rounding, or removes most of the difference."""
    scored = [one for variant in catalogue() if variant not in base and (one := _score(variant, base, sample))]
    return max(scored, key=lambda one: one.score).variant if scored else None


def _score(variant: Variant, base: Variants, sample: Sequence[AnsweredBatch]) -> _Scored | None:
    """Returns the score of a wrong definition on top of others; ``None`` where it does nothing."""
    settled, removed, variants = 0, 0.0, (*base, variant)
    for batch in sample:
        if variant.applies(batch.case.spec):
            settled += batch.settled(variants) - batch.settled(base)
            removed += batch.removed(variants) - batch.removed(base)
    return _Scored(variant, settled, removed) if settled > 0 or removed > PROMISING else None


def _explained(variants: Variants, batches: Sequence[AnsweredBatch]) -> int:
    return sum(batch.explained(variants, any_ties=True) for batch in batches)


def _pruned(variants: Variants, batches: Sequence[AnsweredBatch]) -> Variants:
    """Returns the variants without those that explain no batch."""
    kept = variants
    for variant in variants:
        rest = tuple(one for one in kept if one is not variant)
        if _explained(rest, batches) >= _explained(kept, batches):
            kept = rest
    return kept
