"""Runs a criterion in a setting on fresh leaves, and takes its gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from oracle.cases.case import PAIRS, Inputs, Setting
from oracle.contract.answer_form import check_tensor, describe, leaf_dtype, loss_and_items
from oracle.contract.contender import Contender, Criterion, OffersAssignment
from twinloss import Assignment, LossSpec

DETECTION_TERMS = ("box", "cls", "dfl")


@dataclass(frozen=True)
class Outcome:
    """The answer of a criterion, converted to float64.

    Attributes:
        loss: (T,), multiplied by the number of images.
        items: the logged terms by name.
        gradients: gradient of the weighted sum of the loss by prediction, in its shape; zeros if it is missing.
        missing: names of the predictions without a gradient.
        loss_dtype: dtype of the loss before the conversion.
    """

    loss: Tensor
    items: dict[str, float]
    gradients: Mapping[str, Tensor]
    missing: tuple[str, ...]
    loss_dtype: torch.dtype

    def on_host(self) -> Outcome:
        """Returns a copy on the CPU, where the judge computes."""
        return replace(self, loss=self.loss.cpu(), gradients={name: gradient.cpu() for name, gradient in self.gradients.items()})


def with_gradient(outcome: Outcome, name: str, gradient: Tensor) -> Outcome:
    """Returns an outcome with another gradient of one prediction."""
    return replace(outcome, gradients={**outcome.gradients, name: gradient})


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
        if setting.dtype == "float64" and not _is_twin(criterion):
            stack.enter_context(double_precision())
        if setting.autocast is not None and not hasattr(criterion, "leaf_dtype"):
            stack.enter_context(torch.autocast(torch.device(setting.device).type, dtype=getattr(torch, setting.autocast)))
        yield


def _is_twin(criterion: object) -> bool:
    """Whether a criterion is of the twin's classes; by their module, since revisions that the gate imports have another base class."""
    return any(kind.__module__ == "twinloss.loss" for kind in type(criterion).__mro__)


def make_criterion(contender: Contender, spec: LossSpec, setting: Setting, flow: nn.Module | None = None) -> Criterion:
    """Returns a contender's criterion, created in the setting in which it will run; its factory gets the flow, if there is one.

    Raises:
        TypeError: the factory did not return a callable.
        MalformedError: the criterion's ``leaf_dtype`` is no dtype.
    """
    with in_setting(setting):
        criterion = contender.factory(spec) if flow is None else _with_flow(contender, spec, flow)
    if not callable(criterion):
        raise TypeError(
            f"the factory of {contender.name} returned {describe(criterion)}; it must return a callable (preds, batch) -> (loss, items)"
        )
    leaf_dtype(criterion)
    return criterion


def _with_flow(contender: Contender, spec: LossSpec, flow: nn.Module) -> Criterion:
    try:
        return contender.factory(spec, flow=flow)
    except TypeError as error:
        if "unexpected keyword argument 'flow'" in str(error):
            remedy = "where spec.flow is True the factory is called as factory(spec, flow=module): take it, or say so in factory.declines"
            raise TypeError(f"{error}; {remedy}") from error
        raise


def run_loss(
    criterion: Criterion,
    inputs: Inputs,
    setting: Setting,
    cotangent: Sequence[float] | None = None,
    terms: Sequence[str] = DETECTION_TERMS,
    flow: nn.Module | None = None,
) -> Outcome:
    """Returns the complete loss and its gradients.

    Args:
        criterion: the criterion.
        inputs: predictions and targets.
        setting: dtype, autocast and device.
        cotangent: factor of each term in the sum that is differentiated; ``None`` for ones.
        terms: names of the terms, in the order of the result.
        flow: the criterion's flow, if it has one, of whose parameters the gradient is taken too.

    Raises:
        MalformedError: the answer is not (loss (T,), items), or a gradient is no plain tensor.
    """
    return _run(criterion, criterion, inputs, setting, cotangent, terms, flow)


def run_given(
    criterion: OffersAssignment,
    inputs: Inputs,
    setting: Setting,
    assignment: Assignment,
    cotangent: Sequence[float] | None = None,
    terms: Sequence[str] = DETECTION_TERMS,
    flow: nn.Module | None = None,
) -> Outcome:
    """Returns the loss and its gradients on a given assignment; arguments and errors as for :func:`run_loss`."""
    return _run(criterion, lambda preds, batch: criterion.loss_given(preds, batch, assignment), inputs, setting, cotangent, terms, flow)


