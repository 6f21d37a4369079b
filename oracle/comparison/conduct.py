"""How a contender behaves, whatever it computes: named verdicts for what a trainer would suffer from, each a quantity of its own.

A contender is called five times: on the case, on it again, on another batch, on the case once more; and afresh on that other batch.
What it leaves changed in the process is read around each call (:mod:`oracle.contract.process_state`).
On the CPU the answers to the same question must be the same bits. Elsewhere atomic additions come in any order, and :data:`DRIFT` of
the largest number is granted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oracle.cases.case import Case, Inputs, Setting
from oracle.contract.answer_form import WRONG_ATTRIBUTE, WRONG_DTYPE, WRONG_SHAPE, WRONG_TENSOR, MalformedError, kind, shown, whole_loss
from oracle.contract.calls import HANGS, RAISES, Called, ContenderFailed, called
from oracle.contract.contender import Contender, Criterion
from oracle.contract.process_state import PROCESS, RANDOM, SETTINGS
from oracle.contract.run import fresh, gradients, make_criterion, within
from oracle.contract.verdict import Finding, Judgement, Verdict, differs, not_compared
from oracle.tools.printable import plain
from twinloss import LossSpec

STAGE = "conduct"
WARNINGS = "warnings"
"""Quantity of what a contender's code warned of, which is told and no failure mode."""

MODES = {
    RAISES: "it raised instead of answering",
    HANGS: "it did not answer in time",
    WRONG_ATTRIBUTE: "an attribute of its factory or criterion cannot be read, or is not what the contract says",
    WRONG_SHAPE: "its answer is not (loss (3,), items by name)",
    WRONG_DTYPE: "its loss is neither float32 nor float64, or its items are no numbers",
    WRONG_TENSOR: "its loss or a gradient is a tensor subclass, sparse, or on another device than the logits",
    "not finite": "its loss or a gradient is not a finite number where the definition's is",
    "mutates inputs": "it changed what it was given",
    SETTINGS: "it left torch with other global settings",
    RANDOM: "it left a generator of random numbers, torch's, numpy's or Python's, in another state",
    PROCESS: "it left the process changed: its folder, environment, warning filters, signal handlers, logging and the like",
    "keeps state": "the same call on the same batch gave another answer",
    "depends on history": "its answer depends on the batches that it saw before",
}
"""Name of each failure mode, and what it means. The last two need further calls, and are left out of large batches."""

REPEATED_UP_TO = 4_000_000
"""Logits of a batch up to which the calls are repeated."""

DRIFT = 1e-4


