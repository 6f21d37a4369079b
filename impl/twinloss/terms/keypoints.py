"""Terms over the keypoints of the held anchors: location, visibility and likelihood (pose spec sections 3, 6 and 8).

Every held anchor counts the same, whatever its soft target: location and visibility are means over the held anchors, likelihood is one
over the visible keypoints. The few numbers concerned are float64, so that a target's coordinate is not rounded before a prediction near
it is subtracted; the flow alone computes in the working dtype.

Example: an anchor with centre (2.5, 2.5) on stride 8 predicts a keypoint, in the first generation at 2 · raw + centre − 1/2:

>>> centre, stride = torch.tensor([[2.5, 2.5]]), torch.tensor([8.0])
>>> raw, target = torch.tensor([[[0.5, 1.0]]]), torch.tensor([[[24.0, 24.0]]])  # one keypoint, its target in pixels
>>> difference = keypoint_differences(raw, target, centre, stride, generation=1)
>>> difference.tolist()  # (1 + 2, 2 + 2) − 24 / 8, in grid units
[[[0.0, 1.0]]]
>>> visible, area = torch.tensor([[True]]), torch.tensor([4.0])  # a box of 4 cells
>>> round(location_term(difference, visible, area, doubled=torch.tensor([0.25])).item(), 4)  # 1 − exp(−1² / (0.25 · 4))
0.6321

Shape suffixes: B images, A anchors, H held anchors, n keypoints, E numbers per keypoint, Q pairs of held anchor and keypoint; 2
coordinates (x, y).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from twinloss.backends.saved_tensors import differentiated_once, save, saved

Generation = Literal[1, 2]
Flow = Callable[[Tensor], Tensor]
"""Log-density (P,) of points (P, 2), each point by itself."""

EPS = 1e-9
"""ε_k, of all denominators here."""

MOST_LATENT = 100.0
"""u is clamped to ± this before the flow sees it."""

COCO_SIGMAS = (0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89)
"""10 σ_k of the 17 keypoints of COCO (its keypoint evaluation)."""

COCO_WEIGHTS = (1.0,) * 7 + (1.2, 1.2, 1.5, 1.5, 1.0, 1.0, 1.2, 1.2, 1.5, 1.5)
"""ω_k of the same keypoints: elbows and knees 1.2, wrists and ankles 1.5."""

FACTOR: dict[Generation, float] = {1: 2.0, 2: 1.0}
SHIFT: dict[Generation, float] = {1: 0.5, 2: 0.0}
"""A position is factor · raw + the anchor's centre − shift, by generation."""


