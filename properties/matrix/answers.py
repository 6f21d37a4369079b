"""Asks the implementation of a column: its answers to the batches of every feature, in half precision, and its conduct."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from oracle.comparison.conduct import judge_conduct, why_declined
from oracle.comparison.recorded_answers import ROUNDING, RecordedAnswer, Ties
from oracle.contract.answer_form import read_attribute
from oracle.contract.calls import HANGS, RAISES, ContenderFailed, call_contender
from oracle.contract.contender import Contender
from oracle.contract.run import make_criterion, run_loss
from oracle.contract.verdict import Finding, Verdict
from properties.matrix.features import FEATURES, Feature
from twinloss import LossSpec

HALVES = (Setting("float16"), Setting("bfloat16"), Setting("float32", "bfloat16"))
PRECISE = (Setting("float64"), Setting("float32"))
HALF_ROUNDING = {"float16": 0.02, "bfloat16": 0.1, "float32": 0.1}
"""Relative difference of a term that counts as rounding, by the dtype of the logits; float32 is that under autocast to bfloat16."""


@dataclass(frozen=True)
class Reply:
    """What became of one batch.

    Attributes:
        case, setting: the batch.
        answer: the recorded answer, or ``None``.
        declined: why the implementation is not made for it, or empty.
        failed: how it failed, or empty.
    """

    case: Case
    setting: Setting
    answer: RecordedAnswer | None = None
    declined: str = ""
    failed: str = ""


def ask(contender: Contender, case: Case, setting: Setting) -> Reply:
    """Returns the contender's answer to a batch in a setting, or why there is none."""
    try:
        inputs = build(case, setting)
        if reason := why_declined(contender, case.spec, inputs, setting):
            return Reply(case, setting, declined=reason)
        criterion = call_contender(contender, lambda: make_criterion(contender, case.spec, setting)).answer
        outcome = call_contender(contender, lambda: run_loss(criterion, inputs, setting)).answer
    except ContenderFailed as failure:
        return Reply(case, setting, failed=failure.what)
    ties: Ties = "stable" if read_attribute(criterion, "ties", "reference") == "stable" else "reference"
    return Reply(case, setting, RecordedAnswer(case, outcome, setting.dtype, ties))  # type: ignore[arg-type]


def ask_precisely(contender: Contender, case: Case) -> Reply:
    """Returns the answer in float64, or in float32 where the contender declines that or fails."""
    first = ask(contender, case, PRECISE[0])
    if first.answer is not None:
        return first
    second = ask(contender, case, PRECISE[1])
    return second if second.answer is not None or first.declined else first


def usual_definition(contender: Contender) -> LossSpec:
    """Returns the definition with which a column is asked: R = 16, or 1 for an implementation without a distribution."""
    specs = [LossSpec(num_classes=3, reg_max=bins) for bins in (16, 1)]
    case = FEATURES[0].cases(specs[0])[0]
    return specs[1] if ask_precisely(contender, case).declined else specs[0]


def replies(contender: Contender, spec: LossSpec) -> dict[Feature, list[Reply]]:
    """Returns the replies to the batches of every feature."""
    return {feature: [ask_precisely(contender, case) for case in feature.cases(spec)] for feature in FEATURES}


def half_replies(contender: Contender, spec: LossSpec) -> list[Reply]:
    """Returns the replies in half precision and under autocast."""
    cases = next(feature for feature in FEATURES if feature.name == "soft targets").cases(spec)
    return [ask(contender, case, setting) for setting in HALVES for case in cases]


def conduct(contender: Contender, spec: LossSpec) -> Iterator[Finding]:
    """Yields the failures of conduct on some batches, in float32."""
    chosen = [feature.cases(spec)[0] for feature in FEATURES if feature.name in ("conflicts", "tiny boxes", "empty images")]
    for case in chosen:
        inputs, setting = build(case, PRECISE[1]), PRECISE[1]
        if why_declined(contender, case.spec, inputs, setting):
            continue
        for judgement in judge_conduct(contender, case, inputs, setting, finite=lambda: True):
            if judgement.verdict is Verdict.DIFFER and judgement.finding is not None:
                yield judgement.finding


__all__ = ["HALF_ROUNDING", "HANGS", "RAISES", "ROUNDING", "Reply", "ask", "conduct", "half_replies", "replies", "usual_definition"]
