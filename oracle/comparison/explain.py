"""Where a contender that shows no stage differs, and what fault that looks like: read off its loss and gradients alone.

A difference is described by its pattern, which terms, which anchors, which levels, classes and images; then wrong definitions
(:mod:`oracle.comparison.wrong_definitions`) are run on the case, and the one that says what the contender says is named.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from oracle.cases.case import Case, Setting
from oracle.comparison.trial import ContenderFailed, Trial
from oracle.comparison.wrong_definitions import suspects
from oracle.contract.contender import Contender
from oracle.contract.run import Outcome, run_loss
from oracle.judge.truth import Definition

EXPLAINED = 0.02
"""A suspect is named when the contender is this many times closer to it than to the definition, or closer still."""

VISIBLE = 64
"""Roundings of the logits' dtype, of the largest number, beyond which an element counts as different."""


def localise(case: Case, setting: Setting, contender: Contender) -> list[str]:
    """Lines that say which terms, anchors, levels, classes and images differ, and which fault explains that.

    Empty where the contender gives no loss, or none of its numbers is visibly off.
    """
    definition = Definition(case, setting)
    inputs = definition.inputs if setting.device == "cpu" else case.build(setting)
    try:
        trial = Trial(contender, definition, inputs)
        found = trial.outcome().on_host()
    except ContenderFailed:
        return []
    truth = trial.standard().truth
    seen = max(torch.finfo(setting.torch_dtype).eps, torch.finfo(torch.float32).eps if setting.dtype != "float64" else 0) * VISIBLE
    if _distance(found, truth, truth) <= seen:
        return []
    lines = [f"  pattern    {line}" for line in _pattern(found, truth, trial, seen)]
    return lines + [f"  looks like {line}" for line in _explanations(found, truth, definition, seen)]


def _pattern(found: Outcome, truth: Outcome, trial: Trial, seen: float) -> Iterator[str]:
    spec, layout = trial.definition.case.spec, trial.definition.layout
    said = []
    for k, name in enumerate(spec.term_names):
        value, right = float(found.loss[k]), float(truth.loss[k])
        agrees = abs(value - right) <= seen * max(abs(right), 1e-3)
        said.append(f"{name} {'agrees' if agrees else f'× {value / right:.6g}' if right else f'is {value:.3g}, not 0'}")
    yield ", ".join(said)
    held = trial.standard().assignment
    holds = torch.zeros(truth.grad_scores.shape[0], truth.grad_scores.shape[2], dtype=torch.bool)
    holds[held.image, held.anchor] = True
    masks = {"boxes": _off(found.grad_boxes, truth.grad_boxes, seen), "scores": _off(found.grad_scores, truth.grad_scores, seen)}
    for name, mask in masks.items():
        yield f"gradient of {name}: {_places(mask.any(1), holds, [part.stop for part in layout.slices])}"
    if masks["scores"].any():
        per_class = masks["scores"].any(2).any(0)
        if len(per_class) > 1:
            yield f"gradient of scores, classes: {_members(per_class)}"


def _off(value: Tensor, right: Tensor, seen: float) -> Tensor:
    scale = float(right.abs().max()) if right.numel() else 0.0
    return ~((value - right).abs() <= seen * max(scale, 1e-6))


def _places(differs: Tensor, holds: Tensor, ends: list[int]) -> str:
    """How many anchors (B, A) differ, held and not, by level and image."""
    if not differs.any():
        return "agrees everywhere"
    parts = [f"differs at {int((differs & holds).sum())} of {int(holds.sum())} held anchors, {int((differs & ~holds).sum())} others"]
    if len(ends) > 1:
        levels = torch.stack([differs[:, a:b].any() for a, b in zip([0, *ends], ends, strict=False)])
        parts.append(f"levels {_members(levels)}")
    if len(differs) > 1:
        parts.append(f"images {_members(differs.any(1))}")
    return "; ".join(parts)


def _members(mask: Tensor) -> str:
    members = mask.nonzero()[:, 0].tolist()
    if len(members) == len(mask):
        return "all"
    text = ", ".join(map(str, members[:6])) + (f" and {len(members) - 6} more" if len(members) > 6 else "")
    return f"{text} of 0 to {len(mask) - 1}"


def _explanations(found: Outcome, truth: Outcome, definition: Definition, seen: float) -> Iterator[str]:
    distance = _distance(found, truth, truth)
    values = _distance(found, truth, truth, gradients=False)
    if values <= seen:
        yield "a gradient that does not belong to the value: something is detached that should not be, or is not and should be [8]"
        return
    named = []
    for fault, criterion in suspects(definition.case.spec):
        other = run_loss(criterion, definition.inputs, Setting("float64"))
        gap = _distance(found, other, truth)
        if gap <= EXPLAINED * distance:
            named.append((gap, fault))
    for gap, fault in sorted(named)[:3]:
        # Several definitions may say the same on one batch.
        yield f"{fault}: {distance / max(gap, 1e-16):.3g} times closer than the definition"
    if not named:
        yield from _factors(found, truth, seen)


def _distance(one: Outcome, other: Outcome, scale: Outcome, *, gradients: bool = True) -> float:
    """The largest difference of two outcomes, each number by the size of its kind."""
    pairs = [(one.loss, other.loss, scale.loss.abs().clamp(min=1e-3))]
    if gradients:
        for name in ("grad_boxes", "grad_scores"):
            size = getattr(scale, name).abs().max().clamp(min=1e-6) if getattr(scale, name).numel() else torch.ones(())
            pairs.append((getattr(one, name), getattr(other, name), size))
    gaps = [float(((a - b).abs() / size).nan_to_num(torch.inf).max()) for a, b, size in pairs if a.numel()]
    return max(gaps, default=0.0)


def _factors(found: Outcome, truth: Outcome, seen: float) -> Iterator[str]:
    """What terms that are off by a factor, their gradients too, have in common."""
    factor = found.loss / truth.loss
    off = [k for k in range(3) if float(truth.loss[k]) and abs(float(factor[k]) - 1) > seen]
    ranges = [float(factor[k]) for k in off]
    if not off or not all(torch.isfinite(factor[k]) for k in off):
        return
    if len(off) == int((truth.loss != 0).sum()) and max(ranges) - min(ranges) <= seen * abs(ranges[0]) and len(off) > 1:
        yield f"another normaliser: all terms are × {ranges[0]:.6g} [7]"
    elif len(off) == 1:
        only = ("box", "classification", "third")[off[0]]
        yield f"a fault of the {only} term alone: everything before it agrees, or the other terms would differ too [7]"
