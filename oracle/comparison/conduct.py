"""Failures and side effects of a contender, which would disturb a training: each failure mode is a quantity with its own verdict.

A criterion is called four times: twice on the case, on another batch, and on the case again; a second criterion is called on that other
batch. Changes of the process state are read around each call (:mod:`oracle.inside.process_state`). On the CPU repeated answers must have
the same bits. On other devices the order of atomic additions varies: the tolerance is :data:`RELATIVE_DRIFT` of the largest number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Case, Inputs, Setting
from oracle.cases.tasks import task_of
from oracle.contract.answer_form import (
    WORDS,
    WRONG_ATTRIBUTE,
    WRONG_DTYPE,
    WRONG_SHAPE,
    WRONG_TENSOR,
    MalformedError,
    describe,
    loss_and_items,
    type_name,
)
from oracle.contract.calls import HANGS, RAISES, CallResult, ContenderFailed, call_contender
from oracle.contract.contender import Contender, Criterion
from oracle.contract.run import DETECTION_TERMS, fresh_leaves, gradients, in_setting, leaves_of, make_criterion
from oracle.contract.verdict import Finding, Judgement, Verdict, differs, not_compared
from oracle.inside.process_state import PROCESS, RANDOM, SETTINGS
from oracle.isolated.candidate_process import ENDS
from oracle.tools.printable import printable
from twinloss import LossSpec

STAGE = "conduct"
WARNINGS = "warnings"
"""Quantity of the warnings of a contender's code, which are reported and no failure mode."""

MODES = {
    RAISES: "it raised instead of answering",
    HANGS: "it did not answer in time",
    ENDS: "its process ended, or it closed the streams to the judge",
    WRONG_ATTRIBUTE: "an attribute of its factory or criterion cannot be read, or violates the contract",
    WRONG_SHAPE: "its answer is not (loss with one entry per term, items by name)",
    WRONG_DTYPE: "its loss is neither float32 nor float64, or its items are no numbers",
    WRONG_TENSOR: "its loss or a gradient is a tensor subclass, sparse, or on another device than the logits",
    "not finite": "its loss or a gradient is not a finite number where the definition's is",
    "mutates inputs": "it changed its inputs",
    SETTINGS: "it left torch with other global settings",
    RANDOM: "it left a generator of random numbers, torch's, numpy's or Python's, in another state",
    PROCESS: "it left the process changed: its folder, environment, warning filters, signal handlers, logging and the like",
    "keeps state": "the same call on the same batch gave another answer",
    "depends on history": "its answer depends on earlier batches",
}
"""Meaning of each failure mode by name. The last two need further calls, and are not checked on large batches."""

REPEATED_UP_TO = 4_000_000
"""Largest number of logits of a batch for which the calls are repeated."""

RELATIVE_DRIFT = 1e-4


