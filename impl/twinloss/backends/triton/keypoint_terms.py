"""Kernel: location and visibility of the held anchors' keypoints, and all of their likelihood but the flow (pose spec section 6).

Every slot has room for its n keypoints in what the flow is given, so that the host need not wait for the number of those that count: the
others are zeros, with share 0.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arithmetic import decay, greatest, log1p, one_less_decay
from twinloss.backends.triton.keypoint_arguments import HeldPoints
from twinloss.backends.triton.keypoint_residuals import EPS, clamped_latent, deviation, held_slots, is_infinite, offset
from twinloss.backends.triton.keypoints import visible
from twinloss.backends.triton.launch import blocks, kernels_for, launch


@triton.jit
def _pair(off_x: tl.tensor, off_y: tl.tensor, sigma_x: tl.tensor, sigma_y: tl.tensor, shown: tl.tensor, floor: tl.tensor) -> tl.tuple:
    """What the flow is given of keypoints, whether they count, and their likelihood without weight and flow; zeros where they do not."""
    spread_x, log_x, _, _ = deviation(tl.load(sigma_x, mask=shown, other=0.0).to(tl.float32), floor)
    spread_y, log_y, _, _ = deviation(tl.load(sigma_y, mask=shown, other=0.0).to(tl.float32), floor)
    u = tl.div_rn(off_x, spread_x + EPS)
    v = tl.div_rn(off_y, spread_y + EPS)
    counts = shown & (is_infinite(u) == 0) & (is_infinite(v) == 0)
    u = tl.where(counts, clamped_latent(u), 0.0)
    v = tl.where(counts, clamped_latent(v), 0.0)
    own = 2.0 * (log_x + log_y) + 1.3862943611198906 + tl.abs(u) + tl.abs(v)  # 2 log 2
    return u, v, counts, tl.where(counts, own, 0.0)


@triton.jit(do_not_specialize=["slot_count"])
def keypoint_terms_kernel(
    slot_count: tl.tensor,
    truth: tl.tuple,
    slots: tl.tuple,
    points: tl.tuple,
    anchors: tl.tensor,
    decoding: tl.tuple,
    floor: tl.tensor,
    partial: tl.tensor,
    latents: tl.tensor,
    shares: tl.tensor,
    COUNT: tl.constexpr,
    NUMBERS: tl.constexpr,
    TARGET_NUMBERS: tl.constexpr,
    LIKELIHOOD: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Store one tile's sums: held anchors, pairs, location, visibility and likelihood; and latents and weights of its keypoints."""
    kpts, sigmas, keypoints, doubled, weights, centres = points
    slot = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    owner, image, anchor, held, place = held_slots(slot, slot_count, slots, truth, centres, anchors, TARGET_NUMBERS)
    x, y, stride, area, of_target = place
    column = kpts + image * (COUNT * NUMBERS) * anchors + anchor
    column_of_sigmas = sigmas + image * (COUNT * 2) * anchors + anchor
    row = keypoints + owner * (COUNT * TARGET_NUMBERS)
    none = tl.zeros((TILE,), tl.float32)
    seen = none
    for k in range(COUNT):
        seen += tl.where(visible(row + k * TARGET_NUMBERS, held, of_target), 1.0, 0.0)
    location = none
    visibility = none
    likelihood = none
    pairs = none
    for k in range(COUNT):
        target = row + k * TARGET_NUMBERS
        channel = column + k * NUMBERS * anchors.to(tl.int64)
        shown = visible(target, held, of_target)
        off_x = offset(channel, target, shown, x, stride, truth[5], decoding)
        off_y = offset(channel + anchors, target + 1, shown, y, stride, truth[6], decoding)
        error = tl.div_rn(off_x * off_x + off_y * off_y, area * tl.load(doubled + k))
        location += tl.where(shown, one_less_decay(-error), 0.0)
        if NUMBERS > 2:
            logit = tl.load(channel + 2 * anchors, mask=held, other=0.0).to(tl.float32)
            right = tl.where(shown, logit, -logit)
            visibility += tl.where(held, greatest(-right, none) + log1p(decay(-tl.abs(right))), 0.0)
        if LIKELIHOOD:
            sigma = column_of_sigmas + k * 2 * anchors.to(tl.int64)
            u, v, counts, own = _pair(off_x, off_y, sigma, sigma + anchors, shown, floor)
            weight = tl.where(counts, tl.load(weights + k), 0.0)
            likelihood += weight * own
            pairs += tl.where(counts, 1.0, 0.0)
            pair = slot * COUNT + k
            tl.store(latents + 2 * pair, u, mask=slot < slot_count)
            tl.store(latents + 2 * pair + 1, v, mask=slot < slot_count)
            tl.store(shares + pair, weight, mask=slot < slot_count)
    location = tl.div_rn(location, seen + EPS)
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    tl.store(partial + program, tl.sum(tl.where(held, 1.0, 0.0), axis=0))
    tl.store(partial + programs + program, tl.sum(pairs, axis=0))
    tl.store(partial + 2 * programs + program, tl.sum(location, axis=0))
    tl.store(partial + 3 * programs + program, tl.sum(visibility, axis=0))
    tl.store(partial + 4 * programs + program, tl.sum(likelihood, axis=0))


def keypoint_programs(held: HeldPoints) -> int:
    """Number of programs, which is the number of partial sums of each quantity."""
    return blocks(held.slots.anchor.shape[0], tiles.KEYPOINTS.size)


def keypoint_terms(held: HeldPoints, partial: Tensor, latents: Tensor, shares: Tensor) -> None:
    """Fill ``partial`` (5, programs), and where there is a likelihood ``latents`` (S·n, 2) and their weights ``shares`` (S·n,)."""
    tile, kernels = tiles.KEYPOINTS, kernels_for((held.call_key, "keypoints"))
    outputs = partial, latents, shares
    launch(kernels, keypoint_terms_kernel, keypoint_programs(held), tile.warps, *held.common, *outputs, **held.constants, TILE=tile.size)
