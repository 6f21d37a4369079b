"""Serves one candidate: imports its module, makes its criteria, and calls them, as the judge asks.

Requests are records with the field ``do``: ``load``, ``declines``, ``make``, ``call``, ``stage``, ``clock``. Each has one reply. This
process holds the candidate's own answers and the inputs of one call, which the judge overwrites after it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import operator
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .arena import Arena
from .calls import observed, raised, set_clock
from .encode import Encoder
from .messages import Stream, receive, send

Record = dict[str, Any]
ATTRIBUTES = ("ties", "conflicts", "leaf_dtype")
STAGES = ("assign", "loss_given", "anchors", "targets", "decode", "metrics")
MOST_CRITERIA = 64
"""Largest number of criteria that are kept; the judge makes an older one anew."""


class Inputs(NamedTuple):
    """Arguments of a criterion, as ``declines`` gets them."""

    preds: dict[str, Any]
    batch: dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Dtypes and device of a batch, as ``declines`` gets them."""

    dtype: str
    autocast: str | None
    device: str


class Service:
    """The candidate of one process.

    Args:
        arena: memory that is shared with the judge.
    """

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.factory: Any = None
        self.criteria: dict[int, Any] = {}
        self.flows: dict[int, Any] = {}
        self.made = 0

    def answer(self, request: Record) -> Record:
        """Returns the reply to a request."""
        call: Callable[[Record, Encoder], Record] = getattr(self, f"do_{request['do']}")
        encoder = Encoder(self.arena, request.get("end", 0))
        if "context" not in request:
            return call(request, encoder)
        return observed(request["context"], lambda: call(request, encoder)) | {"end": encoder.end}

    def do_load(self, request: Record, encode: Encoder) -> Record:
        """Imports the module and finds the factory; returns its attributes."""
        name, attribute = request["module"], request["factory"]
        sys.path[:] = [*request["paths"], *(one for one in sys.path if one not in request["paths"] and one not in request["last"])]
        top = name.partition(".")[0]
        if importlib.util.find_spec(top) is None:
            sys.path += request["last"]
        try:
            module = importlib.import_module(name)
        except BaseException as error:
            return {"import": raised(error)}
        try:
            self.factory = operator.attrgetter(attribute)(module)
        except AttributeError:
            names = [one for one in vars(module) if not one.startswith("_")]
            return {"names": names, "file": str(getattr(module, "__file__", name))}
        attributes = {one: self._attribute(self.factory, one, encode) for one in ("arithmetic", "declines", "assumes")}
        described = encode(self.factory)
        return {"version": _version(module), "callable": callable(self.factory), "described": described, "attributes": attributes}

    def _attribute(self, holder: Any, name: str, encode: Encoder) -> Record:
        try:
            if not hasattr(holder, name):
                return {}
            value = getattr(holder, name)
            if name == "assumes" and isinstance(value, (list, tuple, set, frozenset)):
                return {"code": {"tuple": [encode(one) for one in value]}}
            return {"code": encode(value), "callable": callable(value)}
        except Exception as error:
            return {"raised": raised(error)}

    def do_declines(self, request: Record, encode: Encoder) -> Record:
        """Asks ``declines`` of the factory."""
        inputs = self._inputs(request)
        return {"answer": encode(self.factory.declines(_spec(request), inputs, Setting(**request["setting"])))}

    def do_make(self, request: Record, encode: Encoder) -> Record:
        """Makes a criterion; returns its number, its attributes and the stages that it offers."""
        flow = pickle.loads(bytes.fromhex(request["flow"])) if request["flow"] else None
        spec = _spec(request)
        criterion = self.factory(spec) if flow is None else self.factory(spec, flow=flow)
        self.made += 1
        self.criteria[self.made], self.flows[self.made] = criterion, flow
        for old in [number for number in self.criteria if number <= self.made - MOST_CRITERIA]:
            del self.criteria[old], self.flows[old]
        attributes = {name: self._attribute(criterion, name, encode) for name in ATTRIBUTES}
        offered = [name for name in STAGES if callable(getattr(criterion, name, None))]
        return {
            "criterion": self.made,
            "callable": callable(criterion),
            "described": encode(criterion),
            "attributes": {name: one for name, one in attributes.items() if one},
            "offers": offered,
        }

    def do_call(self, request: Record, encode: Encoder) -> Record:
        """Calls a criterion, or its ``loss_given``; returns loss, items, gradients, and what became of the containers."""
        inputs = self._inputs(request)
        preds, batch = dict(inputs.preds), dict(inputs.batch)
        leaves = [leaf for value in preds.values() for leaf in (value if isinstance(value, (tuple, list)) else [value])]
        leaves = [leaf for leaf in leaves if leaf.requires_grad]
        flow = self.flows[request["criterion"]]
        criterion = self.criteria[request["criterion"]]
        given = [_assignment(request, self._view)] if "assignment" in request else []
        answer = (criterion.loss_given if given else criterion)(preds, batch, *given)
        record: Record = {"answer": encode(answer)}
        loss = tuple.__getitem__(answer, 0) if isinstance(answer, tuple) and len(answer) else None
        if isinstance(loss, Tensor) and loss.requires_grad and loss.is_floating_point():
            wanted = [*leaves, *(flow.parameters() if flow is not None else ())]
            factors = torch.ones_like(loss) if request["cotangent"] is None else loss.new_tensor(request["cotangent"])
            found = torch.autograd.grad(loss, wanted, grad_outputs=factors, allow_unused=True)
            record["gradients"] = [encode(gradient) for gradient in found]
        self._write_back(request, inputs)
        return record | {"kept": {"preds": _kept(preds, inputs.preds), "batch": _kept(batch, inputs.batch)}}

    def do_stage(self, request: Record, encode: Encoder) -> Record:
        """Calls a stage; returns its answer, or the columns of a record."""
        inputs = self._inputs(request)
        method = getattr(self.criteria[request["criterion"]], request["stage"])
        answer = method(inputs.preds, inputs.batch) if request["targets"] else method(inputs.preds)
        if request["columns"]:
            columns = {name: encode(getattr(answer, name)) for name in request["columns"] if hasattr(answer, name)}
            return {"columns": columns}
        return {"answer": encode(answer)}

    def do_clock(self, request: Record, _: Encoder) -> Record:
        """Puts the clocks of this process ahead."""
        set_clock(request["ahead_s"])
        return {}

    def _view(self, place: Any, device: str = "cpu", *, grad: bool = False) -> Tensor:
        # The judge looks at the memory itself after the call, so that no answer of this process hides a change of the inputs.
        return self.arena.view(place).to(device).requires_grad_(grad)

    def _inputs(self, request: Record) -> Inputs:
        device, grads = request["device"], request["grads"]

        def built(name: str, places: Any) -> Any:
            if name == "feats":
                return [self._view(place, device) for place in places]
            if isinstance(places[0], list):
                return tuple(self._view(place, device, grad=name in grads) for place in places)
            return self._view(places, device, grad=name in grads)

        preds = {name: built(name, places) for name, places in request["preds"].items()}
        return Inputs(preds, {name: self._view(place, device) for name, place in request["batch"].items()})

    def _write_back(self, request: Record, inputs: Inputs) -> None:
        """Copies inputs from another device to the shared memory, where the judge compares them."""
        if request["device"] == "cpu":
            return
        for places, values in ((request["preds"], inputs.preds), (request["batch"], inputs.batch)):
            for name, place in places.items():
                pairs = zip(place, values[name], strict=True) if isinstance(place[0], list) else [(place, values[name])]
                for one, tensor in pairs:
                    self.arena.view(one).copy_(tensor.detach())


