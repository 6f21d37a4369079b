"""Kernel: gradients of the held anchors' keypoints and of their deviations, over zeros (pose spec section 8)."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arithmetic import decay
from twinloss.backends.triton.keypoint_arguments import HeldPoints
from twinloss.backends.triton.keypoint_residuals import EPS, by_position, deviation, held_slots, is_infinite, offset
from twinloss.backends.triton.keypoint_terms import keypoint_programs
from twinloss.backends.triton.keypoints import visible
from twinloss.backends.triton.launch import kernels_for, launch


@triton.jit(do_not_specialize=["slot_count"])
def keypoint_gradient_kernel(
    slot_count: tl.tensor,
    truth: tl.tuple,
    slots: tl.tuple,
    points: tl.tuple,
    anchors: tl.tensor,
    decoding: tl.tuple,
    floor: tl.tensor,
    factors: tl.tensor,
    by_latents: tl.tensor,
    kpts_gradient: tl.tensor,
    sigmas_gradient: tl.tensor,
    COUNT: tl.constexpr,
    NUMBERS: tl.constexpr,
    TARGET_NUMBERS: tl.constexpr,
    LIKELIHOOD: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Store the gradients at one tile of slots; ``factors`` are those of the sums of location, visibility and likelihood."""
    kpts, sigmas, keypoints, doubled, weights, centres = points
    slot = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    owner, image, anchor, held, place = held_slots(slot, slot_count, slots, truth, centres, anchors, TARGET_NUMBERS)
    x, y, stride, area, of_target = place
    column = image * (COUNT * NUMBERS) * anchors + anchor
    column_of_sigmas = image * (COUNT * 2) * anchors + anchor
    row = keypoints + owner * (COUNT * TARGET_NUMBERS)
    factor = decoding[0]
    seen = tl.zeros((TILE,), tl.float32)
    for k in range(COUNT):
        seen += tl.where(visible(row + k * TARGET_NUMBERS, held, of_target), 1.0, 0.0)
    by_location = tl.div_rn(tl.load(factors) + tl.zeros((TILE,), tl.float32), seen + EPS)
    for k in range(COUNT):
        target = row + k * TARGET_NUMBERS
        channel = column + k * NUMBERS * anchors.to(tl.int64)
        shown = visible(target, held, of_target)
        off_x = offset(kpts + channel, target, shown, x, stride, truth[5], decoding)
        off_y = offset(kpts + channel + anchors, target + 1, shown, y, stride, truth[6], decoding)
        spread = area * tl.load(doubled + k)
        pull = tl.div_rn(2.0 * by_location * decay(-tl.div_rn(off_x * off_x + off_y * off_y, spread)), spread)
        pull_x = tl.where(is_infinite(off_x), 0.0, pull * off_x)  # what is infinitely far does not pull
        pull_y = tl.where(is_infinite(off_y), 0.0, pull * off_y)
        if LIKELIHOOD:
            sigma = column_of_sigmas + k * 2 * anchors.to(tl.int64)
            spread_x, _, share_x, rest_x = deviation(tl.load(sigmas + sigma, mask=shown, other=0.0).to(tl.float32), floor)
            spread_y, _, share_y, rest_y = deviation(tl.load(sigmas + sigma + anchors, mask=shown, other=0.0).to(tl.float32), floor)
            u = tl.div_rn(off_x, spread_x + EPS)
            v = tl.div_rn(off_y, spread_y + EPS)
            counts = shown & (is_infinite(u) == 0) & (is_infinite(v) == 0)
            by_loss = tl.load(factors + 2) * tl.load(weights + k)
            pair = slot * COUNT + k
            to_x = by_position(u, spread_x + EPS, by_loss, tl.load(by_latents + 2 * pair, mask=counts, other=0.0))
            to_y = by_position(v, spread_y + EPS, by_loss, tl.load(by_latents + 2 * pair + 1, mask=counts, other=0.0))
            pull_x += tl.where(counts, to_x, 0.0)
            pull_y += tl.where(counts, to_y, 0.0)
            by_x = tl.where(share_x < floor, 0.0, (2.0 * by_loss - to_x * u * share_x) * rest_x)
            by_y = tl.where(share_y < floor, 0.0, (2.0 * by_loss - to_y * v * share_y) * rest_y)
            tl.store(sigmas_gradient + sigma, tl.where(counts, by_x, 0.0).to(sigmas_gradient.dtype.element_ty), mask=held)
            tl.store(sigmas_gradient + sigma + anchors, tl.where(counts, by_y, 0.0).to(sigmas_gradient.dtype.element_ty), mask=held)
        tl.store(kpts_gradient + channel, tl.where(shown, pull_x * factor, 0.0).to(kpts_gradient.dtype.element_ty), mask=held)
        tl.store(kpts_gradient + channel + anchors, tl.where(shown, pull_y * factor, 0.0).to(kpts_gradient.dtype.element_ty), mask=held)
        if NUMBERS > 2:
            logit = tl.load(kpts + channel + 2 * anchors, mask=held, other=0.0).to(tl.float32)
            _, _, _, wrong = deviation(tl.where(shown, logit, -logit), 0.0)
            by_logit = tl.load(factors + 1) * tl.where(shown, -wrong, wrong)
            tl.store(kpts_gradient + channel + 2 * anchors, by_logit.to(kpts_gradient.dtype.element_ty), mask=held)


def keypoint_gradient(held: HeldPoints, factors: Tensor, by_latents: Tensor, kpts_gradient: Tensor, sigmas_gradient: Tensor) -> None:
    """Store the gradients of the predictions (B, n·E, A) and deviations (B, 2n, A) at the held anchors.

    ``factors`` (3,) are derivatives by the sums of :mod:`~twinloss.backends.triton.keypoint_terms`, ``by_latents`` (S·n, 2) the flow's.
    """
    outputs, tile = (factors, by_latents, kpts_gradient, sigmas_gradient), tiles.KEYPOINTS
    kernels = kernels_for((held.call_key, "keypoint gradients", *(tensor.data_ptr() % 16 for tensor in outputs)))
    launch(kernels, keypoint_gradient_kernel, keypoint_programs(held), tile.warps, *held.common, *outputs, **held.constants, TILE=tile.size)
