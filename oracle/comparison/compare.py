"""One case through all contenders: the definition and the reference once, each contender after them, every stage judged."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from oracle.cases.build import build
from oracle.cases.case import Case, Inputs, Setting
from oracle.comparison.conduct import STAGE as CONDUCT
from oracle.comparison.conduct import WARNINGS, judge_conduct, why_declined
from oracle.comparison.trial import Trial
from oracle.contract.calls import HANGS, ContenderFailed, collected_warnings
from oracle.contract.contender import Contender
from oracle.contract.verdict import Finding, Judgement, Verdict, differs, not_compared, worst
from oracle.inference.assignment import InferredAssignment
from oracle.judge.indistinguishable import NO_ALTERNATIVES, TermBounds
from oracle.judge.truth import DefinitionAnswers
from oracle.judge.worst_elements import QuantityError, judge_quantity
from oracle.tolerance.assignment import IndexedAssignment

Answer = TypeVar("Answer")

STAGES = ("anchors", "targets", "decode", "candidates", "metrics", "assign", "loss_given", "loss")


@dataclass(frozen=True)
class ContenderResult:
    """The judgements on one contender for one case.

    Attributes:
        contender: the contender.
        judgements: one for each stage and quantity.
        seconds: time that the comparison took.
        replay: the command that repeats the comparison; empty if the case was not saved.
    """

    contender: Contender
    judgements: list[Judgement]
    seconds: float
    replay: str = ""

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict of the judgements."""
        return worst([j.verdict for j in self.judgements])

    @property
    def findings(self) -> list[Finding]:
        """The findings of the judgements that differ."""
        return [j.finding for j in self.judgements if j.finding is not None]


@dataclass(frozen=True)
class Comparison:
    """A case in a setting, with a result for each contender."""

    case: Case
    setting: Setting
    results: list[ContenderResult]

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict of the results."""
        return worst([result.verdict for result in self.results])

    def report(self) -> str:
        """Returns the findings as text, in the order of the stages, with the command that replays a saved case; empty if there is none."""
        lines = []
        for result in self.results:
            for finding in result.findings:
                lines += [f"{result.contender.name} on {self.case.digest} ({self.setting.name}, {self.setting.device})", *finding.lines()]
            if result.findings and result.replay:
                lines.append(f"  replay     {result.replay}")
        return "\n".join(lines)


def compare(
    case: Case,
    setting: Setting,
    contenders: Sequence[Contender],
    reference: Contender | None = None,
    stages: Sequence[str] = STAGES,
    around: Callable[[Contender], contextlib.AbstractContextManager[None]] = lambda _: contextlib.nullcontext(),
) -> Comparison:
    """Compares contenders with the definition on a case.

    Args:
        case: the batch.
        setting: dtype, autocast and device.
        contenders: the implementations to judge; the reference may be one of them.
        reference: its error widens the tolerance of the contenders; with ``None`` the tolerance is rounding alone.
        stages: names from :data:`STAGES`, and "conduct" for side effects and failures (:mod:`oracle.comparison.conduct`).
        around: returns a context in which the code of the given contender runs.

    Raises:
        JudgeError: the judge contradicts the definition.
    """
    definition = DefinitionAnswers(case, setting)
    inputs = definition.inputs if setting.device == "cpu" else build(case, setting)
    if not definition.finite:
        reason = "a logit is not a finite number in this dtype"
        return Comparison(case, setting, [ContenderResult(c, [not_compared(stage, reason) for stage in stages], 0.0) for c in contenders])
    control = _control(reference, definition, inputs)
    results = []
    for contender in contenders:
        start = time.perf_counter()
        trial = control if contender is reference and isinstance(control, Trial) else None
        with around(contender), collected_warnings() as warnings:
            judgements = list(_judge(contender, trial, control, definition, inputs, stages))
        judgements += _warnings(warnings)
        results.append(ContenderResult(contender, judgements, time.perf_counter() - start))
    return Comparison(case, setting, results)


def _control(reference: Contender | None, definition: DefinitionAnswers, inputs: Inputs) -> Trial | None:
    """The reference at work on the case, or ``None`` where it has nothing to say about it."""
    if reference is None:
        return None
    try:
        return None if why_declined(reference, definition.case.spec, inputs, definition.setting) else Trial(reference, definition, inputs)
    except ContenderFailed:
        return None


def _warnings(found: Mapping[str, int]) -> list[Judgement]:
    """Returns the judgement that lists the warnings of a candidate's code; a warning is no fault."""
    listed = "\n".join(f"{text}, {times} times" if times > 1 else text for text, times in found.items())
    return [Judgement(CONDUCT, WARNINGS, Verdict.AGREE, reason=listed)] if listed else []


