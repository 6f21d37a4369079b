"""Describes where a contender differs, and which fault explains it, from its loss and gradients alone.

The pattern of a difference lists terms, anchors, levels, classes and images. Then wrong definitions are run on this batch and others that
differ likewise (:mod:`oracle.comparison.explanations`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from oracle.comparison.explanations import USUAL, Explanation, Limits, explain_answers
from oracle.comparison.recorded_answers import AnsweredBatch, RecordedAnswer, record
from oracle.comparison.trial import Trial
from oracle.contract.calls import ContenderFailed
from oracle.contract.contender import Contender
from oracle.contract.run import Outcome
from oracle.contract.verdict import Finding
from oracle.judge.truth import DefinitionAnswers

MOST_OTHERS = 24
"""Largest number of other differing batches that are explained with the one that is shown."""

LIMITS = Limits(sample=2, failing=MOST_OTHERS + 1, depth=2, beam=2, seconds=20.0)
"""How long the search for an explanation of one kind of failure takes; that of the whole run takes longer."""

MOST_FAILED = 20
"""Number of batches in a row that a contender declines or fails on before it is asked no more."""

Note = tuple[str, str]


def explain(
    case: Case,
    setting: Setting,
    contender: Contender,
    findings: Sequence[Finding],
    others: Sequence[tuple[Case, Setting]] = (),
    known: list[Explanation] | None = None,
    limits: Limits = LIMITS,
) -> list[Note]:
    """Returns notes for findings: which terms, anchors, levels, classes and images differ, and which fault explains it.

    Args:
        case, setting: a batch on which the contender differs.
        contender: the contender.
        findings: its findings on that batch.
        others: further batches on which it differs, with their settings.
        known: explanations of other batches of this contender, which are tried first; one that is found is added.
        limits: how long to search.

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
    return notes + list(_explanation(case, setting, contender, others, [] if known is None else known, limits))


def explain_failures(
    contender: Contender,
    failing: Sequence[tuple[Case, Setting]],
    agreeing: Sequence[tuple[Case, Setting]] = (),
    limits: Limits = USUAL,
) -> Explanation:
    """Asks a contender again on the batches of a run, and explains all its differences at once.

    Args:
        contender: the contender.
        failing, agreeing: batches of one task on which it differed and agreed, with their settings.
        limits: how long to search.

    Returns:
        The explanation. Where every failing batch agrees with float64 logits, only the arithmetic of the settings differs.
    """
    again, others = _again(contender, failing[: limits.failing]), _again(contender, agreeing[: limits.agreeing])
    found = explain_answers([*again, *others], limits=limits)
    if found.failing or not again:
        return found
    settings = ", ".join(dict.fromkeys(setting.name for _, setting in failing))
    exact = sum(answer.dtype == "float64" for answer in again)
    if exact < len(again):
        return found
    text = f"only the arithmetic differs, in {settings}: with float64 logits the definition is right [8a]"
    return Explanation(arithmetic=text, explained=exact, failing=len(again), agreeing=len(others))


def _again(contender: Contender, batches: Sequence[tuple[Case, Setting]]) -> list[RecordedAnswer]:
    """Returns a contender's answers; it is not asked again after it has failed several times in a row."""
    answers: list[RecordedAnswer] = []
    failed = 0
    for case, setting in batches:
        answer = record(case, setting, contender)
        failed = failed + 1 if answer is None else 0
        if failed == MOST_FAILED:
            break
        answers += [] if answer is None else [answer]
    return answers


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


def _explanation(
    case: Case, setting: Setting, contender: Contender, others: Sequence[tuple[Case, Setting]], known: list[Explanation], limits: Limits
) -> Iterator[Note]:
    answers = [record(*one, contender) for one in ((case, setting), *others[:MOST_OTHERS])]
    if answers[0] is None or not AnsweredBatch(answers[0]).differs:
        return
    found = explain_answers(filter(None, answers), limits=limits, known=known)
    if found.named and found.explained == found.failing and not found.arithmetic:
        known.append(found)
    yield ("looks like" if found.named else "explained"), found.sentence()
