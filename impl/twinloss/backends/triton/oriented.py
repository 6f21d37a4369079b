"""Oriented boxes in registers: where they lie, how they are decoded, their target distances and angle term (oriented spec 3 to 7).

A box is a tuple (x, y, w, h, θ), its angle one of :func:`~twinloss.backends.triton.arithmetic.principal`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton.arithmetic import decay, principal, sine_cosine
from twinloss.backends.triton.probiou import probiou_loss, probiou_loss_gradient


@triton.jit
def lengthened_region(box: tl.tuple, below: tl.tensor, shortest: tl.tensor) -> tl.tuple:
    """The box with short sides lengthened, for the inside test: centre, sine and cosine of its angle, and its half sides."""
    x, y, w, h, angle = box
    sin, cos = sine_cosine(angle)
    return x, y, sin, cos, tl.where(w < below, shortest, w) * 0.5, tl.where(h < below, shortest, h) * 0.5


@triton.jit
def enclosing_corners(region: tl.tuple) -> tl.tuple:
    """Corners of the upright rectangle around a region, wider by what rounding may take."""
    x, y, sin, cos, half_w, half_h = region
    across = tl.abs(cos) * half_w + tl.abs(sin) * half_h
    down = tl.abs(sin) * half_w + tl.abs(cos) * half_h
    across += 1e-5 * (tl.abs(x) + across)
    down += 1e-5 * (tl.abs(y) + down)
    return x - across, y - down, x + across, y + down


@triton.jit
def inside_region(region: tl.tuple, x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Whether points lie in a region, borders included."""
    centre_x, centre_y, sin, cos, half_w, half_h = region
    dx = centre_x - x
    dy = centre_y - y
    return (tl.abs(dx * cos + dy * sin) <= half_w) & (tl.abs(dy * cos - dx * sin) <= half_h)


@triton.jit
def oriented_box_at(x: tl.tensor, y: tl.tensor, distances: tl.tuple, angle: tl.tensor) -> tl.tuple:
    """The box at these distances from the centre (x, y); the angle turns the offset of its centre."""
    left, top, right, bottom = distances
    along = (right - left) * 0.5
    across = (bottom - top) * 0.5
    angle = principal(angle)
    sin, cos = sine_cosine(angle)
    return x + (along * cos - across * sin), y + (along * sin + across * cos), left + right, top + bottom, angle


@triton.jit
def target_distances(box: tl.tuple) -> tl.tuple:
    """Distances from an anchor to the sides of a box, whose centre is relative to the anchor's, in the box's frame."""
    x, y, w, h, angle = box
    sin, cos = sine_cosine(angle)
    xi = x * cos + y * sin
    eta = y * cos - x * sin
    return w * 0.5 - xi, h * 0.5 - eta, w * 0.5 + xi, h * 0.5 + eta


@triton.jit
def angle_loss(angle: tl.tensor, box: tl.tuple, scale: tl.tensor) -> tl.tuple:
    """ω sin²(2 (θ̂ − θ)), and its derivative by θ̂."""
    ratio = tl.div_rn(tl.log(tl.div_rn(box[2] + 1e-9, box[3] + 1e-9)), scale + tl.zeros_like(box[2]))
    emphasis = decay(-ratio * ratio)
    sin, cos = sine_cosine(2.0 * (principal(angle) - box[4]))
    return emphasis * sin * sin, 4.0 * emphasis * sin * cos


@triton.jit
def oriented_losses(
    distances: tl.tuple, place: tl.tensor, held: tl.tensor, box: tl.tuple, floor: tl.tensor, eps: tl.tensor, scale: tl.tensor
) -> tl.tuple:
    """Box loss and angle loss of predictions whose angles lie at ``place``; the centre of ``box`` is relative to the anchor's."""
    angle = tl.load(place, mask=held, other=0.0).to(tl.float32)
    origin = tl.zeros_like(angle)
    turn, _ = angle_loss(angle, box, scale)
    return probiou_loss(oriented_box_at(origin, origin, distances, angle), box, floor, eps), turn


@triton.jit
def oriented_gradient(
    distances: tl.tuple,
    angle: tl.tensor,
    box: tl.tuple,
    to_box: tl.tensor,
    to_angle: tl.tensor,
    floor: tl.tensor,
    eps: tl.tensor,
    scale: tl.tensor,
) -> tl.tuple:
    """Derivatives of box loss · to_box + angle loss · to_angle: by the four distances, and by the angle.

    The angle turns the box and the offset of its centre.
    """
    left, top, right, bottom = distances
    origin = tl.zeros_like(left)
    predicted = oriented_box_at(origin, origin, distances, angle)
    by_along, by_across, by_w, by_h, by_angle = probiou_loss_gradient(predicted, box, floor, eps)
    by_turn = by_angle + 0.5 * ((right - left) * by_across - (bottom - top) * by_along)
    _, turn = angle_loss(angle, box, scale)
    along = 0.5 * by_along * to_box
    across = 0.5 * by_across * to_box
    sides = (by_w * to_box - along, by_h * to_box - across, by_w * to_box + along, by_h * to_box + across)
    return sides, by_turn * to_box + turn * to_angle
