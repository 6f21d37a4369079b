"""How a contender behaves, whatever it computes: named verdicts for what a trainer would suffer from, each a quantity of its own.

A contender is called five times: on the case, on it again, on another batch, on the case once more; and afresh on that other batch.
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
from oracle.contract.contender import Contender, Criterion
from oracle.contract.process_state import changes, restore, surroundings
from oracle.contract.run import fresh, make_criterion, within
from oracle.contract.time_limit import Overrun, limited
from oracle.contract.verdict import Finding, Judgement, Verdict, differs, not_compared

STAGE = "conduct"
MODES = {
    "raises": "it raised instead of answering",
    "hangs": "it did not answer in time",
    "wrong shape": "its answer is not (loss (3,), items by name)",
    "wrong dtype": "its loss is neither float32 nor float64, or its items are no numbers",
    "not finite": "its loss or a gradient is not a finite number where the definition's is",
    "mutates inputs": "it changed what it was given",
    "changes settings": "it left torch with other global settings",
    "keeps state": "the same call on the same batch gave another answer",
    "depends on history": "its answer depends on the batches that it saw before",
}
"""Name of each failure mode, and what it means. The last two need further calls, and are left out of large batches."""

REPEATED_UP_TO = 4_000_000
"""Logits of a batch up to which the calls are repeated."""

DRIFT = 1e-4


class Misconduct(Exception):  # noqa: N818 - it is what a contender did
    """A failure mode that leaves no answer to look at: its name, and a sentence."""

    def __init__(self, mode: str, what: str) -> None:
        super().__init__(what)
        self.mode, self.what = mode, what


@dataclass(frozen=True)
class Answer:
    """What one call gave: the loss, the items, the gradients of its sum; and what it did beside that."""

    loss: Tensor
    items: Mapping[str, float]
    gradients: tuple[Tensor | None, ...]
    mutated: str
    settings: str

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
    except Misconduct as misconduct:
        # What the call did not live to show is not known.
        unknown = f"not known, since it {misconduct.mode if misconduct.mode in ('raises', 'hangs') else 'answers in a ' + misconduct.mode}"
        found = {misconduct.mode: misconduct.what}
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
    first = call(criterion, inputs, setting, contender.time_limit)
    if first.mutated:
        yield "mutates inputs", first.mutated
    if first.settings:
        yield "changes settings", first.settings
    if (wrong := _not_finite(first)) and not _overflows(contender, setting) and finite():
        yield "not finite", wrong
    if _repeats(inputs):
        yield from _memory(contender, criterion, first, case, inputs, setting)


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
    again = call(criterion, inputs, setting, contender.time_limit)
    if gap := _gap(first, again):
        yield "keeps state", f"the second call on the same batch gave another {gap}"
        return
    other = another(case)
    other_inputs = other.build(setting)
    if contender.declines and contender.declines(other.spec, other_inputs, setting):
        return
    limit = contender.time_limit
    between = call(criterion, other_inputs, setting, limit)
    after = call(criterion, inputs, setting, limit)
    if gap := _gap(first, after):
        yield "depends on history", f"after another batch, of {_size(other)}, this one, of {_size(case)}, gave another {gap}"
        return
    alone = call(_make(contender, other, setting), other_inputs, setting, limit)
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


def _make(contender: Contender, case: Case, setting: Setting) -> Criterion:
    try:
        with limited(contender.time_limit):
            return make_criterion(contender, case.spec, setting)
    except Overrun as overrun:
        raise Misconduct("hangs", f"the factory {overrun}") from None
    except (Exception, SystemExit) as error:
        raise Misconduct("raises", f"the factory raised {type(error).__name__}: {error}") from error


def call(criterion: Criterion, inputs: Inputs, setting: Setting, limit: float | None = None) -> Answer:
    """One call on copies of the inputs, and the gradients of the loss's sum.

    Raises:
        Misconduct: it raised, took too long, or its answer is not of the form that the contract asks for.
    """
    given, kept = fresh(criterion, inputs), fresh(criterion, inputs)
    settings = surroundings()
    leaves = (given.preds["boxes"], given.preds["scores"])
    # The contender's own containers: what it puts into them, or takes out of them, is seen below.
    preds, batch = {**given.preds, "feats": list(given.preds["feats"])}, dict(given.batch)
    try:
        with limited(limit):
            with within(setting, criterion):
                answer: Any = criterion(preds, batch)
            changed = changes(settings)
            restore(settings)
            loss, items = _form(answer)
            gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True) if loss.requires_grad else (None, None)
    except Overrun as overrun:
        restore(settings)
        raise Misconduct("hangs", f"the call {overrun}") from None
    except Misconduct:
        raise
    except (Exception, SystemExit) as error:
        restore(settings)
        raise Misconduct("raises", f"raised {type(error).__name__}: {error}") from error
    return Answer(loss.detach(), items, gradients, _mutated(Inputs(preds, batch), kept), changed)


def _form(answer: Any) -> tuple[Tensor, dict[str, float]]:
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise Misconduct("wrong shape", f"the answer is {_named(answer)}; it must be a pair (loss, items)")
    loss, items = answer
    if not isinstance(loss, Tensor) or loss.shape != (3,):
        raise Misconduct("wrong shape", f"the loss is {_named(loss)}; it must be a tensor of shape (3,): box, classification, distribution")
    if not isinstance(items, Mapping):
        raise Misconduct("wrong shape", f"the items are {_named(items)}; they must be a mapping of the logged terms by name")
    if loss.dtype not in (torch.float32, torch.float64):
        raise Misconduct("wrong dtype", f"the loss is {loss.dtype}; it must be float32, or float64")
    numbers = {}
    for name, value in items.items():
        if isinstance(value, Tensor) and value.numel() != 1:
            raise Misconduct("wrong shape", f"item {name!r} is {_named(value)}; it must be one number")
        try:
            numbers[str(name)] = float(value.detach() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError):
            raise Misconduct("wrong dtype", f"item {name!r} is {_named(value)}; it must be a number") from None
    return loss, numbers


def _named(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"of type {type(value).__name__}"


def _mutated(found: Inputs, kept: Inputs) -> str:
    """What a call changed of the inputs that it was given."""
    for role, after, before in (("preds", found.preds, kept.preds), ("batch", found.batch, kept.batch)):
        if list(after) != list(before):
            return f"the keys of {role} were {', '.join(before)}; the call left {', '.join(after)}"
        for name, value in before.items():
            if not isinstance(value, list):
                if _other_bits(after[name], value):
                    return f"the call changed {role}['{name}']"
            elif len(after[name]) != len(value) or any(_other_bits(a, b) for a, b in zip(after[name], value, strict=True)):
                return f"the call changed {role}['{name}']"
    return ""


def _other_bits(found: Any, kept: Tensor) -> bool:
    same_form = isinstance(found, Tensor) and found.shape == kept.shape and found.dtype == kept.dtype
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
            return f"{name}: {_named(found)} after {_named(value)}"
        if value.device.type == "cpu" and _other_bits(found, value):
            return f"{name}, off by up to {float((found.double() - value.double()).abs().max()):.3g}"
        if value.device.type != "cpu" and not torch.allclose(found, value, rtol=DRIFT, atol=DRIFT * _largest(value), equal_nan=True):
            return f"{name}, off by up to {float((found.double() - value.double()).abs().max()):.3g}"
    return ""


def _largest(value: Tensor) -> float:
    return float(value.abs().max()) if value.numel() else 0.0