def _judge(
    contender: Contender, trial: Trial | None, control: Trial | None, definition: DefinitionAnswers, inputs: Inputs, stages: Sequence[str]
) -> Iterable[Judgement]:
    try:
        reason = why_declined(contender, definition.case.spec, inputs, definition.setting)
    except ContenderFailed as failure:
        yield differs(Finding(CONDUCT, failure.mode, failure.what))
        reason = "whether it takes part is not known"
    if reason:
        yield from (not_compared(stage, reason) for stage in stages)
        return
    hangs = False
    if CONDUCT in stages:
        conduct = list(judge_conduct(contender, definition.case, inputs, definition.setting, finite=lambda: _finite(control)))
        yield from conduct
        hangs = _hangs(conduct)
    if not hangs:
        try:
            trial = trial or Trial(contender, definition, inputs)
        except ContenderFailed as failure:
            yield differs(Finding("factory", _quantity(failure), str(failure)))
            return
    for stage in stages:
        if stage != CONDUCT:
            found = [not_compared(stage, "it hangs")] if hangs or trial is None else list(_judge_stage(stage, trial, control))
            yield from found
            hangs = hangs or _hangs(found)


def _hangs(judgements: Sequence[Judgement]) -> bool:
    return any(j.finding is not None and j.quantity == HANGS for j in judgements)


def _quantity(failure: ContenderFailed) -> str:
    return HANGS if failure.mode == HANGS else "call"


def _finite(control: Trial | None) -> bool:
    """Whether all numbers of the reference are finite; true if the reference gives none."""
    outcome = _available(control, Trial.outcome)
    return outcome is None or all(bool(tensor.isfinite().all()) for tensor in (outcome.loss, *outcome.gradients.values()))


def _judge_stage(stage: str, trial: Trial, control: Trial | None) -> Iterable[Judgement]:
    try:
        yield from _JUDGES[stage](trial, control)
    except ContenderFailed as failure:
        yield differs(Finding(stage, _quantity(failure), str(failure)))


def _anchors(trial: Trial, control: Trial | None) -> Iterable[Judgement]:
    yield from _numbers("anchors", trial, control, Trial.anchors)


def _targets(trial: Trial, control: Trial | None) -> Iterable[Judgement]:
    if not trial.offers_stages:
        return
    yield trial.target_rows()
    yield from _numbers("targets", trial, control, Trial.target_corners)


def _decode(trial: Trial, control: Trial | None) -> Iterable[Judgement]:
    yield from _numbers("decode", trial, control, Trial.decode)


def _candidates(trial: Trial, _: Trial | None) -> Iterable[Judgement]:
    if trial.offers_stages:
        yield trial.candidates()


def _metrics(trial: Trial, control: Trial | None) -> Iterable[Judgement]:
    if not trial.offers_stages:
        return
    own = _available(control, Trial.metrics)
    for k, peaks in enumerate(trial.metrics()):
        yield judge_quantity("metrics", peaks, own[k] if own else None, widen=_same_arithmetic(trial, control))


def _assign(trial: Trial, control: Trial | None) -> Iterable[Judgement]:
    if not trial.offers_assignment:
        return
    own = _available(control, Trial.own_assignment)
    ruling = trial.ruling(own)
    for judgement in ruling.judgements:
        # Borders were counted with the candidates, where these were shown.
        counted = judgement.quantity == "border" and trial.offers_stages
        yield dataclasses.replace(judgement, decisions=0, open_decisions=0, ambiguous_decisions=0) if counted else judgement
    if ruling.usable:
        widest = _available(control, Trial.weights) if control is not None and own is not None and control.ruling().usable else None
        yield judge_quantity("assign", trial.weights(), widest, widen=_same_arithmetic(trial, control))


def _loss_given(trial: Trial, control: Trial | None) -> Iterable[Judgement]:
    if not trial.offers_assignment:
        return
    own = _available(control, Trial.given)
    found = trial.given()
    judgements = [
        judge_quantity("loss_given", error, own[name] if own else None, widen=_same_arithmetic(trial, control))
        for name, error in found.items()
    ]
    yield from (_complete(judgement, trial.missing_items(given=True)) for judgement in judgements)