def _kept(after: Mapping[Any, Any], before: Mapping[str, Any]) -> list[list[Any]]:
    """Returns the keys of a container after a call, each with whether it still holds the same object."""
    return [[name if isinstance(name, str) else f"one of type {type(name).__name__}", after[name] is before.get(name)] for name in after]


def _spec(request: Record) -> Any:
    """Returns the definition, as twinloss's record of its task."""
    from twinloss import LossSpec

    known: list[Any] = [LossSpec, *LossSpec.__subclasses__()]
    kinds = {kind.task: kind for kind in known}
    return kinds[request["task"]](**{name: tuple(one) if isinstance(one, list) else one for name, one in request["spec"].items()})


def _assignment(request: Record, view: Callable[..., Tensor]) -> Any:
    from twinloss import Assignment

    return Assignment(**{name: view(place, request["device"]).clone() for name, place in request["assignment"].items()})


def _version(module: Any) -> str:
    """Returns the version of the module, its package or its distribution."""
    package = module.__name__.partition(".")[0]
    for holder in (module, sys.modules.get(package)):
        if isinstance(version := getattr(holder, "__version__", None), str):
            return f"{package} {version}"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"{package} {importlib.metadata.version(package)}"
    return f"{module.__name__} (no version)"


def disturb() -> None:
    """Gives settings without influence on any number unusual values, so that a candidate that resets all settings shows."""
    import decimal
    import gc

    import numpy as np

    torch.backends.cudnn.benchmark = True
    decimal.getcontext().prec = 31
    gc.set_threshold(701, 11, 11)
    np.seterr(over="ignore")


def serve(stream: Stream, arena: Arena) -> None:
    """Answers requests until the stream ends."""
    disturb()
    service = Service(arena)
    send(stream, {"ready": True})
    while (request := receive(stream)) is not None:
        try:
            reply = service.answer(request)
        except BaseException as error:
            reply = {"raised": raised(error), "changed": {}, "warnings": []}
        send(stream, reply)
