"""A criterion in a candidate's process that looks to the judge like one in its own: differentiable, with stages and attributes."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import cloudpickle
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from oracle.cases.noise import Noise
from oracle.cases.tasks.flow import Flow
from oracle.contract.answer_form import WORDS, MalformedError, check_tensor, describe
from oracle.contract.calls import report
from oracle.contract.contender import Batch, Preds
from oracle.inside.arena import Arena
from oracle.inside.messages import Record
from oracle.isolated.candidate_process import CandidateProcess
from oracle.isolated.decode import decode, exception_of
from twinloss import Assignment, LossSpec

COLUMNS = {
    "assign": ("image", "anchor", "box", "weight"),
    "targets": ("row", "image", "label", "corners"),
    "metrics": ("row", "anchor", "overlap", "metric"),
}
"""Stages whose answer is a record, and its columns."""

SHIFT = 4096
"""Bytes by which the inputs of every second call are moved, so that what an earlier call kept shows nothing of this one."""

WITHOUT_TARGETS = ("anchors", "decode")


class Answered(NamedTuple):
    """The answer of a call: the criterion's, the gradients of the leaves, and whether the loss requires one."""

    value: Any
    gradients: list[Tensor | None]
    differentiable: bool


class Caller:
    """Sends the calls of one candidate: inputs into the shared memory, answers out of it.

    Args:
        process: the candidate's process.
        limit_s: seconds of processor time that a call may take.
    """

    def __init__(self, process: CandidateProcess, limit_s: float) -> None:
        self.process, self.limit_s, self.calls = process, limit_s, 0

    def ask(self, request: Record) -> Record:
        """Returns the reply to a request that runs the candidate's code, and reports what the call changed and warned of.

        Raises:
            Exception: the candidate raised; the type has its exception's name.
            MalformedError: the process ended, or sent a malformed answer.
            TimeLimitExceeded: it took too long.
        """
        reply = self.process.ask({"context": _context()} | request, self.limit_s)
        report(_texts(reply.get("changed")), list(_texts(dict(enumerate(reply.get("warnings", ())))).values()))
        if "raised" in reply:
            raise exception_of(reply["raised"])
        return reply

    def with_inputs(self, request: Record, preds: Mapping[str, Any], batch: Mapping[str, Tensor], **more: Mapping[str, Tensor]) -> Record:
        """Returns the reply to a request with inputs, which are checked for changes, and made unreadable after the call."""
        arena = self.process.arena
        if not arena.poisoned():
            arena.poison(arena.size)
            raise MalformedError("it wrote to the memory of its inputs after an earlier call had returned", "mutates inputs")
        self.calls += 1
        written = _Written(arena, SHIFT * (self.calls % 2))
        fields: Record = {
            "device": str(preds["boxes"].device),
            "preds": {name: written.put(value) for name, value in preds.items()},
            "grads": [name for name, value in preds.items() if name != "feats" and _first(value).requires_grad],
            "batch": {name: written.put(value) for name, value in batch.items()},
            **{name: {key: written.put(value) for key, value in tensors.items()} for name, tensors in more.items()},
        }
        end = written.end
        try:
            reply = self.ask(request | fields | {"end": end})
            end = int(reply["end"])
            reply["decoded"] = {name: self._decoded(reply[name]) for name in ("answer", "gradients", "columns") if name in reply}
            written.take_changes()
        finally:
            written.poison(end)
        return reply

    def _decoded(self, code: Any) -> Any:
        arena = self.process.arena
        if isinstance(code, list):
            return [decode(one, arena) for one in code]
        if isinstance(code, dict) and code and all(isinstance(one, dict) for one in code.values()):
            return {name: decode(one, arena) for name, one in code.items()}
        return decode(code, arena)


class _Written:
    """Tensors of one call in the shared memory."""

    def __init__(self, arena: Arena, start: int) -> None:
        self.arena, self.end = arena, start
        self._tensors: list[tuple[Tensor, Any]] = []

    def put(self, value: Any) -> Any:
        """Copies a tensor, or several, into the memory; returns the places."""
        if not isinstance(value, Tensor):
            return [self.put(one) for one in value]
        place, self.end = self.arena.put(value, self.end)
        self._tensors.append((value, place))
        return place

    def take_changes(self) -> None:
        """Copies what the call changed in the memory to the judge's tensors, where its check of mutated inputs finds it."""
        for tensor, place in self._tensors:
            now = self.arena.view(place)
            if not torch.equal(_bits(now), _bits(tensor)):
                tensor.data.copy_(now)

    def poison(self, end: int) -> None:
        """Fills the memory of all tensors of the call, the answers among them, with NaN."""
        self.arena.poison(end)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().view(WORDS[tensor.element_size()])


def _first(value: Any) -> Tensor:
    return cast(Tensor, value[0] if isinstance(value, (tuple, list)) else value)


def _context() -> Record:
    """Returns default dtype, gradient mode and autocast of this process, and a seed for the call."""
    autocast = {device: torch.get_autocast_dtype(device) for device in ("cpu", "cuda") if torch.is_autocast_enabled(device)}
    return {
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "grad": torch.is_grad_enabled(),
        "autocast": {device: str(dtype).removeprefix("torch.") for device, dtype in autocast.items()},
        "seed": secrets.randbelow(2**31),
    }


def _texts(value: Any) -> dict[Any, str]:
    """Returns the texts of a mapping, which the other side may have made up."""
    return {name: str(text) for name, text in value.items()} if isinstance(value, dict) else {}


