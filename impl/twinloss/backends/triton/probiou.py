"""ProbIoU of two oriented boxes and the derivative of its loss, in registers (oriented spec sections 6 and 8).

The sums are those of :mod:`twinloss.geometry.probiou`, in which nothing cancels. A box is a tuple (x, y, w, h, θ), its angle one of
:func:`~twinloss.backends.triton.arithmetic.principal`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton.arithmetic import decay, log_beside_one, one_less_decay, sine_cosine


@triton.jit
def probiou_loss(a: tl.tuple, b: tl.tuple, floor: tl.tensor, eps: tl.tensor) -> tl.tensor:
    """1 − ProbIoU of boxes a and b in the same units."""
    beta, _, _, _, _ = _distance(a, b, floor, eps)
    return _loss(beta, eps)


@triton.jit
def _loss(beta: tl.tensor, eps: tl.tensor) -> tl.tensor:
    clamped = tl.where(beta < eps, eps, tl.where(beta > 100.0, 100.0, beta))
    return tl.sqrt_rn(one_less_decay(-clamped) + eps)


@triton.jit
def _deviation(side: tl.tensor, floor: tl.tensor) -> tl.tensor:
    return tl.sqrt_rn(side * side * 0.08333333333333333 + floor)


@triton.jit
def _square(x: tl.tensor) -> tl.tensor:
    return x * x


@triton.jit
def _distance(a: tl.tuple, b: tl.tuple, floor: tl.tensor, eps: tl.tensor) -> tl.tuple:
    """β before its clamp, and what its derivative needs: the offset of a's centre in both frames, the turn from b to a, N, X and 4G."""
    dx = a[0] - b[0]
    dy = a[1] - b[1]
    sin_b, cos_b = sine_cosine(b[4])
    xi = dx * cos_b + dy * sin_b
    eta = dy * cos_b - dx * sin_b
    sin, cos = sine_cosine(a[4] - b[4])
    xi_a = xi * cos + eta * sin
    eta_a = eta * cos - xi * sin
    wide_a = _deviation(a[2], floor)
    high_a = _deviation(a[3], floor)
    wide_b = _deviation(b[2], floor)
    high_b = _deviation(b[3], floor)
    n = _square(high_a * xi_a) + _square(wide_a * eta_a) + _square(high_b * xi) + _square(wide_b * eta)
    areas = _square(wide_a * high_a - wide_b * high_b)
    x = areas + _square((wide_a * high_b - high_a * wide_b) * cos) + _square((wide_a * wide_b - high_a * high_b) * sin)
    g4 = 4.0 * (wide_a * high_a) * (wide_b * high_b)
    below = g4 + eps
    beta = tl.div_rn(n, 4.0 * (g4 + x + eps)) + 0.5 * log_beside_one(tl.div_rn(x + eps * (below - 1.0), below))
    return beta, (xi, eta, xi_a, eta_a), (sin, cos), (n, x, g4), (wide_a, high_a, wide_b, high_b)


@triton.jit
def _difference(side: tl.tensor, other: tl.tensor) -> tl.tensor:
    """Difference of the variances of two sides."""
    return (side - other) * (side + other) * 0.08333333333333333


@triton.jit
def probiou_loss_gradient(a: tl.tuple, b: tl.tuple, floor: tl.tensor, eps: tl.tensor) -> tl.tuple:
    """Derivatives of 1 − ProbIoU: by a's centre along a's own sides, by its sides w and h, and by its angle with the centre held."""
    beta, offset, turn, sums, deviations = _distance(a, b, floor, eps)
    xi, eta, xi_a, eta_a = offset
    sin, cos = turn
    n, x, g4 = sums
    u_a = _square(deviations[0])
    v_a = _square(deviations[1])
    u_b = _square(deviations[2])
    v_b = _square(deviations[3])
    sin2 = sin * sin
    cos2 = cos * cos
    below = g4 + eps
    det = g4 + x
    flows = tl.where((beta < eps) | (beta > 100.0), 0.0, tl.div_rn(decay(-beta), 2.0 * _loss(beta, eps)))
    by_n = tl.div_rn(flows * 0.25, det + eps)
    by_log = tl.div_rn(flows * 0.5, det + eps * below)
    by_det = tl.div_rn(-by_n * n, det + eps)

    # v ξ and u η of both boxes: half the derivatives of N by the offset in each frame.
    by_xi = v_b * xi
    by_eta = u_b * eta
    by_along = (v_a * xi_a + by_xi * cos + by_eta * sin) * (2.0 * by_n)
    by_across = (u_a * eta_a + by_eta * cos - by_xi * sin) * (2.0 * by_n)

    of_g = tl.div_rn(eps * det, below)
    by_u = eta_a * eta_a * by_n + (v_a + v_b * cos2 + u_b * sin2) * by_det
    by_v = xi_a * xi_a * by_n + (u_a + u_b * cos2 + v_b * sin2) * by_det
    # Each side against the other box's side that it lies along: no digits are lost where one box is turned by a right angle.
    along_u = cos2 * _difference(a[2], b[2]) * (v_a + v_b) + sin2 * _difference(a[2], b[3]) * (v_a + u_b)
    along_v = cos2 * _difference(a[3], b[3]) * (u_a + u_b) + sin2 * _difference(a[3], b[2]) * (u_a + v_b)
    by_log_u = (along_u + of_g) * by_log * 0.5
    by_log_v = (along_v + of_g) * by_log * 0.5
    by_w = (by_u + tl.div_rn(by_log_u, tl.maximum(u_a, 1e-30))) * a[2] * 0.16666666666666666
    by_h = (by_v + tl.div_rn(by_log_v, tl.maximum(v_a, 1e-30))) * a[3] * 0.16666666666666666
    longer = _difference(a[2], a[3])
    by_angle = 2.0 * longer * (sin * cos * _difference(b[2], b[3]) * (by_det + by_log) - xi_a * eta_a * by_n)
    return by_along, by_across, by_w, by_h, by_angle
