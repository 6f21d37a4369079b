"""The terms of keypoints through fused kernels, on the slots of an assignment, differentiable (pose spec sections 6 to 8).

The likelihood's flow is the model's own and runs on torch, between the two launches. It is given all n keypoints of all S slots, zeros
where none counts, so that the host waits for no number::

    keypoint_terms      slots, predictions, targets     → sums of the terms; latents (S·n, 2) and their weights
    the model's flow    latents                         → log-densities (S·n,)
    keypoint_gradient   the same, the flow's gradient   → gradients of predictions and deviations, over zeros

Shape suffixes: S slots, n keypoints, P programs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from twinloss.backends.call import Call
from twinloss.backends.saved_tensors import differentiated_once, save, saved, without_autocast
from twinloss.backends.slots import Slots
from twinloss.backends.triton.arguments import KernelArguments
from twinloss.backends.triton.keypoint_arguments import HeldPoints
from twinloss.backends.triton.keypoint_gradient import keypoint_gradient
from twinloss.backends.triton.keypoint_terms import keypoint_programs, keypoint_terms
from twinloss.backends.triton.on_device import on_device
from twinloss.terms.keypoints import with_flow, without_deviations


def pose_terms(call: Call, arguments: KernelArguments, slots: Slots) -> dict[str, Tensor]:
    """The terms of keypoints by key, each without its gain and the number of images, differentiable scalars."""
    points, extras = arguments.points, call.extras
    assert points is not None
    sigmas = extras.get("kpts_sigma") if call.flow is not None else None
    at = HeldPoints(points, slots, arguments.truth, arguments.anchors, arguments.key)
    terms, without, latents, shares = _PoseTerms.apply(extras["kpts"], sigmas, at)
    found = {"pose": terms[0], "kobj": terms[1]}
    if call.flow is None:
        return found
    with without_autocast(terms):
        if sigmas is None:
            # Gradients alone depend on whether an anchor is held; the host waits for that where a model in evaluation is differentiated.
            held = int((slots.owner >= 0).sum()) if torch.is_grad_enabled() else 1
            return found | {"likelihood": without_deviations(call.flow, terms.new_zeros(1, 2), held)}
        return found | {"likelihood": with_flow(without, latents, shares, call.flow, torch.float32).to(torch.float32)}


class _PoseTerms(torch.autograd.Function):
    """Location and visibility (2,); the likelihood without its flow; what the flow is given (Q, 2), and its shares (Q,) float64."""

    @staticmethod
    def forward(ctx: Any, kpts: Tensor, sigmas: Tensor | None, at: HeldPoints) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        points = at.points
        with on_device(kpts):
            partial = torch.empty(5, keypoint_programs(at), dtype=torch.float32, device=kpts.device)
            pairs = max(len(at.slots.anchor) * points.points, 1) if points.likelihood else 1
            latents, shares = (torch.zeros(pairs, *width, dtype=torch.float32, device=kpts.device) for width in ((2,), ()))
            keypoint_terms(at, partial, latents, shares)
        held, counted, location, visibility, likelihood = partial.to(torch.float64).sum(1).unbind()
        held, counted = held.clamp(min=1), counted.clamp(min=1)
        save(ctx, kpts=kpts, **({} if sigmas is None else {"sigmas": sigmas}))
        ctx.at = replace(at, points=points.without_predictions())
        ctx.counts = held, held * points.points, counted
        ctx.set_materialize_grads(False)
        shares = shares / counted
        ctx.mark_non_differentiable(shares)
        terms = torch.stack([location / held, visibility / (held * points.points)]).to(torch.float32)
        return terms, likelihood / counted, latents, shares

    @staticmethod
    @differentiated_once
    def backward(
        ctx: Any, to_terms: Tensor | None, to_likelihood: Tensor | None, to_latents: Tensor | None, _: None
    ) -> tuple[Tensor | None, ...]:
        if to_terms is None and to_likelihood is None and to_latents is None:
            return (None,) * 3
        kpts, *given = saved(ctx)
        at = replace(ctx.at, points=ctx.at.points.with_predictions(kpts, *given))
        incoming = torch.zeros(3, dtype=torch.float64, device=kpts.device)
        if to_terms is not None:
            incoming[:2] = to_terms
        if to_likelihood is not None:
            incoming[2] = to_likelihood
        factors = (incoming / torch.stack(ctx.counts)).to(torch.float32)
        by_latents = kpts.new_zeros((), dtype=torch.float32) if to_latents is None else to_latents.contiguous()
        gradients = [torch.zeros(logits.shape, dtype=logits.dtype, device=logits.device) for logits in (kpts, *given)]
        with on_device(kpts):
            keypoint_gradient(at, factors, by_latents, gradients[0], gradients[-1])
        return gradients[0], gradients[1] if given else None, None
