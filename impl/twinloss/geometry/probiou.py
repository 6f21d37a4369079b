"""ProbIoU: how much two oriented boxes overlap, taken for Gaussians (oriented spec section 6; Llerena et al. 2021, arXiv 2106.06072).

A box becomes a Gaussian with its centre as mean and the deviations a = √(w²/12 + f) and b = √(h²/12 + f) along its sides. The
determinants of the covariances are a²b², and the distance between two Gaussians consists of these sums of positive terms, in which nothing
cancels, however long and thin the boxes are (θ: angle between the boxes, ξᵢ and ηᵢ: offset of the centres along the sides of box i):

    N = b₁²ξ₁² + a₁²η₁² + b₂²ξ₂² + a₂²η₂²
    X = (a₁b₁ − a₂b₂)² + (a₁b₂ − b₁a₂)² cos²θ + (a₁a₂ − b₁b₂)² sin²θ
    G = a₁b₁a₂b₂    E = 4G + X, the determinant of the sum of the covariances
    β = N / 4(E + ε) + ½ ln(E / (4G + ε) + ε)

Near a perfect prediction the logarithm's argument is close to 1; X keeps the digits of the difference.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from twinloss.backends.saved_tensors import differentiated_once, save, saved

LONGEST = 100.0
"""Largest Bhattacharyya distance; beyond it two boxes have the same overlap and no gradient."""


def probiou(first: Tensor, second: Tensor, floor: float = 0.0, eps: float = 1e-7) -> Tensor:
    """ProbIoU of paired oriented boxes, at most 1 − √(1 − e^(−ε) + ε) (oriented spec section 6).

    Args:
        first: (..., 5): centre x, y, sides w, h in any unit, angle in radians.
        second: (..., 5), same unit.
        floor: f, added to each variance.
        eps: ε_p.

    Returns:
        (...). Where the distance is clamped the gradient is 0. Sides may be 0 or negative: only their squares count.

    Example:
        A square and itself shifted by half of its side: E = 4 · (4/12)² and β = (d²/4) · (2 · 4/12) / E = 0.375, and the loss is
        √(1 − e^(−0.375)) = 0.559.

        >>> box = torch.tensor([0.0, 0.0, 2.0, 2.0, 0.0])
        >>> round(probiou(box, box + torch.tensor([1.0, 0.0, 0.0, 0.0, 0.5])).item(), 3)
        0.441
    """
    overlap: Tensor = _ProbIoU.apply(first, second, floor, eps)
    return overlap


class _ProbIoU(torch.autograd.Function):
    """Its gradient is made with it, while the sums are there, and kept: it is smaller than the boxes."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, floor: float, eps: float) -> Tensor:
        pairs = _Pairs.of(first, second, floor)
        beta = _distance(pairs, eps)
        loss = (eps - torch.expm1(-beta.clamp(eps, LONGEST))).sqrt()
        by_first, by_second = ctx.needs_input_grad[:2]
        if by_first or by_second:
            by_beta = torch.where((beta < eps) | (beta > LONGEST), 0, -torch.exp(-beta) / (2 * loss))
            by_box = {"by_first": _distance_gradient(pairs, eps)} if by_first else {}
            by_box |= {"by_second": _distance_gradient(_Pairs.of(second, first, floor), eps)} if by_second else {}
            save(ctx, by_beta=by_beta, **by_box)
            ctx.kept = by_first, by_second
        return 1 - loss

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        by_beta, *by_box = saved(ctx)
        # Where the distance is clamped there is no gradient, whatever comes in.
        factor = torch.where(by_beta == 0, 0, by_beta * incoming).unsqueeze(-1)
        found = iter(by_box)
        return *(next(found) * factor if needed else None for needed in ctx.kept), None, None


class _Frame(NamedTuple):
    """A box as its Gaussian: sides, angle with sine and cosine, deviations, and the offset of the centres in its frame."""

    width: Tensor
    height: Tensor
    angle: Tensor
    sin: Tensor
    cos: Tensor
    a: Tensor
    b: Tensor
    xi: Tensor
    eta: Tensor

    @classmethod
    def of(cls, box: Tensor, dx: Tensor, dy: Tensor, floor: float) -> _Frame:
        _, _, width, height, angle = box.unbind(-1)
        sin, cos = angle.sin(), angle.cos()
        angle = torch.where(angle.abs() > 8, torch.atan2(sin, cos), angle)  # the difference of large angles would lose digits
        a, b = ((side.square() / 12 + floor).sqrt() for side in (width, height))
        return cls(width, height, angle, sin, cos, a, b, dx * cos + dy * sin, dy * cos - dx * sin)