def _loss(trial: Trial, control: Trial | None) -> Iterable[Judgement]:
    yield from _form(trial)
    own = _own_loss(control)
    if trial.offers_assignment:
        ruling = trial.ruling()
        held, ambiguous = (trial.own_assignment(), ruling.ambiguous) if ruling.ambiguous else (None, "")
    else:
        held, ambiguous = None, ""
    judgements = list(_judge_loss(trial, control, own, held, ambiguous))
    if _wrong(judgements):
        # Also for a contender that shows its assignment: in another call it may decide a tie differently.
        others = (list(_judge_inferred(trial, control, own, inferred)) for inferred in trial.inferred())
        judgements = next((other for other in others if not _wrong(other)), judgements)
    if _wrong(judgements) and not trial.offers_assignment and (count := trial.hidden_decisions):
        reason = f"it shows no assignment, and {count} decisions are open to rounding or ties"
        judgements = [dataclasses.replace(j, verdict=Verdict.AMBIGUOUS, reason=reason, finding=None) for j in judgements]
    yield from judgements


def _judge_inferred(
    trial: Trial, control: Trial | None, own: dict[str, QuantityError] | None, inferred: InferredAssignment
) -> Iterable[Judgement]:
    shown = inferred.assignment.key != trial.decided.held.key
    what = "show another assignment, one that the definition allows" if shown else "do not show its whole assignment"
    yield from _judge_loss(trial, control, own, inferred.assignment, f"its gradients {what}", inferred.bounds)


def _wrong(judgements: Sequence[Judgement]) -> bool:
    return worst([j.verdict for j in judgements]) is Verdict.DIFFER


def _form(trial: Trial) -> Iterable[Judgement]:
    """Yields a difference if the loss is neither float32 nor float64 [7], and one for each missing gradient that the definition has."""
    outcome = trial.outcome()
    if outcome.loss_dtype not in (torch.float32, torch.float64):
        yield differs(Finding("loss", "dtype", f"the loss is {outcome.loss_dtype}; it must be float32 or float64"))
    allowed = trial.standard().truth.missing if outcome.missing else ()
    for name in sorted(set(outcome.missing) - set(allowed)):
        what = f"the loss has no gradient with respect to {name}; return zeros if it does not depend on them"
        yield differs(Finding("loss", f"gradient of {name}", what))


def _judge_loss(
    trial: Trial,
    control: Trial | None,
    own: dict[str, QuantityError] | None,
    held: IndexedAssignment | None,
    ambiguous: str,
    alternatives: TermBounds = NO_ALTERNATIVES,
) -> Iterable[Judgement]:
    found, widen = trial.loss(held, alternatives), _same_arithmetic(trial, control)
    judgements = [
        judge_quantity("loss", error, own[name] if own else None, widen=widen, ambiguous=ambiguous) for name, error in found.items()
    ]
    yield from (_complete(judgement, trial.missing_items()) for judgement in judgements)


def _complete(judgement: Judgement, missing: str) -> Judgement:
    """Returns the judgement, or a difference if it concerns the items and some are missing."""
    if judgement.quantity != "items" or not missing:
        return judgement
    return differs(Finding(judgement.stage, "items", missing))


def _own_loss(control: Trial | None) -> dict[str, QuantityError] | None:
    """The reference's end-to-end error, on its own assignment where that is allowed."""
    if control is None:
        return None
    try:
        if not control.offers_assignment:
            answers = [control.loss(), *(control.loss(inferred.assignment) for inferred in control.inferred())]
            return min(answers, key=lambda found: max(peaks.worst_ratio for peaks in found.values()))
        ruling = control.ruling()
        return control.loss(control.own_assignment() if ruling.ambiguous else None) if ruling.usable else None
    except ContenderFailed:
        return None


def _numbers(stage: str, trial: Trial, control: Trial | None, measured: Callable[[Trial], QuantityError]) -> Iterable[Judgement]:
    if trial.offers_stages:
        yield judge_quantity(stage, measured(trial), _available(control, measured), widen=_same_arithmetic(trial, control))


def _available(control: Trial | None, measured: Callable[[Trial], Answer]) -> Answer | None:
    """Returns a measurement of the reference, or ``None`` if the reference does not offer it."""
    try:
        return measured(control) if control is not None else None
    except ContenderFailed:
        return None


def _same_arithmetic(trial: Trial, control: Trial | None) -> bool:
    """Whether the reference's error widens the contender's tolerance: it does not for a contender of a finer precision."""
    return control is not None and trial.arithmetic == control.arithmetic


_JUDGES: dict[str, Callable[[Trial, Trial | None], Iterable[Judgement]]] = {
    "anchors": _anchors,
    "targets": _targets,
    "decode": _decode,
    "candidates": _candidates,
    "metrics": _metrics,
    "assign": _assign,
    "loss_given": _loss_given,
    "loss": _loss,
}
