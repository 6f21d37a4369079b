"""The terms of keypoints through the compiled kernels, differentiable (pose spec sections 6 to 8).

The likelihood's flow is the model's own and runs on torch. The kernels give it the pairs of a held anchor and a keypoint that count, side
by side, and take back its gradient by them:

    kpts ── _KeypointTerms ── terms
                └── columns ── _Latents ── latents ── flow ── log-densities ──┐
                kpts_sigma ────────┴────── the rest of the likelihood ────────┴── likelihood

Shape suffixes: H held anchors, n keypoints, E numbers per predicted keypoint, P pairs.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from twinloss.assignment.assign import Assignment
from twinloss.backends.call import Call, Evaluation
from twinloss.backends.native.arguments import HOST, Targets, address, scratch
from twinloss.backends.native.library import STORAGE, KernelArguments, kernel
from twinloss.backends.saved_tensors import differentiated_once, save, saved
from twinloss.terms.keypoints import with_flow, without_deviations


def with_keypoint_terms(found: Evaluation, call: Call, arguments: KernelArguments, targets: Targets, held: Assignment) -> Evaluation:
    """Detection's terms with those of keypoints, in the definition's order."""
    terms, columns = _KeypointTerms.apply(call.extras["kpts"], arguments, targets, held)
    keys, own = ["box", "cls", "dfl", "pose", "kobj"], [terms]
    if call.flow is not None:
        with torch.autocast(HOST.type, enabled=False):
            own.append(_likelihood(columns, call, arguments, targets, held).to(torch.float32).view(1))
        keys.append("likelihood")
    gain_of = dict(zip(call.spec.terms, call.spec.term_gains, strict=True))
    own_terms = torch.cat(own) * terms.new_tensor([gain_of[key] for key in keys[3:]])
    # One selection, in place of in_order, which costs 2 to 7 % of a step on one image of 64 px.
    order = torch.tensor([keys.index(key) for key in call.spec.terms], device=HOST)
    loss, items = torch.cat([found.loss, own_terms * len(call.scores)]), torch.cat([found.items, own_terms.detach()])
    return Evaluation(loss.index_select(0, order), items.index_select(0, order), found.assignment)


def _likelihood(columns: Tensor, call: Call, arguments: KernelArguments, targets: Targets, held: Assignment) -> Tensor:
    """The likelihood term without its gain, a scalar."""
    assert call.flow is not None
    if "kpts_sigma" not in call.extras:
        return without_deviations(call.flow, columns.new_zeros(1, 2), len(held))
    without, latents, shares = _Latents.apply(columns, call.extras["kpts_sigma"], arguments, targets, held)
    return with_flow(without, latents, shares, call.flow, torch.float32)


class _KeypointTerms(torch.autograd.Function):
    """Location and visibility term without gains (2,), and the predictions of the held anchors (H, n·E)."""

    @staticmethod
    def forward(ctx: Any, kpts: Tensor, arguments: KernelArguments, targets: Targets, held: Assignment) -> tuple[Tensor, Tensor]:
        terms = torch.empty(2, dtype=torch.float32, device=HOST)
        columns, slopes = (torch.empty(len(held), kpts.shape[1], dtype=torch.float32, device=HOST) for _ in range(2))
        _run("terms", arguments, kpts.dtype, held, terms, columns, slopes)
        ctx.arguments, ctx.targets, ctx.held, ctx.slopes = arguments, targets, held, slopes
        ctx.shape, ctx.dtype = kpts.shape, kpts.dtype
        ctx.set_materialize_grads(False)
        return terms, columns

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, to_terms: Tensor | None, to_columns: Tensor | None) -> tuple[Tensor | None, ...]:
        if to_terms is None and to_columns is None:
            return (None,) * 4
        factors = (0.0, 0.0) if to_terms is None else to_terms.tolist()
        further = None if to_columns is None else to_columns.contiguous()
        gradient = torch.empty(ctx.shape, dtype=ctx.dtype, device=HOST)
        _run("gradient", ctx.arguments, ctx.dtype, ctx.held, *factors, ctx.slopes, further, gradient)
        return gradient, None, None, None


class _Latents(torch.autograd.Function):
    """The likelihood without its flow (a float64 scalar), what the flow is given (P, 2), and each pair's share in the term (P,) float64.

    Where no pair counts there is one of zeros with share 0: gradients of predictions and flow are then zero, not missing.
    """

    @staticmethod
    def forward(
        ctx: Any, columns: Tensor, sigmas: Tensor, arguments: KernelArguments, targets: Targets, held: Assignment
    ) -> tuple[Tensor, Tensor, Tensor]:
        most = max(len(held) * sigmas.shape[1] // 2, 1)
        raw = torch.empty(len(held), sigmas.shape[1], dtype=torch.float32, device=HOST)
        first_pair = torch.empty(len(held) + 1, dtype=torch.int64, device=HOST)
        latents, shares = torch.zeros(most, 2, dtype=torch.float32, device=HOST), torch.zeros(most, dtype=torch.float64, device=HOST)
        without = torch.empty((), dtype=torch.float64, device=HOST)
        pairs = _run("likelihood", arguments, sigmas.dtype, held, columns, raw, first_pair, latents, shares, without)
        save(ctx, columns=columns)
        # All else that the backward pass reads is nobody else's.
        ctx.arguments, ctx.targets, ctx.held, ctx.raw, ctx.first_pair = arguments, targets, held, raw, first_pair
        ctx.shape, ctx.dtype = sigmas.shape, sigmas.dtype
        ctx.set_materialize_grads(False)
        latents, shares = latents[: max(pairs, 1)].clone(), shares[: max(pairs, 1)].clone()
        ctx.mark_non_differentiable(shares)
        return without, latents, shares

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, to_without: Tensor | None, to_latents: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if to_without is None and to_latents is None:
            return (None,) * 5
        (columns,) = saved(ctx)
        factor, further = 0.0 if to_without is None else to_without.item(), None if to_latents is None else to_latents.contiguous()
        by_columns = torch.empty_like(columns) if ctx.needs_input_grad[0] else None
        by_sigmas = torch.empty(ctx.shape, dtype=ctx.dtype, device=HOST) if ctx.needs_input_grad[1] else None
        inputs = columns.contiguous(), ctx.raw, ctx.first_pair, factor, further
        _run("likelihood_gradient", ctx.arguments, ctx.dtype, ctx.held, *inputs, torch.empty_like(ctx.raw), by_columns, by_sigmas)
        return by_columns, by_sigmas, None, None, None


def _run(name: str, arguments: KernelArguments, dtype: torch.dtype, held: Assignment, *given: Tensor | float | None) -> Any:
    """Calls a function of keypoints; tensors are given by their addresses."""
    memory = scratch(kernel("scratch_of_terms", "keypoints")(ctypes.byref(arguments), len(held)))
    where = ctypes.byref(arguments), STORAGE[dtype], memory.data_ptr(), ctypes.byref(address(held)), len(held)
    return kernel(name, "keypoints")(*where, *(x.data_ptr() if isinstance(x, Tensor) else x for x in given))
