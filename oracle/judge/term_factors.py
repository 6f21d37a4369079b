"""Recognises an outcome whose terms, or their gradients, are the definition's times a factor: a gain, a mean, a detached term."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from oracle.contract.run import Outcome, run_loss
from oracle.judge.truth import DefinitionAnswers
from oracle.tolerance.allowed_assignments import TieRules

FACTOR = 1e-6
"""Relative difference up to which two factors are the same."""


def term_factors(found: Outcome, truth: Outcome, definition: DefinitionAnswers, exact: float) -> str:
    """Returns the factors of the terms and their gradients as text; empty where no factors give the outcome.

    Args:
        found: a contender's loss and gradients.
        truth: the definition's.
        definition: the definition's answers for the case.
        exact: largest difference, relative to the largest number of its kind, that counts as rounding.
    """
    names = definition.case.spec.term_names
    gradients = dict(zip(names, _term_gradients(definition), strict=True))
    values, truths = (dict(zip(names, outcome.loss.tolist(), strict=True)) for outcome in (found, truth))
    whole = _flat(found)
    there = [name for name in names if bool(gradients[name].any())]
    if not there or not bool(whole.isfinite().all() and found.loss.isfinite().all()):
        return ""
    solved = torch.linalg.lstsq(torch.stack([gradients[name] for name in there], 1), whole[:, None]).solution[:, 0]
    mixed = torch.stack([factor * gradients[name] for name, factor in zip(there, solved, strict=True)]).sum(0)
    zero = [name for name in names if not truths[name]]
    if any(abs(values[name]) > exact for name in zero) or float((whole - mixed).abs().max()) > exact * float(whole.abs().max()):
        return ""
    value = {name: float(found.loss[k] / truth.loss[k]) for k, name in enumerate(names) if name not in zero}
    gradient = dict(zip(there, solved.tolist(), strict=True))
    return _common_factor(value, gradient, definition.case.batch_size) or _each(value, gradient, names)


def _term_gradients(definition: DefinitionAnswers) -> Iterator[Tensor]:
    """Yields the gradient (n,) of each term in all predictions."""
    terms = definition.case.spec.terms
    for chosen in terms:
        cotangent = [float(name == chosen) for name in terms]
        yield _flat(run_loss(definition.exact(TieRules()), definition.inputs, definition.setting, cotangent, terms, definition.flow))


def _flat(outcome: Outcome) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in outcome.gradients.values()])


def _common_factor(value: dict[str, float], gradient: dict[str, float], images: int) -> str:
    """Returns a text for one factor of all terms and gradients; empty where the factors differ."""
    factors = [*value.values(), *gradient.values()]
    if len(value) < 2 or not all(_same(factor, factors[0]) for factor in factors):
        return ""
    if images > 1 and _same(factors[0], 1 / images):
        return "a loss that is not multiplied by the number of images [7]"
    if images > 1 and _same(factors[0], images):
        return "a loss that is multiplied by the number of images twice [7]"
    return f"another normaliser: every term and its gradient are {_times(factors[0])} what they should be [7]"


def _each(value: dict[str, float], gradient: dict[str, float], names: Sequence[str]) -> str:
    """Returns a text for the factors of each term and its gradient that differ from 1."""
    notes = []
    for name in names:
        of_value = value.get(name, 1.0)
        of_gradient = gradient.get(name, of_value)
        if _same(of_value, of_gradient) and not _same(of_value, 1):
            notes.append(f"{name} and its gradient are {_times(of_value)} what they should be")
        elif _same(of_value, 1) and abs(of_gradient) <= FACTOR:
            notes.append(f"{name} has no gradient")
        elif not _same(of_value, 1) and _same(of_gradient, 1):
            notes.append(f"{name} is {_times(of_value)} what it should be, its gradient is right")
        elif _same(of_value, 1) and not _same(of_gradient, 1):
            notes.append(f"the gradient of {name} is {_times(of_gradient)} what it should be, its value is right")
        elif not _same(of_value, of_gradient):
            notes.append(f"{name} is {_times(of_value)}, its gradient {_times(of_gradient)} what it should be")
    return ", ".join(notes)


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= FACTOR * max(abs(one), abs(other))


def _times(factor: float) -> str:
    return f"{factor:.6g} times"
