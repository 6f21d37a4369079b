"""Estimates from paired samples: ratios with intervals over clusters, and exponents of growth.

Samples of one process share its memory layout, and with it a bias of several percent that more calls do not average out. Therefore whole
processes (clusters) are resampled, and few processes give a wide interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

RESAMPLES = 2000
NORMAL_975 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, and the numbers of samples and clusters behind it."""

    value: float
    lo95: float
    hi95: float
    samples: int
    clusters: int

    def map(self, function: Callable[[float], float]) -> Estimate:
        """Returns the estimate on another scale; ``function`` must not decrease."""
        return Estimate(function(self.value), function(self.lo95), function(self.hi95), self.samples, self.clusters)


def log_ratios(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """Returns the logarithm of each pair's ratio.

    Raises:
        ValueError: the numbers of samples differ, or a sample is not a positive, finite number.
    """
    upper, lower = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if upper.shape != lower.shape:
        raise ValueError(f"samples come in pairs, but there are {upper.size} and {lower.size}")
    for samples in (upper, lower):
        wrong = ~(np.isfinite(samples) & (samples > 0))
        if wrong.any():
            raise ValueError(f"sample {int(wrong.argmax())} is {samples[wrong][0]}; a ratio needs positive, finite samples")
    return np.asarray(np.log(upper / lower), np.float64)


def ratio(numerator: ArrayLike, denominator: ArrayLike, clusters: ArrayLike, *, seed: int = 0) -> Estimate:
    """Returns the median of the pairs' ratios, with an interval over clusters (:func:`median_estimate`)."""
    return median_estimate(log_ratios(numerator, denominator), clusters, seed=seed).map(math.exp)


def median_estimate(values: ArrayLike, clusters: ArrayLike, *, seed: int = 0) -> Estimate:
    """Returns the median of ``values`` (n,) with a 95 % interval from resampling whole clusters.

    The spread of the resampled medians is stretched by t(k − 1) / z · √(k / (k − 1)) for k clusters: a bootstrap of few clusters
    includes neither factor, so its intervals are too narrow. The values of a single cluster are resampled one by one; such an interval
    does not cover the variation between clusters, and the estimate has ``clusters=1``.

    Raises:
        ValueError: there are no values, or the number of cluster labels differs.
    """
    data, labels = np.asarray(values, np.float64), np.asarray(clusters)
    if not data.size or data.shape != labels.shape:
        raise ValueError(f"{data.size} values with {labels.size} cluster labels; give at least one value, and a label for each")
    count = len(np.unique(labels))
    units = np.unique(labels, return_inverse=True)[1] if count > 1 else np.arange(data.size)
    middle = float(np.median(data))
    resampled = _resampled_medians(data, units, np.random.default_rng(seed))
    low, high = np.quantile(resampled, [0.025, 0.975]) - middle
    stretch = small_sample_stretch(int(units.max()) + 1)
    # With few clusters the median can lie outside of the quantiles; the interval is widened to contain it.
    return Estimate(middle, middle + stretch * min(low, 0.0), middle + stretch * max(high, 0.0), data.size, count)


def _resampled_medians(data: Floats, units: NDArray[Any], rng: np.random.Generator) -> Floats:
    """Returns medians (RESAMPLES,) of the data with whole units drawn again; units may differ in size."""
    count = int(units.max()) + 1
    order = np.argsort(data, kind="stable")
    draws = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    weight = np.cumsum(draws[:, units[order]], axis=1)
    total = weight[:, -1:]
    lower, upper = ((2 * weight >= total - shift).argmax(axis=1) for shift in (0, -1))
    ordered = data[order]
    return np.asarray((ordered[lower] + ordered[upper]) / 2, np.float64)


def small_sample_stretch(units: int) -> float:
    """Returns the factor by which a bootstrap of so many units understates the half-width of a 95 % interval; 1 for one unit."""
    return 1.0 if units < 2 else student_975(units - 1) / NORMAL_975 * math.sqrt(units / (units - 1))


@lru_cache(maxsize=256)
def student_975(freedom: int) -> float:
    """Returns the 97.5 % quantile of Student's t with this many degrees of freedom, to four decimals."""
    if freedom > 200:
        return NORMAL_975 * (1 + (NORMAL_975**2 + 1) / (4 * freedom))
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    # With t = √ν tan φ the tail from 0 becomes an integral over a bounded angle.
    angle = np.linspace(0, math.pi / 2, 400_001)
    density = scale * math.sqrt(freedom) * np.cos(angle) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)]) * (angle[1] - angle[0])
    return math.sqrt(freedom) * math.tan(float(np.interp(0.475, below, angle)))


