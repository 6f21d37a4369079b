"""Tolerances of the likelihood term of pose and of its gradients, with their kinks (pose spec, sections 6, 8 and 8a).

A normalised error u has the rounding of its keypoint divided by the deviation, so that it may be any number of an interval, over which
the flow is sampled. The interval may hold a kink: of |u| at 0, of the clamp at 100. The deviation may lie at its floor, the mean at 0.

Shape suffixes: P pairs of a held anchor and a visible keypoint; 2 coordinates. Sections in brackets are the pose specification's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from oracle.cases.noise import Noise
from oracle.definition import keypoints
from oracle.definition.pose import ExactPose
from oracle.tolerance.held_anchors import EVALUATION_ROUNDINGS, OUTPUT_ROUNDINGS, Bounds
from oracle.tolerance.keypoint_terms import SECOND_ORDER, HeldKeypoints
from oracle.tolerance.loss_and_gradients import Assigned, summation_roundings
from oracle.tolerance.precision import Precision

LogProb = Callable[[Tensor], Tensor]

SIGMOID_ROUNDINGS = 4.0
# Roundings of the flow of the cases: of its log-density and gradients, by their scales. Measured in float32 and in bfloat16 autocast on
# 20,681 errors up to 100, the largest were 9, 8 and 134, the last at single errors.
DENSITY_ROUNDINGS, SLOPE_ROUNDINGS, PARAMETER_ROUNDINGS = 20.0, 20.0, 300.0
SAMPLES = (-1.0, -0.5, 0.0, 0.5, 1.0)  # Of an error, in its tolerance.
_STREAM = 75
_PATTERNS, _PATTERN_FACTOR = (
    8,
    3.0,
)  # Random signs of all errors at once, and by how much the largest change of their sum may exceed theirs.


class Density(NamedTuple):
    """Log-density (P,) at the errors and its gradient (P, 2), each with a tolerance."""

    value: Tensor
    value_off: Tensor
    slope: Tensor
    slope_off: Tensor


class _Ends(NamedTuple):
    """Gradients: the definition's, the ends of the interval of correct programs' at a kink, and the rounding of any of it."""

    own: Tensor
    low: Tensor
    high: Tensor
    rounding: Tensor


@dataclass(frozen=True)
class Likelihood:
    """Tolerances of the likelihood term, with gain and B.

    Attributes:
        loss: tolerance of the term.
        coordinates: bounds (H, n, 2) on the gradient of the raw coordinates.
        deviations: bounds (H, n, 2) on that of the raw deviations.
        flow: bounds on that of the flow's parameters, in one row.
    """

    loss: Tensor
    coordinates: Bounds
    deviations: Bounds
    flow: Bounds


@dataclass(frozen=True)
class _Pairs:
    """The pairs in float64.

    Attributes:
        error, off: (P, 2) u, not clamped, and its tolerance.
        deviation, free: (P, 2) ς, and the sigmoid before its floor.
        floor: τ.
        weight: (P,) ω.
        core: relative rounding of an evaluated expression.
        output: that of a gradient's conversion to the logits' dtype.
        precision: the contender's unit roundoffs.
    """

    error: Tensor
    off: Tensor
    deviation: Tensor
    free: Tensor
    floor: float
    weight: Tensor
    core: float
    output: float
    precision: Precision

    def of_flow(self, roundings: float) -> float:
        """Returns the relative rounding of what the flow computes."""
        return roundings * self.precision.linear + EVALUATION_ROUNDINGS * self.precision.flat

    @property
    def held_back(self) -> Tensor:
        """Whether each |u| (P, 2) is clamped in the definition."""
        return self.error.abs() > keypoints.LARGEST_ERROR

    def moved(self, way: Tensor) -> Tensor:
        """Returns the errors (P, 2), moved by ``way`` times their tolerance and clamped."""
        return (self.error + way * self.off).clamp(-keypoints.LARGEST_ERROR, keypoints.LARGEST_ERROR)


def likelihood(points: HeldKeypoints, assigned: Assigned) -> Likelihood:
    """Returns the tolerances of the term; without deviations, as in evaluation mode, it is 0 and has no gradient."""
    exact, shape = assigned.exact, points.away.shape
    assert isinstance(exact, ExactPose)
    assert exact.flow is not None
    log_prob, parameters = exact.flow.log_prob, list[Tensor](exact.flow.parameters())
    nothing = torch.zeros(shape, dtype=torch.float64)
    silent = _bounds(*(_Ends(part, part, part, part) for part in (nothing, nothing, _flat([0 * p.detach() for p in parameters]))))
    if assigned.preds.get("kpts_sigma") is None or not bool(points.visible.any()):
        return Likelihood(nothing.sum(), *silent)
    pairs = _pairs(points, assigned)
    density = _density(log_prob, pairs)
    mean, off = _mean(pairs, density)
    gain = assigned.gains["likelihood"] / len(pairs.weight)
    if mean + off < 0:
        return Likelihood(nothing.sum(), *silent)
    factor = gain * pairs.weight[:, None]
    parts = [
        _coordinates(pairs, density, factor * points.factor),
        _deviations(pairs, density, factor),
        _parameters(log_prob, parameters, pairs, gain),
    ]
    if mean - off <= 0:
        parts = [_of_share(part, passes=bool(mean >= 0)) for part in parts]
    mask = points.visible[..., None].expand(shape)
    dense = [_Ends(*(nothing.masked_scatter(mask, end) for end in part)) for part in parts[:2]]
    return Likelihood(assigned.gains["likelihood"] * off, *_bounds(*dense, parts[2]))


def _bounds(*parts: _Ends) -> tuple[Bounds, ...]:
    return tuple(Bounds(part.rounding, part.low - part.own, part.high - part.own) for part in parts)


def _of_share(ends: _Ends, *, passes: bool) -> _Ends:
    """Returns the ends where the mean may lie on either side of 0, so that a gradient is all there or not at all."""
    return _Ends(ends.own * passes, ends.low.clamp(max=0), ends.high.clamp(min=0), ends.rounding)


def _pairs(points: HeldKeypoints, assigned: Assigned) -> _Pairs:
    held, precision, core = assigned.assignment, assigned.precision, assigned.precision.evaluation
    raw = assigned.preds["kpts_sigma"].detach().double().transpose(1, 2).unflatten(2, (-1, 2))[held.image, held.anchor]
    floor = float(torch.finfo(assigned.preds["feats"][0].dtype).tiny)
    free = raw[points.visible].sigmoid()
    deviation = free.clamp(min=floor)
    divisor = deviation + keypoints.EPSILON
    error = points.away[points.visible] / divisor
    off = points.away_off[points.visible] / divisor + (SIGMOID_ROUNDINGS + EVALUATION_ROUNDINGS) * core * error.abs()
    keypoint = points.visible.nonzero()[:, 1]
    weight = keypoints.likelihood_weights(assigned.spec.keypoint_shape)[keypoint]  # type: ignore[attr-defined]
    return _Pairs(error, off, deviation, free, floor, weight, core, OUTPUT_ROUNDINGS * precision.output, precision)


def _density(log_prob: LogProb, pairs: _Pairs) -> Density:
    """Returns the log-density and its gradient, sampled over the interval of each error."""
    value, slope = _at(log_prob, pairs.moved(torch.zeros(2, dtype=torch.float64)))
    value_off, slope_off = torch.zeros_like(value), torch.zeros_like(slope)
    for way in itertools.product(SAMPLES, repeat=2):
        other, its_slope = _at(log_prob, pairs.moved(torch.tensor(way, dtype=torch.float64)))
        value_off, slope_off = torch.maximum(value_off, (other - value).abs()), torch.maximum(slope_off, (its_slope - slope).abs())
    scale = 1 + value.abs()
    return Density(
        value,
        SECOND_ORDER * value_off + pairs.of_flow(DENSITY_ROUNDINGS) * scale,
        slope,
        SECOND_ORDER * slope_off + pairs.of_flow(SLOPE_ROUNDINGS) * (scale[:, None] + slope.norm(dim=1, keepdim=True)),
    )


def _at(log_prob: LogProb, errors: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = errors.detach().requires_grad_()
        value = log_prob(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), slope


def _mean(pairs: _Pairs, density: Density) -> tuple[Tensor, Tensor]:
    """Returns the mean ℓ and its tolerance."""
    logarithms = pairs.deviation.log() + (2 * pairs.deviation).log()
    error = pairs.error.abs().clamp(max=keypoints.LARGEST_ERROR)
    off = 2 * density.value_off + (pairs.moved(pairs.error.sign()) - pairs.moved(-pairs.error.sign())).abs().sum(1)
    magnitude = (2 * density.value).abs() + (error + pairs.deviation.log().abs() * 2 + 1).sum(1)
    off = off + pairs.core * (2 * 2 * SIGMOID_ROUNDINGS + EVALUATION_ROUNDINGS * magnitude)
    each = (logarithms + error - density.value[:, None]).sum(1)
    count = len(pairs.weight)
    summed = summation_roundings(count) * pairs.core * (pairs.weight * magnitude).sum()
    return (pairs.weight * each).sum() / count, ((pairs.weight * off).sum() + summed) / count


def _slopes_of(pairs: _Pairs, density: Density) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns h (P, 2): the definition's, the least and the largest that the sign and the clamp allow, and its tolerance."""
    hidden, size = pairs.error.abs() <= pairs.off, pairs.error.abs()
    own, low, high = (sign - 2 * density.slope for sign in (pairs.error.sign(), *_signs(pairs.error, hidden)))
    may_be_held_back = size + pairs.off >= keypoints.LARGEST_ERROR
    held_back = size - pairs.off > keypoints.LARGEST_ERROR
    low, high = low.where(~may_be_held_back, low.clamp(max=0)), high.where(~may_be_held_back, high.clamp(min=0))
    rounding = 2 * density.slope_off + EVALUATION_ROUNDINGS * pairs.core * (1 + 2 * density.slope.abs())
    free = (~held_back).double()
    return own * ~pairs.held_back, low * free, high * free, rounding * free


