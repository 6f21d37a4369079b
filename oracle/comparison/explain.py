"""Describes where a contender differs, and which fault explains it, from its loss and gradients alone.

The pattern of a difference lists terms, anchors, levels, classes and images. Then wrong definitions
(:mod:`oracle.comparison.wrong_definitions`) are run on the case, in float64 if the contender accepts it. A wrong definition that gives the
contender's numbers is named, with the number of other differing batches that it explains too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from oracle.comparison.trial import Trial
from oracle.comparison.wrong_definitions import wrong_definitions
from oracle.contract.calls import ContenderFailed
from oracle.contract.contender import Contender, Criterion
from oracle.contract.run import Outcome, run_loss
from oracle.contract.verdict import Finding
from oracle.judge.term_factors import term_factors
from oracle.judge.truth import DefinitionAnswers

LARGEST_REMAINDER = 0.02
"""Largest share of the difference that a wrong definition may leave unexplained to be named as a partial explanation."""

ROUNDING = {"float64": 1e-10, "float32": 1e-5}
"""Differences that count as rounding, relative to the largest number of their kind, by dtype; other dtypes are not explained."""

LEAST_DIFFERENCE = 100.0
"""Smallest difference that is explained, in units of :data:`ROUNDING`."""

MOST_OTHERS = 4
"""Largest number of other differing batches on which a wrong definition is tried."""

Note = tuple[str, str]


class _Answered(NamedTuple):
    """The answers of a contender and of the definition on a case."""

    found: Outcome
    truth: Outcome
    definition: DefinitionAnswers
    exact: float

    @property
    def distance(self) -> float:
        return _distance(self.found, self.truth, self.truth)


def explain(
    case: Case, setting: Setting, contender: Contender, findings: Sequence[Finding], others: Sequence[tuple[Case, Setting]] = ()
) -> list[Note]:
    """Returns notes for findings: which terms, anchors, levels, classes and images differ, and which fault explains it.

    Args:
        case, setting: a batch on which the contender differs.
        contender: the contender.
        findings: its findings on that batch.
        others: further batches on which it differs, with their settings.

    Returns:
        Pairs of label and text; none if the contender gives no loss, or if its loss and gradients agree.
    """
    wrong = {finding.quantity for finding in findings if finding.stage == "loss"}
    if not any(quantity == "loss" or quantity.startswith("gradient of ") for quantity in wrong):
        return []
    definition = DefinitionAnswers(case, setting)
    try:
        trial = Trial(contender, definition, definition.inputs if setting.device == "cpu" else build(case, setting))
        notes = [("pattern", line) for line in _pattern(trial.outcome().on_host(), trial, wrong)]
    except ContenderFailed:
        return []
    return notes + list(_explanations(case, setting, contender, others))


def _pattern(found: Outcome, trial: Trial, wrong: set[str]) -> Iterator[str]:
    standard, layout, spec = trial.standard(), trial.definition.layout, trial.definition.case.spec
    truth, tolerance, held = standard.truth, standard.tolerance, standard.assignment
    right_boxes, right_scores = truth.gradients["boxes"], truth.gradients["scores"]
    loss_off = "loss" in wrong
    yield ", ".join(
        f"{name} {_relative(float(value), float(right)) if loss_off and not abs(float(value - right)) <= float(slack) else 'agrees'}"
        for name, value, right, slack in zip(spec.term_names, found.loss, truth.loss, tolerance.loss, strict=True)
    )
    slack, middle, bounds = torch.zeros_like(right_boxes), right_boxes.clone(), tolerance.boxes
    slack[held.image, :, held.anchor] = bounds.rounding + (bounds.below + bounds.above) / 2
    middle[held.image, :, held.anchor] += (bounds.above - bounds.below) / 2  # of the interval at a kink
    boxes = _beyond(found.gradients["boxes"], middle, slack, there="gradient of boxes" in wrong)
    slack = (standard.scores.abs() * tolerance.score_per_logit + tolerance.score_share) * truth.gradients[
        "scores"
    ].abs() + tolerance.smallest
    slack[held.image, standard.label, held.anchor] = tolerance.held_score
    scores = _beyond(found.gradients["scores"], right_scores, slack, there="gradient of scores" in wrong)
    holds = torch.zeros(right_scores.shape[0], right_scores.shape[2], dtype=torch.bool)
    holds[held.image, held.anchor] = True
    for name, mask in (("boxes", boxes), ("scores", scores)):
        yield f"gradient of {name}: {_places(mask.any(1), holds, [part.stop for part in layout.slices])}"
    per_class = scores.any(2).any(0)
    if scores.any() and len(per_class) > 1:
        yield f"gradient of scores, classes: {_members(per_class)}"


def _relative(value: float, right: float) -> str:
    """Describes a wrong number by its factor, or by its relative difference if the factor would round to 1."""
    if not right:
        return f"is {value:.3g}, not 0"
    factor = value / right
    return f"off by {factor - 1:+.2g} of it" if abs(factor - 1) < 1e-4 else f"× {factor:.6g}"


def _beyond(value: Tensor, right: Tensor, slack: Tensor, *, there: bool) -> Tensor:
    """Returns a mask of the elements whose error exceeds the tolerance; all false if the judge found no difference."""
    return ~((value - right).abs() <= slack) if there else torch.zeros_like(value, dtype=torch.bool)


def _places(differs: Tensor, holds: Tensor, ends: list[int]) -> str:
    """Describes how many anchors (B, A) differ, assigned and not, and on which levels and images."""
    if not differs.any():
        return "agrees"
    parts = [f"differs at {int((differs & holds).sum())} of {int(holds.sum())} assigned anchors, {int((differs & ~holds).sum())} others"]
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
    asked = _answered(case, setting, contender)
    if asked is None:
        return
    distance = asked.distance
    if distance <= LEAST_DIFFERENCE * asked.exact:
        return
    more = list(filter(None, (_answered(*other, contender) for other in others[:MOST_OTHERS])))
    more = [other for other in more if other.distance > LEAST_DIFFERENCE * other.exact]
    named, partly = [], []
    for fault, criterion in wrong_definitions(case.spec, asked.definition.flow):
        gap = _distance_from(asked, criterion)
        if gap <= asked.exact:
            named.append((fault, sum(_explains(other, fault) for other in more)))
        elif gap <= LARGEST_REMAINDER * distance:
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


def _answered(case: Case, setting: Setting, contender: Contender) -> _Answered | None:
    """Runs the contender on a case in float64, or in float32 if it declines float64 and the setting is float32; else returns ``None``."""
    for asked in dict.fromkeys((Setting("float64", device=setting.device), setting)):
        if asked.dtype not in ROUNDING or asked.autocast is not None:
            continue
        definition = DefinitionAnswers(case, asked)
        inputs = definition.inputs if asked.device == "cpu" else build(case, asked)
        if contender.declines is not None and contender.declines(case.spec, inputs, asked):
            continue
        try:
            trial = Trial(contender, definition, inputs)
            return _Answered(trial.outcome().on_host(), trial.standard().truth, definition, ROUNDING[asked.dtype])
        except ContenderFailed:
            continue
    return None


def _distance_from(asked: _Answered, criterion: Criterion) -> float:
    """Returns the distance of the contender's answer from another criterion's."""
    definition = asked.definition
    found = run_loss(criterion, definition.inputs, Setting("float64"), terms=definition.case.spec.terms, flow=definition.flow)
    return _distance(asked.found, found, asked.truth)


def _explains(asked: _Answered, fault: str) -> bool:
    """Whether the wrong definition of this name, or one of the same kind for another spec, gives the contender's numbers."""
    kind = fault.partition(" = ")[0]
    wrong = wrong_definitions(asked.definition.case.spec, asked.definition.flow)
    alike = (criterion for name, criterion in wrong if name.partition(" = ")[0] == kind)
    return any(_distance_from(asked, criterion) <= asked.exact for criterion in alike)


def _distance(one: Outcome, other: Outcome, scale: Outcome) -> float:
    """Returns the largest difference of two outcomes, relative to the largest number of each kind."""
    pairs = [(one.loss, other.loss, scale.loss.abs().clamp(min=1e-3))]
    for name, right in scale.gradients.items():
        size = right.abs().max().clamp(min=1e-6) if right.numel() else torch.ones(())
        pairs.append((one.gradients[name], other.gradients[name], size))
    gaps = [float(((a - b).abs() / size).nan_to_num(torch.inf).max()) for a, b, size in pairs if a.numel()]
    return max(gaps, default=0.0)
