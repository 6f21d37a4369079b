"""Numbers that no catalogue lists: α = 0.51, anchors off by 1e-4 cells, a gradient clipped at 0.5.

A family is a variant with one free number. Its number is fitted to one term of one failing batch, by the secant method, or read from a
gradient; it is a fault only if the other terms, the gradients and all other batches confirm it to rounding. For example, of a candidate
with α + 0.01 the classification term of the first failing batch is met by a shift of 0.01000000000003; the shortest number that still
explains the batch is 0.01.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from oracle.comparison.recorded_answers import AnsweredBatch
from oracle.comparison.wrong_definitions.families import FAMILIES, Family, of_gradient
from oracle.definition.variant import Variant

MOST_STEPS = 14
"""Largest number of steps of the secant method."""

PATIENCE = 3
"""Steps after which half of the difference must be gone."""

FITTED = 0.1
"""Difference of the fitted term at which the method ends, in units of what the confirmation takes for rounding."""

MOST_DIGITS = 8
"""Digits of a fitted number, if fewer do not explain the batch."""


def fitted(batch: AnsweredBatch, base: Sequence[Variant]) -> Iterator[Variant]:
    """Yields the variants whose numbers, fitted on top of others, explain a batch to rounding."""
    if max(batch.terms(base)) > batch.rounding:
        kept = batch.shares_assignment(base)
        for family in FAMILIES:
            if kept and not family.variant(family.right + family.step).keeps_assignment(batch.case.spec):
                continue
            number = _secant(batch, base, family)
            if number is not None:
                yield _shortest(batch, base, family, number)
    else:
        for family, number in _read(batch, base):
            if batch.explained((*base, family.variant(number))):
                yield _shortest(batch, base, family, number)


def _secant(batch: AnsweredBatch, base: Sequence[Variant], family: Family) -> float | None:
    """Returns the number that explains a batch, or ``None``."""
    found = batch.answer.outcome.loss

    def differences(number: float) -> Tensor:
        return batch.values((*base, family.variant(number))) - found

    try:
        before = differences(family.right)
        after = differences(family.right + family.step)
        moved = (after - before).abs() / found.abs().clamp(min=1e-3)
        term = int(torch.where(before.abs() > batch.rounding, moved, -1.0).argmax())
        x, y = (family.right, float(before[term])), (family.right + family.step, float(after[term]))
        for step in range(MOST_STEPS):
            stuck = step == PATIENCE and abs(y[1]) > abs(float(before[term])) / 2
            if not math.isfinite(y[1]) or y[1] == x[1] or stuck:
                return None
            number = y[0] - y[1] * (y[0] - x[0]) / (y[1] - x[1])
            if not math.isfinite(number) or abs(number - family.right) > 1e4 * max(abs(family.right), 1.0):
                return None
            left = differences(number)
            x, y = y, (number, float(left[term]))
            if abs(y[1]) <= FITTED * batch.rounding * max(abs(float(found[term])), 1e-3):
                break
        return y[0] if batch.explained((*base, family.variant(y[0]))) else None
    except (ValueError, IndexError, RuntimeError, OverflowError):
        return None


def _shortest(batch: AnsweredBatch, base: Sequence[Variant], family: Family, number: float) -> Variant:
    """Returns the variant with the fewest digits that explains the batch."""
    for digits in range(1, MOST_DIGITS + 1):
        short = family.variant(float(f"{number:.{digits}g}"))
        if batch.explained((*base, short)):
            return short
    return family.variant(number)


def _read(batch: AnsweredBatch, base: Sequence[Variant]) -> Iterator[tuple[Family, float]]:
    """Yields gradients' families with the number that the largest element shows, where the terms agree."""
    right, found = batch.outcome(base).gradients, batch.answer.outcome.gradients
    for name, gradient in found.items():
        if not gradient.numel() or not bool(gradient.isfinite().all()):
            continue
        at = right[name].abs().argmax()
        largest, asked = float(gradient.flatten()[at]), float(right[name].flatten()[at])
        if asked and not math.isclose(largest, asked, rel_tol=batch.rounding):
            yield of_gradient(name, "{{}} times what it should be", lambda g, n: g * n), largest / asked
            yield of_gradient(name, "clipped at {{}}", lambda g, n: g.clamp(-n, n)), float(gradient.abs().max())
