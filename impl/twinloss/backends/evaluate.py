"""A call through one backend, with torch for whatever that backend does not compute.

Shape suffixes: T terms, in the order of the definition's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinloss.assignment.assign import Assignment
from twinloss.backends import torch as torch_backend
from twinloss.backends.call import Backend, Call, Evaluation
from twinloss.backends.registry import BACKENDS
from twinloss.backends.slots import Slots
from twinloss.terms.held import HeldAnchors
from twinloss.terms.registry import further_terms, in_order


def assignment(backend: Backend, call: Call) -> Assignment:
    """The assignment: the backend's own, or torch's where it does not know the overlap."""
    return (backend if call.spec.overlap in backend.overlaps else BACKENDS["torch"]).assignment(call)


def evaluate(backend: Backend, call: Call, given: Assignment | None = None) -> Evaluation:
    """The loss (T,), on its own assignment or a given one."""
    held = assignment(backend, call) if given is None and call.spec.overlap not in backend.overlaps else given
    return _complete(backend, call, backend.loss(call, held))


def slots_of(backend: Backend, call: Call, found: Evaluation) -> tuple[Slots, int]:
    """The assignment of an evaluation in N·K slots, and after how many there are none but empty ones."""
    rows, picks = len(call.batch["batch_idx"]), min(call.spec.topk, call.pyramid.num_anchors)
    if _in_own_slots(backend, call):
        assert found.slots is not None
        return found.slots, rows * picks
    held = found.assignment()
    return Slots.of(held, rows * picks), len(held)


def evaluate_on_slots(backend: Backend, call: Call, slots: Slots, count: Tensor) -> Evaluation:
    """The loss (T,) on what :func:`slots_of` returned of an evaluation of the same call, with the same bits; ``count`` is (1,)."""
    filled = slots if _in_own_slots(backend, call) else slots[: int(count)]
    return _complete(backend, call, backend.loss_on_slots(call, filled))


def _in_own_slots(backend: Backend, call: Call) -> bool:
    return backend.keeps_slots and call.spec.overlap in backend.overlaps


def _complete(backend: Backend, call: Call, found: Evaluation) -> Evaluation:
    """A backend's answer, with the terms that it lacks."""
    terms = backend.computes(call.spec)
    return found if terms == call.spec.terms else _with_further_terms(backend, terms, call, found)


def _with_further_terms(backend: Backend, computed: tuple[str, ...], call: Call, found: Evaluation) -> Evaluation:
    """The terms that a backend computed and those that functions of held anchors add, its own or torch's, in the definition's order."""
    held = found.assignment()
    anchors = torch_backend.anchors(call.pyramid, call.boxes)
    losses, items = (dict(zip(computed, column.unbind(), strict=True)) for column in (found.loss, found.items))
    with torch.autocast(call.boxes.device.type, enabled=False):
        at = HeldAnchors(call, held, anchors)
        for key, term in further_terms(at, computed, backend.further_term).items():
            losses[key], items[key] = term * len(call.boxes), term.detach()
    return Evaluation(in_order(call.spec, losses), in_order(call.spec, items), lambda: held, found.slots)