@dataclass(frozen=True)
class Answer:
    """Answer of one call: the loss, the items, the gradients of the loss's sum; and the change of the inputs as text."""

    loss: Tensor
    items: Mapping[str, float]
    gradients: Mapping[str, Tensor | None]
    mutated: str

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All numbers of the answer, by name."""
        named = {f"gradient of {name}": gradient for name, gradient in self.gradients.items() if gradient is not None}
        items = torch.tensor([self.items[name] for name in sorted(self.items)], dtype=torch.float64)
        return {"loss": self.loss, "items": items, **named}


def judge_conduct(contender: Contender, case: Case, inputs: Inputs, setting: Setting, *, finite: Callable[[], bool]) -> Iterator[Judgement]:
    """Yields a judgement for each of :data:`MODES`.

    Args:
        contender: the contender to call.
        case: the batch.
        inputs: the tensors of the case in its setting.
        setting: dtype, autocast and device.
        finite: returns whether all numbers of the reference are finite here; called only if a number of the contender is not.
    """
    try:
        found = dict(_observe(contender, case, inputs, setting, finite))
    except ContenderFailed as failure:
        # A call that failed shows nothing about the other modes.
        unknown = f"not known, since it {failure.mode if failure.mode in (RAISES, HANGS) else 'has a ' + failure.mode}"
        found = {failure.mode: failure.what}
        yield from (_verdict(mode, found) if mode in found else not_compared(STAGE, unknown, mode) for mode in MODES)
        return
    repeated = _may_repeat(inputs)
    yield from (_verdict(mode, found) for mode in MODES if repeated or mode not in ("keeps state", "depends on history"))


def _verdict(mode: str, found: Mapping[str, str]) -> Judgement:
    return differs(Finding(STAGE, mode, found[mode])) if mode in found else Judgement(STAGE, mode, Verdict.AGREE)


def _may_repeat(inputs: Inputs) -> bool:
    return sum(leaf.numel() for leaf in leaves_of(inputs.preds).values()) <= REPEATED_UP_TO


def _observe(contender: Contender, case: Case, inputs: Inputs, setting: Setting, finite: Callable[[], bool]) -> Iterator[tuple[str, str]]:
    criterion = _make(contender, case, setting)
    first, changed = call_once(contender, criterion, inputs, setting, case.spec.terms)
    if first.mutated:
        yield "mutates inputs", first.mutated
    if (wrong := _not_finite(first)) and not _overflows(contender, setting) and finite():
        yield "not finite", wrong
    if _may_repeat(inputs):
        again, changed_again = call_once(contender, criterion, inputs, setting, case.spec.terms)
        changed = changed_again | changed
        yield from changed.items()
        if gap := difference(first, again):
            yield "keeps state", f"the second call on the same batch gave another {gap}"
        else:
            yield from _history(contender, criterion, first, case, inputs, setting)
    else:
        yield from changed.items()


def _overflows(contender: Contender, setting: Setting) -> bool:
    """Whether sums in float16 may overflow; the judge of the loss then decides whether that is allowed."""
    return contender.arithmetic == "logits" and "float16" in (setting.dtype, setting.autocast)


def _not_finite(answer: Answer) -> str:
    for name, tensor in answer.tensors.items():
        if wrong := int((~tensor.isfinite()).sum()):
            return f"{wrong} of {tensor.numel()} numbers of its {name} are not finite"
    return ""


def _history(
    contender: Contender, criterion: Criterion, first: Answer, case: Case, inputs: Inputs, setting: Setting
) -> Iterator[tuple[str, str]]:
    """Yields a failure if the answers of a criterion depend on earlier calls."""
    other = another_batch(case)
    other_inputs = build(other, setting)
    if why_declined(contender, other.spec, other_inputs, setting):
        return
    between, _ = call_once(contender, criterion, other_inputs, setting, case.spec.terms)
    after, _ = call_once(contender, criterion, inputs, setting, case.spec.terms)
    if gap := difference(first, after):
        yield "depends on history", f"after another batch, of {_size(other)}, this one, of {_size(case)}, gave another {gap}"
        return
    alone, _ = call_once(contender, _make(contender, other, setting), other_inputs, setting, case.spec.terms)
    if gap := difference(alone, between):
        yield (
            "depends on history",
            f"after one of {_size(case)}, a batch of {_size(other)} gave another {gap}, compared with a new criterion",
        )


def another_batch(case: Case) -> Case:
    """Returns a batch of the same definition with other logits, fewer boxes in another order, and another image size."""
    height, width = case.image_size
    shape = (width, height) if height != width else (height, width + case.spec.strides[-1])
    seed = dataclasses.replace(case.prediction, seed=case.prediction.seed + 1)
    if case.prediction.kind == "inline":
        seed = dataclasses.replace(seed, kind="random", inline=None)
    kept = range(len(case.boxes))[::-1][: max(1, len(case.boxes) // 2)]
    order = sorted(kept, key=lambda index: case.boxes[index].image)
    boxes = [case.boxes[index] for index in order]
    extras = {name: tuple(column[index] for index in order) for name, column in case.extras.items()}
    return dataclasses.replace(case, image_size=shape, boxes=tuple(boxes), prediction=seed, tags=(), extras=extras)


def _size(case: Case) -> str:
    return f"{case.image_size[0]} × {case.image_size[1]} px"


def why_declined(contender: Contender, spec: LossSpec, inputs: Inputs, setting: Setting) -> str | None:
    """Returns the reason why a contender declines a batch, or ``None``.

    Raises:
        ContenderFailed: its ``declines`` raised, took too long, or returned neither text nor ``None``.
    """
    declines = contender.declines
    if declines is None:
        return None

    def ask() -> str | None:
        found = declines(spec, fresh_leaves(None, inputs) if contender.is_candidate else inputs, setting)
        if found is None or isinstance(found, str):
            return found and printable(found)
        raise MalformedError(f"its `declines` gave {describe(found)}; it must return a sentence with the reason, or None", WRONG_ATTRIBUTE)

    try:
        return call_contender(contender, ask).answer
    except ContenderFailed as failure:
        if failure.mode != RAISES:
            raise
        raise ContenderFailed(WRONG_ATTRIBUTE, f"its `declines` {failure.what}") from failure


def _make(contender: Contender, case: Case, setting: Setting) -> Criterion:
    try:
        flow = task_of(case).flow(case)
        return call_contender(contender, lambda: make_criterion(contender, case.spec, setting, flow)).answer
    except ContenderFailed as failure:
        subject = "the factory " if failure.mode in (RAISES, HANGS) else ""
        raise ContenderFailed(failure.mode, f"{subject}{failure.what}") from failure


def call_once(
    contender: Contender, criterion: Criterion, inputs: Inputs, setting: Setting, terms: Sequence[str] = DETECTION_TERMS
) -> tuple[Answer, dict[str, str]]:
    """Calls a criterion on copies of the inputs; returns its answer, and the changes of the process state by mode.

    Raises:
        ContenderFailed: the call raised, took too long, or returned an answer that violates the contract.
    """

    def ask() -> Answer:
        given, kept = fresh_leaves(criterion, inputs), fresh_leaves(criterion, inputs)
        leaves = leaves_of(given.preds)
        # Separate containers for the contender: changes of their keys are found below.
        preds, batch = {**given.preds, "feats": list(given.preds["feats"])}, dict(given.batch)
        with in_setting(setting, criterion):
            answer: Any = criterion(preds, batch)
        loss, items = loss_and_items(answer, given.preds["boxes"].device, terms)
        if loss.dtype not in (torch.float32, torch.float64):
            raise MalformedError(f"the loss is {loss.dtype}; it must be float32 or float64", WRONG_DTYPE)
        found = gradients(loss, leaves)
        return Answer(loss.detach(), items, found, _mutated(Inputs(preds, batch), kept))

    try:
        found: CallResult[Answer] = call_contender(contender, ask)
    except ContenderFailed as failure:
        if failure.mode != HANGS:
            raise
        raise ContenderFailed(
            HANGS, f"the call {failure.what}; if it compiles at its first call, allow more with --time-limit SECONDS"
        ) from failure
    return found.answer, found.changed


def _mutated(found: Inputs, kept: Inputs) -> str:
    """Describes how a call changed its inputs; empty if it did not."""
    for role, after, before in (("preds", found.preds, kept.preds), ("batch", found.batch, kept.batch)):
        if list(after) != list(before):
            return f"the keys of {role} were {', '.join(before)}; the call left {', '.join(_key(name) for name in after) or 'none'}"
        for name, value in before.items():
            now = after[name]
            if isinstance(value, Tensor):
                same = not _other_bits(now, value)
            else:
                same = type(now) is type(value) and len(now) == len(value) and not any(map(_other_bits, now, value))
            if not same:
                return f"the call changed {role}['{name}']"
    return ""


def _key(name: object) -> str:
    return printable(name) if isinstance(name, str) else f"one of type {type_name(name)}"


def _other_bits(found: Any, kept: Tensor) -> bool:
    same_form = type(found) is Tensor and found.shape == kept.shape and found.dtype == kept.dtype and found.device == kept.device
    return not same_form or not torch.equal(_bits(found), _bits(kept))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(WORDS[tensor.element_size()])


def difference(one: Answer, other: Answer) -> str:
    """Describes which numbers of two answers on the same batch differ, and by how much; empty if none does."""
    if one.tensors.keys() != other.tensors.keys():
        return "set of gradients"
    for name, value in one.tensors.items():
        found = other.tensors[name]
        if found.shape != value.shape or found.dtype != value.dtype:
            return f"{name}: {describe(found)} after {describe(value)}"
        if value.device.type == "cpu" and _other_bits(found, value):
            return f"{name}, off by up to {float((found.double() - value.double()).abs().max()):.3g}"
        if value.device.type != "cpu" and not torch.allclose(
            found, value, rtol=RELATIVE_DRIFT, atol=RELATIVE_DRIFT * _largest(value), equal_nan=True
        ):
            return f"{name}, off by up to {float((found.double() - value.double()).abs().max()):.3g}"
    return ""


def _largest(value: Tensor) -> float:
    return float(value.abs().max()) if value.numel() else 0.0
