"""Constant factors of terms and their gradients: a gain, a mean, a detached term.

Three numbers a batch always fit something. A factor is therefore named only where the same factors explain every failing batch to rounding,
and change no agreeing one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oracle.comparison.recorded_answers import AnsweredBatch
from oracle.contract.run import Outcome
from oracle.definition.variant import Variant

SAME = 1e-7
"""Relative difference up to which the factors of two batches are the same."""

FEWEST_BATCHES = 3
"""Smallest number of failing batches from which constant factors are inferred."""


@dataclass(frozen=True)
class TermScales:
    """Factors of each term and of its gradient that are not 1.

    Attributes:
        names: names of the terms.
        value, gradient: factor of each term and of its gradient; not-a-number where no batch shows it.
        residual: largest relative difference that they leave.
    """

    names: tuple[str, ...]
    value: tuple[float, ...]
    gradient: tuple[float, ...]
    residual: float

    def __str__(self) -> str:
        factors = [factor for factor in (*self.value, *self.gradient) if not math.isnan(factor)]
        if all(_same(factor, factors[0]) for factor in factors):
            return f"every term and its gradient are {factors[0]:.6g} times what they should be [7]"
        return ", ".join(filter(None, map(_text, self.names, self.value, self.gradient)))


def _text(name: str, value: float, gradient: float) -> str:
    """Returns a text for the factors of a term; empty where they are 1."""
    value, gradient = (1.0 if math.isnan(factor) else factor for factor in (value, gradient))
    if _same(value, gradient):
        return "" if _same(value, 1) else f"{name} and its gradient are {value:.6g} times what they should be [7]"
    if _same(value, 1):
        return (
            f"{name} has no gradient [8]"
            if abs(gradient) < SAME
            else f"the gradient of {name} is {gradient:.6g} times what it should be [8]"
        )
    if _same(gradient, 1):
        return f"{name} is {value:.6g} times what it should be, with the right gradient [7]"
    return f"{name} is {value:.6g}, its gradient {gradient:.6g} times what they should be [7]"


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= SAME * max(abs(one), abs(other), 1e-3)


def fitted_scales(failing: Sequence[AnsweredBatch], agreeing: Sequence[AnsweredBatch], variants: Sequence[Variant]) -> TermScales | None:
    """Returns the factors that, on top of some variants, explain every failing batch and change no agreeing one; ``None`` if none do."""
    if len(failing) < FEWEST_BATCHES:
        return None
    value: dict[str, float] = {}
    gradient: dict[str, float] = {}
    residual = 0.0
    for batch in failing:
        fit = _fit(batch, variants)
        if fit is None or not (_join(value, fit[0]) and _join(gradient, fit[1])):
            return None
        residual = max(residual, fit[2])
    names = failing[0].case.spec.term_names
    keys = failing[0].case.spec.terms
    if any(not _unchanged(batch, variants, value, gradient) for batch in agreeing):
        return None
    if all(_same(factor, 1) for factor in (*value.values(), *gradient.values())):
        return None
    nan = float("nan")
    return TermScales(names, tuple(value.get(k, nan) for k in keys), tuple(gradient.get(k, nan) for k in keys), residual)


def _join(known: dict[str, float], found: dict[str, float]) -> bool:
    """Adds a batch's factors to those known; false where they differ."""
    if any(name in known and not _same(known[name], factor) for name, factor in found.items()):
        return False
    known |= found
    return True


def _fit(batch: AnsweredBatch, variants: Sequence[Variant]) -> tuple[dict[str, float], dict[str, float], float] | None:
    """Returns factors of terms and of their gradients on one batch, and what they leave; ``None`` if that is more than rounding."""
    terms, found = batch.case.spec.terms, batch.answer.outcome
    try:
        right = batch.outcome(variants)
        parts = {chosen: _flat(batch.outcome(variants, [float(name == chosen) for name in terms])) for chosen in terms}
    except (ValueError, IndexError, RuntimeError):
        return None
    whole = _flat(found)
    there = [name for name in terms if bool(parts[name].any())]
    if not there or not bool(whole.isfinite().all() and found.loss.isfinite().all()):
        return None
    matrix = torch.stack([parts[name] for name in there], 1)
    solved = torch.linalg.lstsq(matrix, whole[:, None]).solution[:, 0]
    scale = float(matrix.abs().max())
    left = float((whole - matrix @ solved).abs().max()) / max(scale, 1e-6)
    zero = [k for k in range(len(terms)) if abs(float(right.loss[k])) < 1e-12]
    if left > batch.rounding or any(abs(float(found.loss[k])) > batch.rounding for k in zero):
        return None
    value = {terms[k]: float(found.loss[k] / right.loss[k]) for k in range(len(terms)) if k not in zero}
    return value, dict(zip(there, solved.tolist(), strict=True)), left


def _unchanged(batch: AnsweredBatch, variants: Sequence[Variant], value: dict[str, float], gradient: dict[str, float]) -> bool:
    """Whether the factors leave an agreeing batch as it is."""
    fit = _fit(batch, variants)
    if fit is None:
        return batch.explained(variants)
    return all(
        _same(known[name], factor)
        for known, ones in ((value, fit[0]), (gradient, fit[1]))
        for name, factor in ones.items()
        if name in known
    )


def _flat(outcome: Outcome) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in outcome.gradients.values()])