@dataclass(frozen=True)
class Answer:
    """What one call gave: the loss, the items, the gradients of its sum; and what it did to its inputs."""

    loss: Tensor
    items: Mapping[str, float]
    gradients: tuple[Tensor | None, ...]
    mutated: str

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All numbers by name."""
        named = {f"gradient of {name}": g for name, g in zip(("boxes", "scores"), self.gradients, strict=True) if g is not None}
        items = torch.tensor([self.items[name] for name in sorted(self.items)], dtype=torch.float64)
        return {"loss": self.loss, "items": items, **named}


def judge_conduct(contender: Contender, case: Case, inputs: Inputs, setting: Setting, *, finite: Callable[[], bool]) -> Iterator[Judgement]:
    """A judgement for each of :data:`MODES`.

    Args:
        contender: who is called.
        case: the batch.
        inputs: the case as built for its setting.
        setting: dtype, autocast and device.
        finite: asked only when a number of the contender's is not: whether the reference's own numbers are all finite here.
    """
    try:
        found = dict(_observe(contender, case, inputs, setting, finite))
    except ContenderFailed as failure:
        # What the call did not live to show is not known.
        unknown = f"not known, since it {failure.mode if failure.mode in (RAISES, HANGS) else 'has a ' + failure.mode}"
        found = {failure.mode: failure.what}
        yield from (_verdict(mode, found) if mode in found else not_compared(STAGE, unknown, mode) for mode in MODES)
        return
    repeated = _repeats(inputs)
    yield from (_verdict(mode, found) for mode in MODES if repeated or mode not in ("keeps state", "depends on history"))


def _verdict(mode: str, found: Mapping[str, str]) -> Judgement:
    return differs(Finding(STAGE, mode, found[mode])) if mode in found else Judgement(STAGE, mode, Verdict.AGREE)


def _repeats(inputs: Inputs) -> bool:
    return sum(int(inputs.preds[name].numel()) for name in ("boxes", "scores")) <= REPEATED_UP_TO


def _observe(contender: Contender, case: Case, inputs: Inputs, setting: Setting, finite: Callable[[], bool]) -> Iterator[tuple[str, str]]:
    criterion = _make(contender, case, setting)
    first, changed = call(contender, criterion, inputs, setting)
    if first.mutated:
        yield "mutates inputs", first.mutated
    if (wrong := _not_finite(first)) and not _overflows(contender, setting) and finite():
        yield "not finite", wrong
    if _repeats(inputs):
        again, changed_again = call(contender, criterion, inputs, setting)
        changed = changed_again | changed
        yield from changed.items()
        if gap := _gap(first, again):
            yield "keeps state", f"the second call on the same batch gave another {gap}"
        else:
            yield from _memory(contender, criterion, first, case, inputs, setting)
    else:
        yield from changed.items()


def _overflows(contender: Contender, setting: Setting) -> bool:
    """Whether sums in float16 may overflow: the judge of the numbers decides about those."""
    return contender.arithmetic == "logits" and "float16" in (setting.dtype, setting.autocast)


def _not_finite(answer: Answer) -> str:
    for name, tensor in answer.tensors.items():
        if wrong := int((~tensor.isfinite()).sum()):
            return f"{wrong} of {tensor.numel()} numbers of its {name} are not finite"
    return ""


def _memory(
    contender: Contender, criterion: Criterion, first: Answer, case: Case, inputs: Inputs, setting: Setting
) -> Iterator[tuple[str, str]]:
    """What a criterion remembers of earlier calls, by the answers that this changes."""
    other = another(case)
    other_inputs = other.build(setting)
    if declined(contender, other.spec, other_inputs, setting):
        return
    between, _ = call(contender, criterion, other_inputs, setting)
    after, _ = call(contender, criterion, inputs, setting)
    if gap := _gap(first, after):
        yield "depends on history", f"after another batch, of {_size(other)}, this one, of {_size(case)}, gave another {gap}"
        return
    alone, _ = call(contender, _make(contender, other, setting), other_inputs, setting)
    if gap := _gap(alone, between):
        yield "depends on history", f"after one of {_size(case)}, a batch of {_size(other)} gave another {gap}, than by itself"


def another(case: Case) -> Case:
    """A batch of the same definition: other logits, boxes in another order and fewer of them, and an image of another shape."""
    height, width = case.image_size
    shape = (width, height) if height != width else (height, width + case.spec.strides[-1])
    seed = dataclasses.replace(case.prediction, seed=case.prediction.seed + 1)
    if case.prediction.kind == "inline":
        seed = dataclasses.replace(seed, kind="random", inline=None)
    boxes = sorted(case.boxes[::-1][: max(1, len(case.boxes) // 2)], key=lambda box: box.image)
    return dataclasses.replace(case, image_size=shape, boxes=tuple(boxes), prediction=seed, tags=())


def _size(case: Case) -> str:
    return f"{case.image_size[0]} × {case.image_size[1]} px"


def declined(contender: Contender, spec: LossSpec, inputs: Inputs, setting: Setting) -> str | None:
    """Why a contender does not take part in a batch, or ``None`` when it does.

    Raises:
        ContenderFailed: its ``declines`` raised, took too long, or gave something else than a text or ``None``.
    """
    declines = contender.declines
    if declines is None:
        return None

    def ask() -> str | None:
        found = declines(spec, fresh(None, inputs) if contender.stranger else inputs, setting)
        if found is None or isinstance(found, str):
            return found and plain(found)
        raise MalformedError(f"its `declines` gave {shown(found)}; it must give a sentence that says why, or None", WRONG_ATTRIBUTE)

    try:
        return called(contender, ask).answer
    except ContenderFailed as failure:
        if failure.mode != RAISES:
            raise
        raise ContenderFailed(WRONG_ATTRIBUTE, f"its `declines` {failure.what}") from failure


def _make(contender: Contender, case: Case, setting: Setting) -> Criterion:
    try:
        return called(contender, lambda: make_criterion(contender, case.spec, setting)).answer
    except ContenderFailed as failure:
        subject = "the factory " if failure.mode in (RAISES, HANGS) else ""
        raise ContenderFailed(failure.mode, f"{subject}{failure.what}") from failure


def call(contender: Contender, criterion: Criterion, inputs: Inputs, setting: Setting) -> tuple[Answer, dict[str, str]]:
    """One call on copies of the inputs, and the gradients of the loss's sum; and what the call left changed in the process, by mode.

    Raises:
        ContenderFailed: it raised, took too long, or its answer is not of the form that the contract asks for.
    """

    def ask() -> Answer:
        given, kept = fresh(criterion, inputs), fresh(criterion, inputs)
        leaves = (given.preds["boxes"], given.preds["scores"])
        # The contender's own containers: what it puts into them, or takes out of them, is seen below.
        preds, batch = {**given.preds, "feats": list(given.preds["feats"])}, dict(given.batch)
        with within(setting, criterion):
            answer: Any = criterion(preds, batch)
        loss, items = whole_loss(answer, leaves[0].device)
        if loss.dtype not in (torch.float32, torch.float64):
            raise MalformedError(f"the loss is {loss.dtype}; it must be float32, or float64", WRONG_DTYPE)
        found = gradients(loss, leaves)
        return Answer(loss.detach(), items, found, _mutated(Inputs(preds, batch), kept))

    try:
        found: Called[Answer] = called(contender, ask)
    except ContenderFailed as failure:
        if failure.mode != HANGS:
            raise
        raise ContenderFailed(HANGS, f"the call {failure.what}; what compiles first may be given longer, --time-limit SECONDS") from failure
    return found.answer, found.changed


def _mutated(found: Inputs, kept: Inputs) -> str:
    """What a call changed of the inputs that it was given."""
    for role, after, before in (("preds", found.preds, kept.preds), ("batch", found.batch, kept.batch)):
        if list(after) != list(before):
            return f"the keys of {role} were {', '.join(before)}; the call left {', '.join(_key(name) for name in after) or 'none'}"
        for name, value in before.items():
            if not isinstance(value, list):
                same = not _other_bits(after[name], value)
            else:
                levels = after[name]
                same = type(levels) is list and len(levels) == len(value) and not any(map(_other_bits, levels, value))
            if not same:
                return f"the call changed {role}['{name}']"
    return ""


def _key(name: object) -> str:
    return plain(name) if isinstance(name, str) else f"one of type {kind(name)}"


def _other_bits(found: Any, kept: Tensor) -> bool:
    same_form = type(found) is Tensor and found.shape == kept.shape and found.dtype == kept.dtype and found.device == kept.device
    return not same_form or not torch.equal(_bits(found), _bits(kept))


_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(_WORDS[tensor.element_size()])


def _gap(one: Answer, other: Answer) -> str:
    """Which numbers of two answers to the same question differ, and by how much; empty when none does."""
    if one.tensors.keys() != other.tensors.keys():
        return "set of gradients"
    for name, value in one.tensors.items():
        found = other.tensors[name]
        if found.shape != value.shape or found.dtype != value.dtype:
            return f"{name}: {shown(found)} after {shown(value)}"
        if value.device.type == "cpu" and _other_bits(found, value):
            return f"{name}, off by up to {float((found.double() - value.double()).abs().max()):.3g}"
        if value.device.type != "cpu" and not torch.allclose(found, value, rtol=DRIFT, atol=DRIFT * _largest(value), equal_nan=True):
            return f"{name}, off by up to {float((found.double() - value.double()).abs().max()):.3g}"
    return ""


def _largest(value: Tensor) -> float:
    return float(value.abs().max()) if value.numel() else 0.0