@dataclass(frozen=True)
class Growth:
    """The fit cost ≈ floor + slope · size ** exponent: the exponent with its interval, floor and slope at the best exponent."""

    exponent: Estimate
    floor: float
    slope: float


EXPONENTS = np.round(np.arange(0.0, 3.0001, 0.01), 2)


def growth(size: ArrayLike, cost: ArrayLike, clusters: ArrayLike, *, seed: int = 0) -> Growth:
    """Returns the exponent of growth above a constant floor, by least squares of relative errors, with an interval over clusters.

    Args:
        size: (n,) positive sizes, at least three different ones.
        cost: (n,) positive costs.
        clusters: (n,) label of the process of each cost; each process is resampled as a whole.
        seed: seed of the resampling.

    Raises:
        ValueError: there are fewer than three sizes, or a size or cost is not positive.
    """
    sizes, costs, labels = np.asarray(size, np.float64), np.asarray(cost, np.float64), np.asarray(clusters)
    if len(np.unique(sizes)) < 3 or not ((sizes > 0) & (costs > 0)).all():
        raise ValueError(f"a growth needs positive costs at three or more positive sizes; sizes {np.unique(sizes).tolist()}")
    errors, floors, slopes = _fits(sizes, costs)
    names, units = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(seed)
    draws = [np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[units] for _ in range(RESAMPLES // 10)]
    resampled = [EXPONENTS[_fits(np.repeat(sizes, draw), np.repeat(costs, draw))[0].argmin()] for draw in draws if len(names) > 1]
    best = int(errors.argmin())
    value = float(EXPONENTS[best])
    low, high = np.quantile(resampled, [0.025, 0.975]) - value if resampled else (0.0, 0.0)
    stretch = small_sample_stretch(len(names))
    exponent = Estimate(value, value + stretch * min(low, 0.0), value + stretch * max(high, 0.0), costs.size, len(names))
    return Growth(exponent, float(floors[best]), float(slopes[best]))


def _fits(sizes: Floats, costs: Floats) -> tuple[Floats, Floats, Floats]:
    """Returns for each of EXPONENTS the squared relative error, floor and slope of the best fit in which neither is negative."""
    powers = sizes ** EXPONENTS[:, None] / costs
    ones = np.broadcast_to(1 / costs, powers.shape)
    # Normal equations of minimising |a · ones + b · powers − 1|².
    aa, ab, bb, a1, b1 = (ones**2).sum(1), (ones * powers).sum(1), (powers**2).sum(1), ones.sum(1), powers.sum(1)
    determinant = aa * bb - ab * ab
    degenerate = determinant <= 1e-12 * aa * bb
    safe = np.where(degenerate, 1.0, determinant)
    floor, slope = np.where(degenerate, -1.0, (bb * a1 - ab * b1) / safe), np.where(degenerate, -1.0, (aa * b1 - ab * a1) / safe)
    only_slope, only_floor = b1 / bb, a1 / aa
    floor, slope = (
        np.where(slope < 0, only_floor, np.where(floor < 0, 0.0, floor)),
        np.where(slope < 0, 0.0, np.where(floor < 0, only_slope, slope)),
    )
    residual = floor[:, None] * ones + slope[:, None] * powers - 1
    return (residual**2).sum(1), floor, slope
