"""The ProbIoU and its slopes under rounding (oriented spec sections 6, 8 and 8a).

The ten numbers of two boxes are moved one at a time by their rounding, and the changes are added up. The definition's E = P Q - M² and
D = p q - c² are differences of numbers that are larger by the factor κ of a long box, its aspect squared: their rounding is moved as well,
so that a program that forms them as the specification writes them is correct, and one that avoids the differences too. Bounds are on the
Bhattacharyya distance β; the ProbIoU and its slope in β follow from its interval, which is narrow where they are steep. Example: in float32
two equal boxes of 20 : 1, turned by 0.3, have κ = 400, and β, which is 0 and clamped to 1e-7, may be any number up to 5e-5.

>>> box, exact = torch.tensor([[3.0, 2, 20, 1, 0.3]], dtype=torch.float64), torch.zeros(1, 5, dtype=torch.float64)
>>> found = distance_interval(BoxPair(box, exact, box, exact), 0.01, 1e-7, Roundoffs(2.0**-24, 2.0**-24))
>>> [f"{float(value):.0e}" for value in (found.value, found.high)]
['0e+00', '5e-05']
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from oracle.definition.oriented_formulas import LARGEST_DISTANCE, Spreads, bhattacharyya, decoded_boxes, spreads, variances

# Roundings that a correct program may commit, as multiples of the unit roundoff. Measured like those of oracle.tolerance.coordinates.
DETERMINANT_ROUNDINGS = 5.0  # Of each product in a determinant: its factors are covariances, which are rounded themselves.
APART_ROUNDINGS = 4.0  # Of each product in the centres' part, and of the quotient.
LOGARITHM_ROUNDINGS = 3.0  # Of the logarithm's argument, which is rounded at its size, 1 for equal boxes.
EXPONENTIAL_ROUNDINGS = 2.0  # Of 1 - exp(-β), formed as a difference, and of the root.
SLOPE_ROUNDINGS = 8.0  # Of each product that adds to a slope, and of the factors of both.
_CHUNK = 1 << 14  # Pairs of boxes that are moved together.


class Roundoffs(NamedTuple):
    """Unit roundoffs: of what mixes both boxes, and of the prediction's own covariance and determinant."""

    core: float
    predicted: float


class BoxPair(NamedTuple):
    """Predictions and truths (n, 5) with the tolerance (n, 5) of their numbers."""

    predicted: Tensor
    predicted_tolerance: Tensor
    truth: Tensor
    truth_tolerance: Tensor

    def part(self, some: slice) -> BoxPair:
        """Returns some of the pairs."""
        return BoxPair(*(column[some] for column in self))

    def moved(self, direction: float) -> tuple[Tensor, Tensor]:
        """Returns the boxes (10, n, 5) with one number moved by its tolerance in each row."""
        steps = direction * torch.eye(10, dtype=torch.float64)[:, None]
        tolerance = torch.cat([self.predicted_tolerance, self.truth_tolerance], 1)
        predicted, truth = (torch.cat([self.predicted, self.truth], 1) + steps * tolerance).split(5, -1)
        return predicted, truth


class Interval(NamedTuple):
    """Numbers (n,) and the ends of the interval in which correct programs find them."""

    value: Tensor
    low: Tensor
    high: Tensor


class Covariances(NamedTuple):
    """[6] p, q and c (n,) of boxes, and the determinant p q - c²."""

    p: Tensor
    q: Tensor
    c: Tensor
    determinant: Tensor

    @property
    def products(self) -> Tensor:
        """P q + c² (n,): the size of what the determinant is the difference of."""
        return self.p * self.q + self.c**2


def covariances(boxes: Tensor, floor: float) -> Covariances:
    """Returns the covariances of boxes (n, 5)."""
    u, v = variances(boxes, floor)
    cosine, sine = boxes[:, 4].cos(), boxes[:, 4].sin()
    return Covariances(u * cosine**2 + v * sine**2, u * sine**2 + v * cosine**2, (u - v) * cosine * sine, u * v)