class IsolatedCriterion:
    """A criterion in the candidate's process; made anew there when that process was started again.

    Args:
        caller: sends the calls.
        spec: the definition.
        flow: the flow of a pose definition with a likelihood term.

    Raises:
        TypeError: the factory returned no callable.
    """

    def __init__(self, caller: Caller, spec: LossSpec, flow: nn.Module | None = None) -> None:
        self._caller, self._spec, self._flow = caller, spec, flow
        self._number, self._generation = 0, -1
        made = self._make()
        for name, one in made["attributes"].items():
            if "code" in one:
                setattr(self, name, decode(one["code"], caller.process.arena))
        self._unreadable = {name: one["raised"] for name, one in made["attributes"].items() if "raised" in one}
        for stage in made["offers"]:
            setattr(self, stage, self._given if stage == "loss_given" else partial(self._stage, stage))

    def __getattr__(self, name: str) -> Any:
        raised = self.__dict__.get("_unreadable", {}).get(name)
        if raised is not None:
            raise exception_of(raised)
        raise AttributeError(name)

    def _make(self) -> Record:
        request = {"do": "make", **spec_record(self._spec), "flow": _pickled(self._flow)}
        made = self._caller.ask(request)
        if not made["callable"]:
            raise TypeError(
                f"the factory returned {describe(decode(made['described'], self._caller.process.arena))}; "
                "it must return a callable (preds, batch) -> (loss, items)"
            )
        self._number, self._generation = made["criterion"], self._caller.process.generation
        return made

    def _request(self, **fields: Any) -> Record:
        self._caller.process.start()
        if self._generation != self._caller.process.generation:
            self._make()
        return {"criterion": self._number, **fields}

    def __call__(self, preds: Preds, batch: Batch) -> Any:
        """Returns the candidate's answer, with a loss that is differentiable with respect to the predictions and the flow's parameters."""
        return self._loss(preds, batch, {})

    def _given(self, preds: Preds, batch: Batch, assignment: Assignment) -> Any:
        fields = ("image", "anchor", "box", "weight")
        return self._loss(preds, batch, {"assignment": {name: getattr(assignment, name).detach() for name in fields}})

    def _loss(self, preds: Preds, batch: Batch, more: dict[str, dict[str, Tensor]]) -> Any:
        before = {name: value if not isinstance(value, list) else list(value) for name, value in preds.items()}, dict(batch)
        context = _context()  # also for a call within a backward, where gradients and autocast are off

        def ask(cotangent: Sequence[float] | None = None) -> tuple[Answered, Record]:
            reply = self._caller.with_inputs(self._request(do="call", cotangent=cotangent, context=context), *before, **more)
            code = reply["answer"].get("tuple", [{}])[:1]
            decoded = reply["decoded"]
            return Answered(decoded["answer"], decoded.get("gradients", []), bool(code and code[0].get("grad"))), reply

        answered, reply = ask()
        _apply_keys(preds, reply["kept"]["preds"])
        _apply_keys(batch, reply["kept"]["batch"])
        if not answered.differentiable or not answered.gradients:
            return answered.value
        leaves = [*_leaves(before[0]), *(self._flow.parameters() if self._flow is not None else ())]
        for gradient in answered.gradients:
            if gradient is not None:
                check_tensor("a gradient", gradient)
        if len(answered.gradients) != len(leaves):
            raise MalformedError(f"its process sent {len(answered.gradients)} gradients; there are {len(leaves)} predictions")
        loss, *rest = answered.value
        return _IsolatedLoss.apply(answered, lambda cotangent: ask(cotangent)[0], loss, *leaves), *rest

    def _stage(self, name: str, preds: Preds, batch: Batch | None = None) -> Any:
        fields = {"do": "stage", "stage": name, "targets": name not in WITHOUT_TARGETS, "columns": COLUMNS.get(name, ())}
        reply = self._caller.with_inputs(self._request(**fields), preds, batch or {})
        found = reply["decoded"]
        return SimpleNamespace(**found["columns"]) if "columns" in reply else found["answer"]


class _IsolatedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, answered: Answered, again: Any, loss: Tensor, *_leaves: Tensor) -> Tensor:
        ctx.answered, ctx.again = answered, again
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        ones = bool((cotangent == 1).all())
        found = ctx.answered if ones else ctx.again(cotangent.tolist())
        return None, None, None, *found.gradients


def _leaves(preds: Mapping[str, Any]) -> list[Tensor]:
    values = itertools.chain.from_iterable(value if isinstance(value, (tuple, list)) else [value] for value in preds.values())
    return [leaf for leaf in values if leaf.requires_grad]


def _apply_keys(container: Any, kept: Any) -> None:
    """Makes the judge's container as the call left the candidate's: other keys, and stand-ins where another object was put."""
    pairs = [(str(name), bool(same)) for name, same in kept]
    before = dict(container)
    if [name for name, _ in pairs] == list(before) and all(same for _, same in pairs):
        return
    container.clear()
    container.update({name: before[name] if same and name in before else None for name, same in pairs})


def spec_record(spec: LossSpec) -> Record:
    """Returns a definition as a record: its task, and its fields."""
    return {"task": spec.task, "spec": {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}}


def _pickled(flow: nn.Module | None) -> str:
    """Returns a flow with its class by value, since the candidate's process has no path to the suite; empty if there is none."""
    if flow is None:
        return ""
    modules = [sys.modules[kind.__module__] for kind in (Flow, Noise)]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(flow)).hex()
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
