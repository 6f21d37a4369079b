"""Where a contender differs, and what fault that looks like: read off its loss and gradients alone.

A difference is described by its pattern, which terms, which anchors, which levels, classes and images; then wrong definitions
(:mod:`oracle.comparison.wrong_definitions`) are run on the case, in float64 where the contender can be asked in it. One is named when it
says what the contender says, and with how many of the other batches on which the contender differs it explains as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from oracle.cases.case import Case, Setting
from oracle.comparison.trial import Trial
from oracle.comparison.wrong_definitions import suspects
from oracle.contract.calls import ContenderFailed
from oracle.contract.contender import Contender, Criterion
from oracle.contract.run import Outcome, run_loss
from oracle.contract.verdict import Finding
from oracle.judge.term_factors import term_factors
from oracle.judge.truth import DefinitionAnswers

NEARLY = 0.02
"""A suspect that leaves this share of the difference, or less, is named with what it leaves."""

EXACT = {"float64": 1e-10, "float32": 1e-5}
"""Differences, relative to the largest number of their kind, that are taken for rounding: elsewhere nothing is explained."""

TELLING = 100.0
"""How many times that a difference has to be for its cause to be told."""

OTHERS = 4
"""More batches that a suspect has to explain, as far as there are so many."""

Note = tuple[str, str]


class _Asked(NamedTuple):
    """A contender's answer to a case, and the definition's."""

    found: Outcome
    truth: Outcome
    definition: DefinitionAnswers
    exact: float

    @property
    def distance(self) -> float:
        return _distance(self.found, self.truth, self.truth)


def localise(
    case: Case, setting: Setting, contender: Contender, findings: Sequence[Finding], others: Sequence[tuple[Case, Setting]] = ()
) -> list[Note]:
    """What to add to findings: which terms, anchors, levels, classes and images differ, and which fault explains that.

    Args:
        case, setting: a batch on which the contender differs.
        contender: who differs.
        findings: what was found there.
        others: more such batches, with their settings.

    Returns:
        Pairs of a word and what it introduces; none where the contender gives no loss, or its loss and gradients agree in full.
    """
    wrong = {finding.quantity for finding in findings if finding.stage == "loss"}
    if not wrong & {"loss", "gradient of boxes", "gradient of scores"}:
        return []
    definition = DefinitionAnswers(case, setting)
    try:
        trial = Trial(contender, definition, definition.inputs if setting.device == "cpu" else case.build(setting))
        notes = [("pattern", line) for line in _pattern(trial.outcome().on_host(), trial, wrong)]
    except ContenderFailed:
        return []
    return notes + list(_explanations(case, setting, contender, others))


def _pattern(found: Outcome, trial: Trial, wrong: set[str]) -> Iterator[str]:
    standard, layout, spec = trial.standard(), trial.definition.layout, trial.definition.case.spec
    truth, tolerance, held = standard.truth, standard.tolerance, standard.assignment
    loss_off = "loss" in wrong
    yield ", ".join(
        f"{name} {_relative(float(value), float(right)) if loss_off and not abs(float(value - right)) <= float(slack) else 'agrees'}"
        for name, value, right, slack in zip(spec.term_names, found.loss, truth.loss, tolerance.loss, strict=True)
    )
    slack, middle, bounds = torch.zeros_like(truth.grad_boxes), truth.grad_boxes.clone(), tolerance.boxes
    slack[held.image, :, held.anchor] = bounds.rounding + (bounds.below + bounds.above) / 2
    middle[held.image, :, held.anchor] += (bounds.above - bounds.below) / 2  # of the interval at a kink
    boxes = _beyond(found.grad_boxes, middle, slack, there="gradient of boxes" in wrong)
    slack = (standard.scores.abs() * tolerance.score_per_logit + tolerance.score_share) * truth.grad_scores.abs() + tolerance.smallest
    slack[held.image, standard.label, held.anchor] = tolerance.held_score
    scores = _beyond(found.grad_scores, truth.grad_scores, slack, there="gradient of scores" in wrong)
    holds = torch.zeros(truth.grad_scores.shape[0], truth.grad_scores.shape[2], dtype=torch.bool)
    holds[held.image, held.anchor] = True
    for name, mask in (("boxes", boxes), ("scores", scores)):
        yield f"gradient of {name}: {_places(mask.any(1), holds, [part.stop for part in layout.slices])}"
    per_class = scores.any(2).any(0)
    if scores.any() and len(per_class) > 1:
        yield f"gradient of scores, classes: {_members(per_class)}"


def _relative(value: float, right: float) -> str:
    """How far a number is from what it should be: as a factor, or in digits where that would read 1."""
    if not right:
        return f"is {value:.3g}, not 0"
    factor = value / right
    return f"off by {factor - 1:+.2g} of it" if abs(factor - 1) < 1e-4 else f"× {factor:.6g}"


def _beyond(value: Tensor, right: Tensor, slack: Tensor, *, there: bool) -> Tensor:
    """Which elements are farther off than their rounding; none where the judge found no difference."""
    return ~((value - right).abs() <= slack) if there else torch.zeros_like(value, dtype=torch.bool)


def _places(differs: Tensor, holds: Tensor, ends: list[int]) -> str:
    """How many anchors (B, A) differ, held and not, by level and image."""
    if not differs.any():
        return "agrees"
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


def _explanations(case: Case, setting: Setting, contender: Contender, others: Sequence[tuple[Case, Setting]]) -> Iterator[Note]:
    asked = _ask(case, setting, contender)
    if asked is None:
        return
    distance = asked.distance
    if distance <= TELLING * asked.exact:
        return
    more = list(filter(None, (_ask(*other, contender) for other in others[:OTHERS])))
    more = [other for other in more if other.distance > TELLING * other.exact]
    named, partly = [], []
    for fault, criterion in suspects(case.spec):
        gap = _gap(asked, criterion)
        if gap <= asked.exact:
            named.append((fault, sum(_explains(other, fault) for other in more)))
        elif gap <= NEARLY * distance:
            partly.append((gap, fault))
    most = max((count for _, count in named), default=0)
    for fault, count in dict(one for one in named if one[1] == most).items():
        yield "looks like", f"{fault}: it explains the whole difference{_elsewhere(count, len(more))}"
    if not named and (mix := term_factors(asked.found, asked.truth, asked.definition, asked.exact)):
        yield "looks like", f"{mix}: it explains the whole difference, of this batch"
    elif not named:
        for gap, fault in sorted(partly)[:1]:
            yield "looks like", f"{fault}: it explains all but {100 * gap / distance:.2g} % of the difference, of this batch"


def _elsewhere(count: int, total: int) -> str:
    if not total:
        return ", of this batch"
    if total == 1:
        return ", here and on the other batch that differs" if count else ", here, but not on the other batch that differs"
    return f", here and on {count} of {total} other batches that differ"


def _ask(case: Case, setting: Setting, contender: Contender) -> _Asked | None:
    """The contender on a case: in float64 if it can, or else in float32 where the setting is that."""
    for asked in dict.fromkeys((Setting("float64", device=setting.device), setting)):
        if asked.dtype not in EXACT or asked.autocast is not None:
            continue
        definition = DefinitionAnswers(case, asked)
        inputs = definition.inputs if asked.device == "cpu" else case.build(asked)
        if contender.declines is not None and contender.declines(case.spec, inputs, asked):
            continue
        try:
            trial = Trial(contender, definition, inputs)
            return _Asked(trial.outcome().on_host(), trial.standard().truth, definition, EXACT[asked.dtype])
        except ContenderFailed:
            continue
    return None


def _gap(asked: _Asked, criterion: Criterion) -> float:
    """How far the contender is from another criterion."""
    return _distance(asked.found, run_loss(criterion, asked.definition.inputs, Setting("float64")), asked.truth)


def _explains(asked: _Asked, fault: str) -> bool:
    """Whether the suspect of this name, or what stands for it in another definition, says what the contender says."""
    kind = fault.partition(" = ")[0]
    alike = (criterion for name, criterion in suspects(asked.definition.case.spec) if name.partition(" = ")[0] == kind)
    return any(_gap(asked, criterion) <= asked.exact for criterion in alike)


def _distance(one: Outcome, other: Outcome, scale: Outcome) -> float:
    """The largest difference of two outcomes, each number by the size of its kind."""
    pairs = [(one.loss, other.loss, scale.loss.abs().clamp(min=1e-3))]
    for name in ("grad_boxes", "grad_scores"):
        size = getattr(scale, name).abs().max().clamp(min=1e-6) if getattr(scale, name).numel() else torch.ones(())
        pairs.append((getattr(one, name), getattr(other, name), size))
    gaps = [float(((a - b).abs() / size).nan_to_num(torch.inf).max()) for a, b, size in pairs if a.numel()]
    return max(gaps, default=0.0)
