"""Constant factors of terms and their gradients: a gain, a mean, a detached term.

Three numbers a batch always fit something. A factor is therefore named only where the same factors explain every failing batch to rounding,
and change no agreeing one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oracle.comparison.recorded_answers import AnsweredBatch, Ties
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
        names: names of the terms, of all that any batch has.
        value, gradient: factor of each term and of its gradient; ``None`` where no batch shows it, since the term or its gradient is 0 on
            all of them, as a semantic term is without semantic masks.
        residual: largest relative difference that they leave.
    """

    names: tuple[str, ...]
    value: tuple[float | None, ...]
    gradient: tuple[float | None, ...]
    residual: float

    def left(self, batch: AnsweredBatch, variants: Sequence[Variant]) -> float:
        """Returns what the factors leave on a batch, relative to the largest number of its kind; infinite where it cannot be computed."""
        return _EitherTies(batch, variants).left(
            dict(zip(self.names, self.value, strict=True)), dict(zip(self.names, self.gradient, strict=True))
        )

    @property
    def clauses(self) -> tuple[str, ...]:
        """One text for each term that has a factor, or a single one if all terms that any batch shows have the same."""
        pairs = list(zip(self.value, self.gradient, strict=True))
        terms_shown = sum(pair != (None, None) for pair in pairs)
        factors = [factor for pair in pairs for factor in pair if factor is not None]
        if terms_shown > 1 and all(_same(factor, factors[0]) for factor in factors):
            return (f"every term and its gradient are {factors[0]:.6g} times what they should be [7]",)
        return tuple(text for name, pair in zip(self.names, pairs, strict=True) if (text := _text(name, *pair)))

    @property
    def is_one_factor(self) -> bool:
        """Whether it is one factor of one term or of all, and not 0: as plain as a variant, and no other name of a missing gradient."""
        return len(self.clauses) == 1 and all(factor is None or abs(factor) > SAME for factor in (*self.value, *self.gradient))

    def __str__(self) -> str:
        return ", ".join(self.clauses)


Factors = Mapping[str, float | None]
"""By the term's name: batches of one task may have other terms, as those of pose with and without a flow."""


def _as_tensor(factors: Factors, names: Sequence[str]) -> Tensor:
    chosen = [factors.get(name) for name in names]
    return torch.tensor([1.0 if factor is None else factor for factor in chosen], dtype=torch.float64)


def _text(name: str, value: float | None, gradient: float | None) -> str:
    """Returns a text for the factors of a term; empty where they are 1. A factor that no batch shows is taken to be the other one."""
    value = gradient if value is None else value
    gradient = value if gradient is None else gradient
    if value is None or gradient is None:
        return ""
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


@dataclass(frozen=True)
class _Parts:
    """One batch taken apart.

    Attributes:
        batch: the batch.
        loss: (T,) the terms under the variants.
        gradients: (N, T) gradient of each term in all predictions.
    """

    batch: AnsweredBatch
    loss: Tensor
    gradients: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms (T,)."""
        return self.batch.case.spec.term_names

    @property
    def found(self) -> Tensor:
        """The candidate's gradient (N,)."""
        return _flat(self.batch.answer.outcome)

    def agrees(self, value: Tensor, gradient: Tensor) -> float:
        """Returns what the factors of terms (T,) and gradients (T,) leave, relative to the largest number of its kind."""
        of_terms = (self.batch.answer.outcome.loss - value * self.loss).abs() / self.batch.truth.loss.abs().clamp(min=1e-3)
        size = _flat(self.batch.truth).abs().max().clamp(min=1e-6)
        of_gradients = (self.found - self.gradients @ gradient).abs().max() / size
        return max(float(of_terms.max()), float(of_gradients))


