"""Whether an outcome is the definition's with its terms, or their gradients, taken so many times: a gain, a mean, a detached term."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from oracle.contract.run import Outcome, run_loss
from oracle.judge.truth import Definition
from oracle.tolerance.allowed_assignments import Rules

FACTOR = 1e-6
"""Relative difference up to which two factors are the same."""


def reweighed(found: Outcome, truth: Outcome, definition: Definition, exact: float) -> str:
    """What was done to the terms, in a few words; empty where no factors of the terms and their gradients give what was found.

    Args:
        found: a contender's outcome.
        truth: the definition's.
        definition: the case.
        exact: differences, relative to the largest number of their kind, that are rounding.
    """
    terms = range(3)
    cotangents = [(float(k == 0), float(k == 1), float(k == 2)) for k in terms]
    parts = [run_loss(definition.exact(Rules()), definition.inputs, definition.setting, c) for c in cotangents]
    gradients = [torch.cat([part.grad_boxes.flatten(), part.grad_scores.flatten()]) for part in parts]
    whole = torch.cat([found.grad_boxes.flatten(), found.grad_scores.flatten()])
    if not bool(whole.isfinite().all() and found.loss.isfinite().all()):
        return ""
    there = [k for k in terms if bool(gradients[k].any())]
    if not there:
        return ""
    slopes = torch.linalg.lstsq(torch.stack([gradients[k] for k in there], 1), whole[:, None]).solution[:, 0]
    mixed = torch.stack([slope * gradients[k] for k, slope in zip(there, slopes, strict=True)]).sum(0)
    zero = [k for k in terms if not float(truth.loss[k])]
    if any(float(found.loss[k].abs()) > exact for k in zero) or float((whole - mixed).abs().max()) > exact * float(whole.abs().max()):
        return ""
    value = {k: float(found.loss[k] / truth.loss[k]) for k in terms if k not in zero}
    slope = dict(zip(there, slopes.tolist(), strict=True))
    return _all_alike(value, slope, len(truth.grad_boxes)) or _each(value, slope, definition.case.spec.term_names)


def _all_alike(value: dict[int, float], slope: dict[int, float], images: int) -> str:
    """One factor for everything, by its name where it has one."""
    factors = [*value.values(), *slope.values()]
    if len(value) < 2 or not all(_same(factor, factors[0]) for factor in factors):
        return ""
    if images > 1 and _same(factors[0], 1 / images):
        return "a loss that is not multiplied by the number of images [7]"
    if images > 1 and _same(factors[0], images):
        return "a loss that is multiplied by the number of images twice [7]"
    return f"another normaliser: every term and its gradient are {_times(factors[0])} what they should be [7]"


def _each(value: dict[int, float], slope: dict[int, float], names: Sequence[str]) -> str:
    said = []
    for k, name in enumerate(names):
        worth, steep = value.get(k, 1.0), slope.get(k, value.get(k, 1.0))
        if _same(worth, steep) and not _same(worth, 1):
            said.append(f"{name} and its gradient are {_times(worth)} what they should be")
        elif _same(worth, 1) and abs(steep) <= FACTOR:
            said.append(f"{name} has no gradient")
        elif not _same(worth, 1) and _same(steep, 1):
            said.append(f"{name} is {_times(worth)} what it should be, its gradient is right")
        elif _same(worth, 1) and not _same(steep, 1):
            said.append(f"the gradient of {name} is {_times(steep)} what it should be, its value is right")
        elif not _same(worth, steep):
            said.append(f"{name} is {_times(worth)}, its gradient {_times(steep)} what it should be")
    return ", ".join(said)


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= FACTOR * max(abs(one), abs(other))


def _times(factor: float) -> str:
    return f"{factor:.6g} times"