def doubled_variances(shape: tuple[int, int], sigmas: Sequence[float] | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """8σ_k² of each keypoint, (n,) float64 (pose spec section 4).

    Args:
        shape: (n, E). With (17, 3) the default constants are COCO's, otherwise 1/n.
        sigmas: n constants in place of the default, or ``None``.
        dtype: of the arithmetic. (2σ_k)² is rounded to float32, but that of 1/n to this one.
        device: of the result.
    """
    if sigmas is not None:
        sigma_n = torch.tensor(sigmas, dtype=torch.float32, device=device)
    elif tuple(shape) == (17, 3):
        sigma_n = torch.tensor(COCO_SIGMAS, dtype=torch.float32, device=device) / 10
    else:
        sigma_n = torch.full(shape[:1], 1 / shape[0], dtype=dtype, device=device)
    return (sigma_n * 2).square().to(torch.float64) * 2


def likelihood_weights(shape: tuple[int, int], device: torch.device) -> Tensor:
    """ω_k of each keypoint, (n,) float64 of float32 numbers: COCO's for the shape (17, 3), otherwise 1 (pose spec section 6)."""
    weights = COCO_WEIGHTS if tuple(shape) == (17, 3) else (1.0,) * shape[0]
    return torch.tensor(weights, dtype=torch.float32, device=device).to(torch.float64)


def visible(keypoints: Tensor) -> Tensor:
    """Whether each target keypoint (..., n, 2 or 3) is visible, as (..., n): its third number is not 0; without one all are."""
    return keypoints[..., 2] != 0 if keypoints.shape[-1] > 2 else torch.ones_like(keypoints[..., 0], dtype=torch.bool)


def decode_keypoints(kpts: Tensor, centres: Tensor, shape: tuple[int, int], generation: Generation) -> Tensor:
    """Predicted keypoints of every anchor (pose spec section 3).

    Args:
        kpts: (B, n·E, A) raw, channel = keypoint·E + component.
        centres: (A, 2) in grid units.
        shape: (n, E).
        generation: 1 counts from the cell's corner with factor 2, 2 from its centre.

    Returns:
        (B, A, n, E): x and y in grid units of each anchor's level, then, for E = 3, the visibility logit, in the dtype of ``kpts``.
    """
    raw_BAnE = kpts.view(len(kpts), *shape, -1).permute(0, 3, 1, 2)
    points_BAn2 = raw_BAnE[..., :2] * FACTOR[generation] + (centres.to(kpts.dtype) - SHIFT[generation]).unsqueeze(1)
    return torch.cat([points_BAn2, raw_BAnE[..., 2:]], dim=-1)


def keypoint_differences(raw: Tensor, target: Tensor, centres: Tensor, strides: Tensor, generation: Generation) -> Tensor:
    """Predicted minus true position (H, n, 2) of the keypoints of some anchors, in grid units and float64.

    Args:
        raw: (H, n, 2) predictions.
        target: (H, n, 2) pixels.
        centres: (H, 2) of the anchors, in grid units.
        strides: (H,) of the anchors, in pixels.
        generation: of the decoding.
    """
    origin_H12 = (centres.to(torch.float64) - SHIFT[generation]).unsqueeze(1)
    return raw.to(torch.float64) * FACTOR[generation] + (origin_H12 - target.to(torch.float64) / strides.to(torch.float64)[:, None, None])


def location_term(difference: Tensor, visible: Tensor, area: Tensor, doubled: Tensor) -> Tensor:
    """Mean over the held anchors of the mean over their visible keypoints of 1 − exp(−e) (pose spec section 6).

    Args:
        difference: (H, n, 2) in grid units. An infinite one costs 1 and has no gradient; that of an invisible keypoint is not read.
        visible: (H, n) bool.
        area: (H,) true box's area in cells of the anchor's level.
        doubled: (n,) 8σ_k².
    """
    result: Tensor = _Location.apply(difference, visible, (area.to(torch.float64)[:, None] + EPS) * doubled)
    return result


def visibility_term(logits: Tensor, visible: Tensor) -> Tensor:
    """Mean of binary cross-entropy over the keypoints (H, n) of the held anchors; an infinite logit costs 0 or infinity."""
    # log-sigmoid of ±x has the limits of cross-entropy at infinite logits.
    signed_Hn = torch.where(visible, logits, -logits).to(torch.float64)
    return (-logsigmoid(signed_Hn)).sum() / max(signed_Hn.numel(), 1)


def likelihood_term(
    difference: Tensor, raw_sigma: Tensor, visible: Tensor, weight: Tensor, flow: Flow, dtype: torch.dtype, floor: float
) -> Tensor:
    """Residual log-likelihood of the visible keypoints, at least 0 (pose spec sections 6 and 8; Li et al. 2021, arXiv 2107.11291).

    Args:
        difference: (H, n, 2) in grid units.
        raw_sigma: (H, n, 2) predicted deviations before the sigmoid.
        visible: (H, n) bool.
        weight: (n,) ω_k.
        flow: log-density; its parameters get gradients, zero where no pair counts. On the host it is given the pairs that count; elsewhere
            all, with zeros in place of those that do not, so that the host need not wait for their number.
        dtype: in which the flow computes.
        floor: τ, as in :func:`deviations`.

    Raises:
        ValueError: the flow does not return one number per point.
    """
    latent_Hn2 = difference.detach() / (deviations(raw_sigma.detach(), floor) + EPS)
    counts_Q = (visible & ~latent_Hn2.isinf().any(-1)).view(-1)
    pairs = (difference.view(-1, 2), raw_sigma.reshape(-1, 2), weight.repeat(len(visible)).view(-1, 1))
    offset_Q2, sigma_Q2, weight_Q1 = _counting(counts_Q, *pairs)
    deviation_Q2 = deviations(sigma_Q2, floor)
    latent_Q2 = (offset_Q2 / (deviation_Q2 + EPS)).clamp(-MOST_LATENT, MOST_LATENT)
    per_side_Q2 = 2 * deviation_Q2.log() + math.log(2) + latent_Q2.abs()
    share_Q = weight_Q1.squeeze(1) / counts_Q.sum().clamp(min=1)
    return with_flow((share_Q * per_side_Q2.sum(-1)).sum(), latent_Q2, share_Q, flow, dtype)


class DeferredFlow:
    """In place of a flow that runs elsewhere: keeps what :func:`with_flow` was given, and the term is 0.

    Attributes:
        given: the part of the term without the flow, what the flow is to be given, and each pair's share, as :func:`with_flow` takes them;
            ``None`` where the term was not asked for.
    """

    def __init__(self) -> None:
        self.given: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, latent: Tensor) -> Tensor:
        """Zeros (P,) for points (P, 2)."""
        return latent.new_zeros(len(latent))