def _signs(error: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    return error.sign().where(~hidden, -1.0), error.sign().where(~hidden, 1.0)


def _coordinates(pairs: _Pairs, density: Density, factor: Tensor) -> _Ends:
    """Returns the gradient in the raw coordinates [8]."""
    own, low, high, rounding = _slopes_of(pairs, density)
    scale = factor / (pairs.deviation + keypoints.EPSILON)
    steepest = torch.maximum(low.abs(), high.abs())
    relative = (SIGMOID_ROUNDINGS + EVALUATION_ROUNDINGS) * pairs.core + pairs.output
    return _Ends(scale * own, scale * low, scale * high, scale * (rounding + relative * steepest))


def _deviations(pairs: _Pairs, density: Density, factor: Tensor) -> _Ends:
    """Returns the gradient in the raw deviations: 2(1 − ς) − h · u · ς(1 − ς)/(ς + ε), and 0 at the floor [8]."""
    own, low, high, rounding = _slopes_of(pairs, density)
    rest = 1 - pairs.deviation
    part = pairs.error * pairs.deviation / (pairs.deviation + keypoints.EPSILON)
    of_own, *ends = (factor * rest * (2 - slope * part) for slope in (own, low, high))
    lowest, highest = torch.minimum(*ends), torch.maximum(*ends)
    steepest = torch.maximum(low.abs(), high.abs())
    size = 2 + steepest * part.abs()
    off = rest * (part.abs() * rounding + steepest * pairs.off) + (EVALUATION_ROUNDINGS + SIGMOID_ROUNDINGS) * pairs.core * size
    off = off + pairs.output * rest * size
    share = SIGMOID_ROUNDINGS * pairs.core
    at_floor, may_be_at_floor = pairs.free * (1 + share) < pairs.floor, pairs.free * (1 - share) <= pairs.floor
    lowest, highest = lowest.where(~may_be_at_floor, lowest.clamp(max=0)), highest.where(~may_be_at_floor, highest.clamp(min=0))
    free = (~at_floor).double()
    return _Ends(of_own * (pairs.free >= pairs.floor), lowest * free, highest * free, factor * off * free)


def _parameters(log_prob: LogProb, parameters: list[Tensor], pairs: _Pairs, gain: float) -> _Ends:
    """Returns the gradient in the flow's parameters, in one row; errors of the pairs are taken together, with random signs."""

    def at(way: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            density = log_prob(pairs.moved(way))
            found = torch.autograd.grad((-2 * gain * pairs.weight * density).sum(), parameters)
        return _flat(found), density.detach()

    own, density = at(torch.zeros_like(pairs.error))
    ways = Noise(0, _STREAM).uniform(_PATTERNS, *pairs.error.shape)
    change = torch.zeros_like(own)
    for way in (torch.ones_like(pairs.error), *torch.from_numpy(ways).double().mul(2).sub(1).sign()):
        change = torch.maximum(change, (at(way)[0] - own).abs())
    scale = 2 * gain * (pairs.weight * (1 + density.abs())).sum()
    roundings = pairs.of_flow(PARAMETER_ROUNDINGS) + summation_roundings(len(pairs.weight)) * pairs.core
    return _Ends(own, own, own, _PATTERN_FACTOR * change + roundings * scale)


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().flatten().double() for part in parts])