def run_assign(criterion: OffersAssignment, inputs: Inputs, setting: Setting) -> Assignment:
    """Returns the criterion's assignment."""
    preds, batch = fresh_leaves(criterion, inputs)
    with in_setting(setting, criterion), torch.no_grad():
        return criterion.assign(preds, batch)


def leaves_of(preds: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the predictions that have a gradient, by name: all but ``feats``."""
    found: dict[str, Tensor] = {}
    for name, value in preds.items():
        if name != "feats":
            found |= dict(zip(PAIRS[name], value, strict=True)) if isinstance(value, tuple) else {name: value}
    return found


def fresh_leaves(criterion: Any, inputs: Inputs) -> Inputs:
    """Returns copies of the inputs for one call; the predictions are leaves, in the criterion's ``leaf_dtype`` if it has one.

    A criterion with a ``leaf_dtype`` gets the same values as the others in a wider dtype, so that its gradient is not rounded.
    """
    dtype = leaf_dtype(criterion)

    def leaf(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(leaf, value))
        return value.detach().to(dtype, copy=True).requires_grad_()

    preds = {name: [level.detach().clone() for level in value] if name == "feats" else leaf(value) for name, value in inputs.preds.items()}
    return Inputs(preds, {name: tensor.clone() for name, tensor in inputs.batch.items()})


def _run(
    criterion: Any,
    call: Callable[[Any, Any], Any],
    inputs: Inputs,
    setting: Setting,
    cotangent: Sequence[float] | None,
    terms: Sequence[str],
    flow: nn.Module | None,
) -> Outcome:
    preds, batch = fresh_leaves(criterion, inputs)
    leaves = leaves_of(preds)
    with in_setting(setting, criterion):
        answer = call(preds, batch)
    loss, items = loss_and_items(answer, preds["boxes"].device, terms)
    found = gradients(loss, leaves, cotangent, flow)
    return Outcome(
        loss=loss.detach().double(),
        items=items,
        gradients={name: _dense(gradient, leaves[name] if name in leaves else _parameters(flow)) for name, gradient in found.items()},
        missing=tuple(name for name, gradient in found.items() if gradient is None),
        loss_dtype=loss.dtype,
    )


def gradients(
    loss: Tensor, leaves: Mapping[str, Tensor], cotangent: Sequence[float] | None = None, flow: nn.Module | None = None
) -> dict[str, Tensor | None]:
    """Returns the gradients of ``cotangent · loss`` by prediction; ``None`` for one that it does not depend on.

    Args:
        loss: (T,).
        leaves: the predictions, by name.
        cotangent: factor of each term; ``None`` for ones.
        flow: a module whose parameters' gradients make one row, ``"flow"``.

    Raises:
        MalformedError: a gradient is no plain tensor.
    """
    parameters = {} if flow is None else dict(flow.named_parameters())
    if not loss.requires_grad:
        return dict.fromkeys([*leaves, *(["flow"] if parameters else [])])
    factors = torch.ones_like(loss) if cotangent is None else loss.new_tensor(cotangent)
    asked = {**leaves, **parameters}
    found: dict[str, Tensor | None] = dict(
        zip(asked, torch.autograd.grad(loss, list(asked.values()), grad_outputs=factors, allow_unused=True), strict=True)
    )
    for name, gradient in found.items():
        if gradient is not None:
            check_tensor(f"the gradient of {name}", gradient, asked[name].device)
    of_flow = [found.pop(name) for name in parameters]
    if not parameters:
        return found
    row = torch.cat([_dense(gradient, parameter).flatten() for gradient, parameter in zip(of_flow, parameters.values(), strict=True)])
    return found | {"flow": None if all(gradient is None for gradient in of_flow) else row}


def _parameters(flow: nn.Module | None) -> Tensor:
    """Returns the parameters of a flow in one row."""
    assert flow is not None
    return torch.cat([parameter.detach().flatten() for parameter in flow.parameters()])


def _dense(gradient: Tensor | None, leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf, dtype=torch.float64) if gradient is None else gradient.double()