def determinant_errors(a: Covariances, b: Covariances, e: Tensor, roundoffs: Roundoffs) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the rounding errors (n,) of E, D₁ and D₂, formed as differences; ``a`` are the predictions."""
    core, predicted = (DETERMINANT_ROUNDINGS * roundoff for roundoff in roundoffs)
    p, q, c = a.p + b.p, a.q + b.q, a.c + b.c
    of_sums = core * (p * q + c**2) + (predicted - core) * (a.p * q + a.q * p + 2 * (a.c * c).abs())
    return torch.maximum(of_sums, core * e), predicted * a.products, core * b.products


def distance_interval(pair: BoxPair, floor: float, eps: float, roundoffs: Roundoffs) -> Interval:
    """Returns β (n,) before the clamp, and its interval."""
    parts = [
        _distance_interval(pair.part(slice(start, start + _CHUNK)), floor, eps, roundoffs)
        for start in range(0, max(len(pair.truth), 1), _CHUNK)
    ]
    return Interval(*map(torch.cat, zip(*parts, strict=True)))


def _distance_interval(pair: BoxPair, floor: float, eps: float, roundoffs: Roundoffs) -> Interval:
    of = spreads(pair.predicted, pair.truth, floor)
    value = bhattacharyya(of, eps)
    ways = [bhattacharyya(spreads(*pair.moved(direction), floor), eps) - value for direction in (-1, 1)]
    ways += [bhattacharyya(moved, eps) - value for moved in _moved_determinants(pair, of, floor, roundoffs)]
    ups = torch.cat([torch.maximum(*ways[:2]), torch.maximum(*ways[2:])]).nan_to_num(nan=torch.inf).clamp(min=0).sum(0)
    downs = -torch.cat([torch.minimum(*ways[:2]), torch.minimum(*ways[2:])]).nan_to_num(nan=-torch.inf).clamp(max=0).sum(0)
    own = roundoffs.core * (APART_ROUNDINGS * _apart_products(pair, floor) / (4 * (of.e + eps)) + LOGARITHM_ROUNDINGS + value.abs())
    return Interval(value, value - downs - own, value + ups + own)


def _moved_determinants(pair: BoxPair, of: Spreads, floor: float, roundoffs: Roundoffs) -> list[Spreads]:
    """Returns the spreads (3, n), E, D₁ or D₂ less their rounding error, and plus it."""
    apart, determinants, single = of.apart.expand(3, -1), torch.stack(of[1:])[:, None], _determinant_steps(pair, of, floor, roundoffs)
    return [Spreads(apart, *(determinants + direction * single)) for direction in (-1, 1)]


def _determinant_steps(pair: BoxPair, of: Spreads, floor: float, roundoffs: Roundoffs) -> Tensor:
    """Returns what is added (3, 3, n) to E, D₁ and D₂ (first axis), of which one is moved by its error at a time (second axis)."""
    errors = torch.stack(determinant_errors(covariances(pair.predicted, floor), covariances(pair.truth, floor), of.e, roundoffs))
    return torch.eye(3, dtype=torch.float64)[:, :, None] * errors


def _apart_products(pair: BoxPair, floor: float) -> Tensor:
    """Returns the size (n,) of what P dy² + Q dx² - 2 M dx dy is the difference of."""
    a, b = (covariances(boxes, floor) for boxes in (pair.predicted, pair.truth))
    dx, dy = (pair.predicted - pair.truth)[:, :2].unbind(1)
    return (a.p + b.p) * dy**2 + (a.q + b.q) * dx**2 + 2 * ((a.c + b.c) * dx * dy).abs()


def probiou_interval(distance: Interval, eps: float, roundoffs: Roundoffs, evaluation: float) -> Interval:
    """Returns the ProbIoU (n,) and its interval from those of β; ``evaluation`` is the relative error of an evaluated expression."""
    low, high = (
        1 - _root(end, eps, side * EXPONENTIAL_ROUNDINGS * roundoffs.core) for side, end in ((1, distance.high), (-1, distance.low))
    )
    value = 1 - _root(distance.value, eps)
    own = EXPONENTIAL_ROUNDINGS * (roundoffs.core + evaluation * value.abs())
    return Interval(value, low - own, high + own)


def _root(distance: Tensor, eps: float, shift: float = 0.0) -> Tensor:
    """Returns √(1 - exp(-β) + ε) (n,) of unclamped distances, the argument moved by ``shift``; of all or none for one without bound."""
    clamped = distance.nan_to_num(nan=0.0).clamp(eps, LARGEST_DISTANCE)
    return (eps - torch.expm1(-clamped) + shift).clamp(min=0).sqrt()


class Slopes(NamedTuple):
    """Slopes of β (n, K) in K numbers that the prediction is computed from, and their tolerance."""

    value: Tensor
    tolerance: Tensor


def slope_in_distance(distance: Interval, eps: float, roundoffs: Roundoffs) -> Interval:
    """Returns the slope (n,) of √(1 - exp(-β) + ε) in β at the nearest β within the clamp, and its interval."""
    low, high = (distance_end.clamp(eps, LARGEST_DISTANCE) for distance_end in (distance.high, distance.low))
    shift = EXPONENTIAL_ROUNDINGS * roundoffs.core
    nearest = distance.value.clamp(eps, LARGEST_DISTANCE)
    return Interval(
        torch.exp(-nearest) / (2 * _root(nearest, eps)),
        torch.exp(-low) / (2 * _root(low, eps, shift)),
        torch.exp(-high) / (2 * _root(high, eps, -shift)),
    )


def slope_products(pair: BoxPair, floor: float, eps: float) -> Tensor:
    """Returns the size (n, 5) of the products that add up to the slopes of β in x, y, w, h and θ of the prediction, as [6] writes them."""
    a, b = (covariances(boxes, floor) for boxes in (pair.predicted, pair.truth))
    apart, e, d1, _ = spreads(pair.predicted, pair.truth, floor)
    p, q, c = a.p + b.p, a.q + b.q, (a.c + b.c).abs()
    dx, dy = (pair.predicted - pair.truth)[:, :2].abs().unbind(1)
    inverse = 1 / (4 * (e + eps))
    through_e = apart / (e + eps) * inverse + 2 * inverse
    in_p = dy**2 * inverse + q * through_e + a.q / (4 * d1)
    in_q = dx**2 * inverse + p * through_e + a.p / (4 * d1)
    in_c = 2 * dx * dy * inverse + 2 * c * through_e + a.c.abs() / (2 * d1)
    (u, v), (_, _, w, h, angle) = variances(pair.predicted, floor), pair.predicted.unbind(1)
    cosine, sine = angle.cos(), angle.sin()
    mixed = (cosine * sine).abs()
    in_w = w.abs() / 6 * (in_p * cosine**2 + in_q * sine**2 + in_c * mixed)
    in_h = h.abs() / 6 * (in_p * sine**2 + in_q * cosine**2 + in_c * mixed)
    in_angle = 2 * mixed * (u + v) * (in_p + in_q) + (u - v).abs() * in_c
    return torch.stack([2 * inverse * (q * dx + c * dy), 2 * inverse * (p * dy + c * dx), in_w, in_h, in_angle], 1)


def distance_slopes(numbers: Tensor, centres: Tensor, pair: BoxPair, floor: float, eps: float, roundoffs: Roundoffs) -> Slopes:
    """Returns the slopes of β in the distances and the angle (n, 5) that the predictions are decoded from, and their tolerance.

    Args:
        numbers: (n, 5) left, top, right, bottom, angle.
        centres: (n, 2) of the anchors.
        pair: (n, 5) the boxes, with tolerances.
        floor, eps: of the definition.
        roundoffs: the program's.
    """
    of = spreads(pair.predicted, pair.truth, floor)
    single = _determinant_steps(pair, of, floor, roundoffs)
    still = _slopes(numbers, centres, (pair.predicted[None], pair.truth[None]), 0 * single[:, :1], pair, floor, eps)[0]
    unmoved = pair.predicted.expand(3, -1, -1), pair.truth.expand(3, -1, -1)
    changes = []
    for direction in (-1, 1):
        of_numbers = _slopes(numbers, centres, pair.moved(direction), 0 * single[:, :1], pair, floor, eps)
        of_determinants = _slopes(numbers, centres, unmoved, direction * single, pair, floor, eps)
        changes.append(torch.cat([of_numbers, of_determinants]) - still)
    off = torch.stack(changes).abs().nan_to_num(nan=torch.inf).amax(0).sum(0)
    products = _through_decoding(numbers, centres, pair.predicted, slope_products(pair, floor, eps))
    return Slopes(still, off + SLOPE_ROUNDINGS * max(roundoffs) * products)


def _slopes(
    numbers: Tensor, centres: Tensor, moved: tuple[Tensor, Tensor], steps: Tensor, pair: BoxPair, floor: float, eps: float
) -> Tensor:
    """Returns the slopes (k, n, 5) of β at moved boxes (k, n, 5) and determinants (3, k, n) that are off by ``steps``."""
    predicted, truth = moved
    with torch.enable_grad():
        leaves = numbers.detach().expand(len(predicted), -1, -1).clone().requires_grad_()
        boxes = decoded_boxes(leaves[..., :4], leaves[..., 4], centres) + (predicted - pair.predicted)
        apart, *determinants = spreads(boxes, truth, floor)
        distance = bhattacharyya(Spreads(apart, *(value + step for value, step in zip(determinants, steps, strict=True))), eps)
        (slope,) = torch.autograd.grad(distance.sum(), leaves)
    return slope


def _through_decoding(numbers: Tensor, centres: Tensor, boxes: Tensor, products: Tensor) -> Tensor:
    """Returns the size (n, 5) of the slopes in distances and angle, from that of the slopes (n, 5) in x, y, w, h and θ [4]."""
    x, y, w, h, angle = products.unbind(1)
    cosine, sine = numbers[:, 4].cos().abs(), numbers[:, 4].sin().abs()
    across, down = (cosine * x + sine * y) / 2, (sine * x + cosine * y) / 2
    arms = (boxes[:, :2] - centres).abs()
    return torch.stack([w + across, h + down, w + across, h + down, angle + arms[:, 1] * x + arms[:, 0] * y], 1)