class _EitherTies:
    """One batch taken apart under the contender's rule for ties and under the other, each computed once, where it is asked for."""

    def __init__(self, batch: AnsweredBatch, variants: Sequence[Variant]) -> None:
        self.batch, self.variants = batch, variants
        self._found: dict[Ties, _Parts | None] = {}

    def __iter__(self) -> Iterator[_Parts]:
        other: Ties = "stable" if self.batch.answer.ties == "reference" else "reference"
        for ties in (self.batch.answer.ties, other):
            if ties not in self._found:
                self._found[ties] = _parts(self.batch, self.variants, ties)
            if (parts := self._found[ties]) is not None:
                yield parts

    def estimate(self) -> tuple[_Parts, tuple[Tensor, Tensor]] | None:
        """Returns the parts that some factors explain, with these factors; ``None`` if none explain the batch."""
        return next(((parts, factors) for parts in self if (factors := _estimate(parts)) is not None), None)

    def left(self, value: Factors, gradient: Factors) -> float:
        """Returns what the factors leave under the rule that they fit better; infinite where neither can be computed."""
        left, names = math.inf, self.batch.case.spec.term_names
        for parts in self:
            left = min(left, parts.agrees(_as_tensor(value, names), _as_tensor(gradient, names)))
            if left <= self.batch.rounding:
                break
        return left


def fitted_scales(failing: Sequence[AnsweredBatch], agreeing: Sequence[AnsweredBatch], variants: Sequence[Variant]) -> TermScales | None:
    """Returns the factors that, on top of some variants, explain every failing batch and change no agreeing one; ``None`` if none do."""
    if len(failing) < FEWEST_BATCHES:
        return None
    apart = [_EitherTies(batch, variants) for batch in (*failing, *agreeing)]
    if any(one.estimate() is None for one in apart[:FEWEST_BATCHES]):
        return None
    estimates = [found for one in apart[: len(failing)] if (found := one.estimate()) is not None]
    value = _best([(parts.names, estimate[0], parts.loss.abs()) for parts, estimate in estimates])
    gradient = _best([(parts.names, estimate[1], parts.gradients.norm(dim=0) / parts.gradients.norm()) for parts, estimate in estimates])
    if all(_same(factor, 1) for factor in (*value.values(), *gradient.values())):
        return None
    left = [one.left(value, gradient) for one in apart]
    if any(residual > one.batch.rounding for residual, one in zip(left, apart, strict=True)):
        return None
    names = tuple(dict.fromkeys(name for batch in failing for name in batch.case.spec.term_names))
    return TermScales(names, tuple(map(value.get, names)), tuple(map(gradient.get, names)), max(left))


def _best(estimates: Sequence[tuple[Sequence[str], Tensor, Tensor]]) -> dict[str, float]:
    """Returns each term's factor from the batch that shows it best, given names, estimates (T,) and their weights; only those shown."""
    found: dict[str, float] = {}
    most: dict[str, float] = {}
    for names, values, weights in estimates:
        for name, factor, weight in zip(names, values.tolist(), weights.tolist(), strict=True):
            if weight > most.get(name, 0.0):
                found[name], most[name] = factor, weight
    return found


def _parts(batch: AnsweredBatch, variants: Sequence[Variant], ties: Ties) -> _Parts | None:
    """Takes a batch apart; ``None`` where the variants cannot be computed on it, or a number is not finite."""
    terms = batch.case.spec.terms
    try:
        apart = [batch.outcome(variants, [float(name == chosen) for name in terms], ties) for chosen in terms]
    except (ValueError, IndexError, RuntimeError):
        return None
    gradients = torch.stack([_flat(part) for part in apart], 1)
    finite = all(bool(numbers.isfinite().all()) for numbers in (gradients, _flat(batch.answer.outcome), batch.answer.outcome.loss))
    return _Parts(batch, apart[0].loss, gradients) if finite else None


def _estimate(parts: _Parts) -> tuple[Tensor, Tensor] | None:
    """Returns the factors of terms and gradients (each (T,)) by which one batch is explained; ``None`` if none explain it."""
    there = parts.gradients.abs().amax(0) > 0
    gradient = torch.ones_like(parts.loss)
    if there.any():
        gradient[there] = torch.linalg.lstsq(parts.gradients[:, there], parts.found[:, None]).solution[:, 0]
    value = torch.where(parts.loss.abs() > 0, parts.batch.answer.outcome.loss / parts.loss, 1.0)
    return (value, gradient) if parts.agrees(value, gradient) <= parts.batch.rounding else None


def _flat(outcome: Outcome) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in outcome.gradients.values()])