class _Pairs(NamedTuple):
    """Pairs of Gaussians and the sums of the module's head; ``sin`` and ``cos`` are of the angle between the boxes."""

    one: _Frame
    two: _Frame
    sin: Tensor
    cos: Tensor
    n: Tensor
    x: Tensor
    g4: Tensor

    @classmethod
    def of(cls, first: Tensor, second: Tensor, floor: float) -> _Pairs:
        dx, dy = (first[..., axis] - second[..., axis] for axis in (0, 1))
        one, two = _Frame.of(first, dx, dy, floor), _Frame.of(second, dx, dy, floor)
        turn = one.angle - two.angle
        sin, cos = turn.sin(), turn.cos()
        n = (one.b * one.xi).square() + (one.a * one.eta).square() + (two.b * two.xi).square() + (two.a * two.eta).square()
        x = (
            (one.a * one.b - two.a * two.b).square()
            + ((one.a * two.b - one.b * two.a) * cos).square()
            + ((one.a * two.a - one.b * two.b) * sin).square()
        )
        return cls(one, two, sin, cos, n, x, 4 * (one.a * one.b) * (two.a * two.b))


def _distance(pairs: _Pairs, eps: float) -> Tensor:
    """β before its clamp."""
    # ½ ln r with r − 1 = X / (4G + ε) + ε (4G − 1 + ε) / (4G + ε)
    below = pairs.g4 + eps
    return pairs.n / (4 * (pairs.g4 + pairs.x + eps)) + 0.5 * torch.log1p((pairs.x + eps * (below - 1)) / below)


def _distance_gradient(pairs: _Pairs, eps: float) -> Tensor:
    """Gradient (..., 5) of β by x, y, w, h and θ of the first box.

    Differences of variances are products of sums and differences of sides: u₁ − u₂ = (w₁ − w₂)(w₁ + w₂) / 12.
    """
    one, two, sin, cos, n, x, g4 = pairs
    det, below = g4 + x, g4 + eps
    (u1, v1), (u2, v2) = ((frame.a.square(), frame.b.square()) for frame in (one, two))
    sin2, cos2 = sin.square(), cos.square()
    per_n, per_log = 0.25 / (det + eps), 0.5 / (det + eps * below)  # derivatives of β by N, and by E in the logarithm
    per_det = -per_n * n / (det + eps)
    along1, across1, along2, across2 = v1 * one.xi, u1 * one.eta, v2 * two.xi, u2 * two.eta
    by_x = 2 * per_n * (along1 * one.cos - across1 * one.sin + along2 * two.cos - across2 * two.sin)
    by_y = 2 * per_n * (along1 * one.sin + across1 * one.cos + along2 * two.sin + across2 * two.cos)

    loss_of_g = eps / below * det
    by_u = one.eta.square() * per_n + (v1 + v2 * cos2 + u2 * sin2) * per_det
    by_v = one.xi.square() * per_n + (u1 + u2 * cos2 + v2 * sin2) * per_det
    # Each side against the other box's side that it lies along: no digits are lost where one box is turned by a right angle.
    along_u = cos2 * _difference(one.width, two.width) * (v1 + v2) + sin2 * _difference(one.width, two.height) * (v1 + u2)
    along_v = cos2 * _difference(one.height, two.height) * (u1 + u2) + sin2 * _difference(one.height, two.width) * (u1 + v2)
    by_log_u, by_log_v = (along_u + loss_of_g) * per_log / 2, (along_v + loss_of_g) * per_log / 2
    least = torch.finfo(u1.dtype).tiny
    by_w = (by_u + by_log_u / u1.clamp(min=least)) * one.width / 6
    by_h = (by_v + by_log_v / v1.clamp(min=least)) * one.height / 6

    longer = _difference(one.width, one.height)
    det_by_angle = 2 * sin * cos * longer * _difference(two.width, two.height)
    by_angle = -2 * longer * one.xi * one.eta * per_n + det_by_angle * (per_det + per_log)
    return torch.stack([by_x, by_y, by_w, by_h, by_angle], dim=-1)


def _difference(side: Tensor, other: Tensor) -> Tensor:
    """Difference of the variances of two sides."""
    return (side - other) * (side + other) / 12
