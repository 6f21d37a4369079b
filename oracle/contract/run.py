"""Runs a criterion in a setting on fresh leaves, and takes its gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from oracle.cases.case import Inputs, Setting
from oracle.contract.answer_form import check_tensor, describe, leaf_dtype, loss_and_items
from oracle.contract.contender import Contender, Criterion, OffersAssignment
from twinloss import Assignment, DetectionLoss, LossSpec

Cotangent = tuple[float, float, float]
ALL_TERMS: Cotangent = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Outcome:
    """The answer of a criterion, converted to float64.

    Attributes:
        loss: (3,), multiplied by the number of images.
        items: the logged terms by name.
        grad_boxes: (B, 4R, A) gradient of ``cotangent · loss``; zeros if it is missing.
        grad_scores: (B, C, A), likewise.
        missing: names of the logits without a gradient.
        loss_dtype: dtype of the loss before the conversion.
    """

    loss: Tensor
    items: dict[str, float]
    grad_boxes: Tensor
    grad_scores: Tensor
    missing: tuple[str, ...]
    loss_dtype: torch.dtype

    def on_host(self) -> Outcome:
        """Returns a copy on the CPU, where the judge computes."""
        return replace(self, loss=self.loss.cpu(), grad_boxes=self.grad_boxes.cpu(), grad_scores=self.grad_scores.cpu())


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Makes float64 the default dtype, so that the reference computes in float64 throughout (spec section 8a)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def in_setting(setting: Setting, criterion: object = None) -> Iterator[None]:
    """Enters the autocast of a setting and, for float64 logits, float64 as default dtype.

    The exact criterion runs without autocast, since it always computes in float64. The twin runs with the default dtype unchanged: it has
    to compute in float64 because its logits are.
    """
    with contextlib.ExitStack() as stack:
        if setting.dtype == "float64" and not isinstance(criterion, DetectionLoss):
            stack.enter_context(double_precision())
        if setting.autocast is not None and not hasattr(criterion, "leaf_dtype"):
            stack.enter_context(torch.autocast(torch.device(setting.device).type, dtype=getattr(torch, setting.autocast)))
        yield


def make_criterion(contender: Contender, spec: LossSpec, setting: Setting) -> Criterion:
    """Returns a contender's criterion, created in the setting in which it will run.

    Raises:
        TypeError: the factory did not return a callable.
        MalformedError: the criterion's ``leaf_dtype`` is no dtype.
    """
    with in_setting(setting):
        criterion = contender.factory(spec)
    if not callable(criterion):
        raise TypeError(
            f"the factory of {contender.name} returned {describe(criterion)}; it must return a callable (preds, batch) -> (loss, items)"
        )
    leaf_dtype(criterion)
    return criterion


def run_loss(criterion: Criterion, inputs: Inputs, setting: Setting, cotangent: Cotangent = ALL_TERMS) -> Outcome:
    """Returns the complete loss and its gradients.

    Raises:
        MalformedError: the answer is not (loss (3,), items), or a gradient is no plain tensor.
    """
    return _run(criterion, criterion, inputs, setting, cotangent)


def run_given(
    criterion: OffersAssignment, inputs: Inputs, setting: Setting, assignment: Assignment, cotangent: Cotangent = ALL_TERMS
) -> Outcome:
    """Returns the loss and its gradients on a given assignment; raises like :func:`run_loss`."""
    return _run(criterion, lambda preds, batch: criterion.loss_given(preds, batch, assignment), inputs, setting, cotangent)


def run_assign(criterion: OffersAssignment, inputs: Inputs, setting: Setting) -> Assignment:
    """Returns the criterion's assignment."""
    preds, batch = fresh_leaves(criterion, inputs)
    with in_setting(setting, criterion), torch.no_grad():
        return criterion.assign(preds, batch)


def fresh_leaves(criterion: Any, inputs: Inputs) -> Inputs:
    """Returns copies of the inputs for one call; the logits are leaves, in the criterion's ``leaf_dtype`` if it has one.

    A criterion with a ``leaf_dtype`` gets the same values as the others in a wider dtype, so that its gradient is not rounded.
    """
    dtype = leaf_dtype(criterion)
    leaves = {name: inputs.preds[name].detach().to(dtype, copy=True).requires_grad_() for name in ("boxes", "scores")}
    feats = [level.detach().clone() for level in inputs.preds["feats"]]
    return Inputs({**leaves, "feats": feats}, {name: tensor.clone() for name, tensor in inputs.batch.items()})


def _run(criterion: Any, call: Callable[[Any, Any], Any], inputs: Inputs, setting: Setting, cotangent: Cotangent) -> Outcome:
    preds, batch = fresh_leaves(criterion, inputs)
    leaves = (preds["boxes"], preds["scores"])
    with in_setting(setting, criterion):
        answer = call(preds, batch)
    loss, items = loss_and_items(answer, leaves[0].device)
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
    """Returns the gradients of ``cotangent · loss`` with respect to the logits; ``None`` for logits that it does not depend on.

    Raises:
        MalformedError: a gradient is no plain tensor.
    """
    if not loss.requires_grad:
        return None, None
    found = torch.autograd.grad(loss, leaves, grad_outputs=loss.new_tensor(cotangent), allow_unused=True)
    for name, leaf, gradient in zip(("boxes", "scores"), leaves, found, strict=True):
        if gradient is not None:
            check_tensor(f"the gradient of {name}", gradient, leaf.device)
    return found


def _dense(gradient: Tensor | None, leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf, dtype=torch.float64) if gradient is None else gradient.double()