def with_flow(without: Tensor, latent: Tensor, share: Tensor, flow: Flow, dtype: torch.dtype) -> Tensor:
    """The likelihood term, a float64 scalar, from its part that needs no flow.

    Args:
        without: that part, a float64 scalar.
        latent: (Q, 2) what the flow is given.
        share: (Q,) float64, ω divided by the number of pairs that count.
        flow: log-density.
        dtype: in which the flow computes.

    Raises:
        ValueError: the flow does not return one number per point.
    """
    if isinstance(flow, DeferredFlow):
        flow.given = without, latent, share
        return without.detach() * 0
    mean = without - 2 * (share * _log_density(flow, latent.to(dtype)).to(torch.float64)).sum()
    return torch.where(mean >= 0, mean, mean * 0)  # passes the gradient at 0, and NaN


def without_deviations(flow: Flow, nowhere: Tensor, held: int) -> Tensor:
    """The likelihood term of a model that gives no deviations: 0, in the flow's graph where nothing is held, as the reference's is.

    Args:
        flow: log-density.
        nowhere: (1, 2) zeros in the dtype of the arithmetic.
        held: number of held anchors.
    """
    return nowhere.new_zeros(()) if held else (flow(nowhere).sum() * 0).to(nowhere.dtype)


def _log_density(flow: Flow, latent_Q2: Tensor) -> Tensor:
    density: Tensor = flow(latent_Q2)
    if density.shape != latent_Q2.shape[:1]:
        given, returned = tuple(latent_Q2.shape), tuple(density.shape)
        raise ValueError(
            f"the flow was given points {given} and returned {returned}; it must return one log-density per point, {given[:1]}"
        )
    return density


def deviations(raw_sigma: Tensor, floor: float) -> Tensor:
    """Predicted deviations ς in float64: the sigmoid, but at least ``floor``, the smallest normal number of the prediction's dtype (τ)."""
    share = raw_sigma.to(torch.float64).sigmoid()
    return torch.where(share < floor, torch.full_like(share, floor), share)


def _waits_for_nothing(counts_Q: Tensor) -> bool:
    """Whether the host can ask how many pairs count without waiting for a device."""
    return counts_Q.device.type == "cpu"


def _counting(counts_Q: Tensor, *values: Tensor) -> list[Tensor]:
    """Rows of values (Q, width) that count; at least one, of zeros where none does."""
    masked = [torch.where(counts_Q[:, None], value, 0) for value in values]
    if _waits_for_nothing(counts_Q):
        rows = counts_Q.nonzero().squeeze(1)
        masked = [value.index_select(0, rows) for value in masked]
    # A row of zeros keeps the gradients of predictions and flow zero, not missing, where nothing counts.
    return masked if len(masked[0]) else [torch.cat([value, value.new_zeros(1, value.shape[1])]) for value in masked]


class _Location(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, difference_Hn2: Tensor, visible_Hn: Tensor, spread_Hn: Tensor) -> Tensor:
        offset_Hn2 = torch.where(visible_Hn.unsqueeze(-1), difference_Hn2, torch.zeros_like(difference_Hn2))
        share_Hn = visible_Hn / ((visible_Hn.sum(-1, keepdim=True, dtype=torch.float64) + EPS) * max(len(visible_Hn), 1))
        exponent_Hn = offset_Hn2.square().sum(-1) / -spread_Hn
        pull_Hn2 = offset_Hn2 * (2 * share_Hn * exponent_Hn.exp() / spread_Hn).unsqueeze(-1)
        save(ctx, gradient=torch.where(offset_Hn2.isinf(), torch.zeros_like(pull_Hn2), pull_Hn2))
        return (exponent_Hn.expm1() * -share_Hn).sum()

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, None, None]:
        (gradient_Hn2,) = saved(ctx)
        return gradient_Hn2 * incoming, None, None
