"""A held anchor's keypoints in registers: errors of their places, and of the likelihood (pose spec sections 3, 6 and 8)."""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton.arithmetic import decay, greatest, log1p
from twinloss.backends.triton.keypoints import box_area

EPS = tl.constexpr(1e-9)
_MOST_LATENT = tl.constexpr(100.0)


@triton.jit
def held_slots(
    slot: tl.tensor, slot_count: tl.tensor, slots: tl.tuple, truth: tl.tuple, centres: tl.tensor, anchors: tl.tensor, of_target: tl.tensor
) -> tl.tuple:
    """Row, image and anchor of slots, whether they are held, and (x, y, stride, area in cells, whether targets have a visibility)."""
    slot_anchor, slot_owner = slots
    owner = tl.load(slot_owner + slot, mask=slot < slot_count, other=-1)
    image = tl.load(truth[0] + owner, mask=owner >= 0, other=-1).to(tl.float32)
    held = (owner >= 0) & (image >= 0) & (image < truth[3])  # a row of a given assignment may be padding
    anchor = tl.load(slot_anchor + slot, mask=held, other=0)
    x = tl.load(centres + anchor, mask=held, other=0.0)
    y = tl.load(centres + anchors + anchor, mask=held, other=0.0)
    stride = tl.load(centres + 2 * anchors + anchor, mask=held, other=1.0)
    area = tl.div_rn(box_area(owner, held, truth), stride * stride) + EPS
    return (
        owner.to(tl.int64),
        tl.where(held, image, 0.0).to(tl.int64),
        anchor,
        held,
        (x, y, stride, area, of_target + tl.zeros_like(anchor)),
    )


@triton.jit
def offset(
    raw: tl.tensor, target: tl.tensor, shown: tl.tensor, centre: tl.tensor, stride: tl.tensor, extent: tl.tensor, decoding: tl.tuple
) -> tl.tensor:
    """Predicted minus true coordinate in cells, subtracted in float64 so that a target is not rounded before a prediction near it is.

    ``raw`` and ``target`` point to the prediction and to the share of the image's ``extent``.
    """
    factor, shift = decoding
    predicted = tl.load(raw, mask=shown, other=0.0).to(tl.float64) * factor
    at = tl.load(target, mask=shown, other=0.0).to(tl.float64) * extent / stride.to(tl.float64)
    return (predicted + ((centre - shift).to(tl.float64) - at)).to(tl.float32)


@triton.jit
def is_infinite(x: tl.tensor) -> tl.tensor:
    """Whether numbers are infinite."""
    return tl.abs(x) == float("inf")


@triton.jit
def deviation(raw: tl.tensor, floor: tl.tensor) -> tl.tuple:
    """Predicted deviation ς, its logarithm, and the sigmoid that it is at least τ of, with one less that sigmoid."""
    e = decay(-tl.abs(raw))
    more = tl.div_rn(tl.full(raw.shape, 1.0, tl.float32), 1.0 + e)
    less = tl.div_rn(e, 1.0 + e)
    share = tl.where(raw < 0, less, more)
    log_share = -(greatest(-raw, tl.zeros_like(raw)) + log1p(e))
    low = share < floor
    return tl.where(low, floor, share), tl.where(low, tl.log(floor + tl.zeros_like(raw)), log_share), share, tl.where(raw < 0, more, less)


@triton.jit
def clamped_latent(latent: tl.tensor) -> tl.tensor:
    """What the flow is given of a latent."""
    return tl.where(latent > _MOST_LATENT, _MOST_LATENT, tl.where(latent < -_MOST_LATENT, -_MOST_LATENT, latent))


@triton.jit
def by_position(latent: tl.tensor, spread: tl.tensor, by_loss: tl.tensor, by_latent: tl.tensor) -> tl.tensor:
    """Derivative by a coordinate in cells of ``by_loss`` times |u|, and of the flow, whose derivative by u is ``by_latent``."""
    sign = tl.where(latent > 0, 1.0, tl.where(latent < 0, -1.0, 0.0))
    return tl.where(tl.abs(latent) > _MOST_LATENT, 0.0, tl.div_rn(by_loss * sign + by_latent, spread))  # a NaN latent gives NaN
