"""Runs a criterion in a setting, from fresh leaves, and takes its gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from oracle.cases.case import Inputs, Setting
from oracle.contract.answer_form import expect_plain, leaf_dtype, shown, whole_loss
from oracle.contract.contender import Contender, Criterion, OffersAssignment
from twinloss import Assignment, DetectionLoss, LossSpec

Cotangent = tuple[float, float, float]
ALL_TERMS: Cotangent = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Outcome:
    """What a criterion answered, as float64 whatever it computed in.

    Attributes:
        loss: (3,), times the number of images.
        items: the logged terms by name.
        grad_boxes: (B, 4R, A) gradient of ``cotangent · loss``; zeros where it is missing.
        grad_scores: (B, C, A), likewise.
        missing: names of the logits that the loss gives no gradient, not even of zeros.
        loss_dtype: dtype of the loss as it was returned.
    """

    loss: Tensor
    items: dict[str, float]
    grad_boxes: Tensor
    grad_scores: Tensor
    missing: tuple[str, ...]
    loss_dtype: torch.dtype

    def on_host(self) -> Outcome:
        """The same on the CPU, where the judge works."""
        return replace(self, loss=self.loss.cpu(), grad_boxes=self.grad_boxes.cpu(), grad_scores=self.grad_scores.cpu())


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Make float64 the default dtype, in which the reference then computes from end to end (spec section 8a)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def within(setting: Setting, criterion: object = None) -> Iterator[None]:
    """The surroundings that a setting asks for: autocast, and with float64 logits float64 as default dtype.

    The exact criterion is left out of autocast, since truth has one arithmetic. The twin is left out of the default dtype: it is held to
    computing in float64 because its logits are.
    """
    with contextlib.ExitStack() as stack:
        if setting.dtype == "float64" and not isinstance(criterion, DetectionLoss):
            stack.enter_context(double_precision())
        if setting.autocast is not None and not hasattr(criterion, "leaf_dtype"):
            stack.enter_context(torch.autocast(torch.device(setting.device).type, dtype=getattr(torch, setting.autocast)))
        yield


def make_criterion(contender: Contender, spec: LossSpec, setting: Setting) -> Criterion:
    """A contender's criterion, made in the surroundings in which it will run.

    Raises:
        TypeError: the factory returned something that cannot be called.
        MalformedError: the criterion's ``leaf_dtype`` is no dtype.
    """
    with within(setting):
        criterion = contender.factory(spec)
    if not callable(criterion):
        raise TypeError(
            f"the factory of {contender.name} returned {shown(criterion)}; it must return a callable (preds, batch) -> (loss, items)"
        )
    leaf_dtype(criterion)
    return criterion


def run_loss(criterion: Criterion, inputs: Inputs, setting: Setting, cotangent: Cotangent = ALL_TERMS) -> Outcome:
    """The whole loss and its gradients.

    Raises:
        MalformedError: the answer is not (loss (3,), items), or a gradient is no plain tensor.
    """
    return _run(criterion, criterion, inputs, setting, cotangent)


def run_given(
    criterion: OffersAssignment, inputs: Inputs, setting: Setting, assignment: Assignment, cotangent: Cotangent = ALL_TERMS
) -> Outcome:
    """The loss and its gradients on a given assignment; raises as :func:`run_loss`."""
    return _run(criterion, lambda preds, batch: criterion.loss_given(preds, batch, assignment), inputs, setting, cotangent)


def run_assign(criterion: OffersAssignment, inputs: Inputs, setting: Setting) -> Assignment:
    """The assignment alone."""
    preds, batch = fresh(criterion, inputs)
    with within(setting, criterion), torch.no_grad():
        return criterion.assign(preds, batch)


def fresh(criterion: Any, inputs: Inputs) -> Inputs:
    """Copies that one contender cannot spoil for the next; logits are leaves, in the criterion's ``leaf_dtype`` where it has one.

    A criterion with a ``leaf_dtype`` sees the very values that the others see, in more digits, and gives its gradient unrounded.
    """
    dtype = leaf_dtype(criterion)
    leaves = {name: inputs.preds[name].detach().to(dtype, copy=True).requires_grad_() for name in ("boxes", "scores")}
    feats = [level.detach().clone() for level in inputs.preds["feats"]]
    return Inputs({**leaves, "feats": feats}, {name: tensor.clone() for name, tensor in inputs.batch.items()})


def _run(criterion: Any, call: Callable[[Any, Any], Any], inputs: Inputs, setting: Setting, cotangent: Cotangent) -> Outcome:
    preds, batch = fresh(criterion, inputs)
    leaves = (preds["boxes"], preds["scores"])
    with within(setting, criterion):
        answer = call(preds, batch)
    loss, items = whole_loss(answer, leaves[0].device)
    found_gradients = gradients(loss, leaves, cotangent)
    return Outcome(
        loss=loss.detach().double(),
        items=items,
        grad_boxes=_dense(found_gradients[0], leaves[0]),
        grad_scores=_dense(found_gradients[1], leaves[1]),
        missing=tuple(name for name, gradient in zip(("boxes", "scores"), found_gradients, strict=True) if gradient is None),
        loss_dtype=loss.dtype,
    )


def gradients(loss: Tensor, leaves: tuple[Tensor, Tensor], cotangent: Cotangent = ALL_TERMS) -> tuple[Tensor | None, ...]:
    """Gradients of ``cotangent · loss`` in the logits; ``None`` where the loss gives none.

    Raises:
        MalformedError: one is no plain tensor.
    """
    if not loss.requires_grad:
        return None, None
    found = torch.autograd.grad(loss, leaves, grad_outputs=loss.new_tensor(cotangent), allow_unused=True)
    for name, leaf, gradient in zip(("boxes", "scores"), leaves, found, strict=True):
        if gradient is not None:
            expect_plain(f"the gradient of {name}", gradient, leaf.device)
    return found


def _dense(gradient: Tensor | None, leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf, dtype=torch.float64) if gradient is None else gradient.double()
