"""The verdict on numbers, by the worst element of each group: the one with the largest error relative to its tolerance.

At a kink the definition is an interval: a value within it has no error, and the error of another is its distance from the nearer end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from oracle.contract.verdict import Finding, Judgement, Verdict

Where = Mapping[str, int | str]
Array = NDArray[Any]


class Interval(NamedTuple):
    """Bounds of the definition's numbers before rounding; they coincide except at a kink."""

    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class WorstElement:
    """The worst element of a group of numbers.

    Attributes:
        group: which elements, such as ``level 1, held``.
        ratio: error ÷ tolerance; infinite where the value is not finite.
        error: distance of the value from the nearer end of the interval.
        tolerance: rounding of the value.
        where: its index, by name of the axis.
        truth, value: the definition's number and the contender's.
        finite: whether all of the group's values are finite.
        low, high: ends of the interval; both are ``truth`` except at a kink.
        kinks: number of the group's elements at a kink, whose interval is wider than their tolerance.
        reach: position of the contender in such an interval, the largest of the group: 0 at the definition's number, 1 at an end.
    """

    group: str
    ratio: float
    error: float
    tolerance: float
    where: Where
    truth: float
    value: float
    finite: bool
    low: float = math.nan
    high: float = math.nan
    kinks: int = 0
    reach: float = 0.0


@dataclass(frozen=True)
class QuantityError:
    """The worst elements of one quantity, one for each group.

    Attributes:
        quantity: its name, as in the rows.
        elements: the worst element of each group that is not empty.
        shapes: shapes of the compared tensors, by name.
        read: returns the contender's value at an index, as text.
    """

    quantity: str
    elements: tuple[WorstElement, ...]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    read: Callable[[Where], str] = str

    @property
    def worst_ratio(self) -> float:
        """The largest error ÷ tolerance of all groups, 0 where all are empty."""
        return max((worst.ratio for worst in self.elements), default=0.0)

    @property
    def kinks(self) -> int:
        """Number of elements at a kink."""
        return sum(worst.kinks for worst in self.elements)

    @property
    def kink_reach(self) -> float:
        """The largest position in an interval at a kink, from 0 to 1; not-a-number where no element lies at a kink."""
        return max((worst.reach for worst in self.elements if worst.kinks), default=math.nan)


def worst_element(
    group: str, truth: Tensor, value: Tensor, tolerance: Tensor, name: Sequence[str] | None = None, interval: Interval | None = None
) -> WorstElement | None:
    """Returns the worst element of equally shaped tensors, its index named by axis, or ``None`` where they are empty."""
    if truth.numel() == 0:
        return None
    # On the CPU and in numpy, which is faster for the thousand small groups of a case.
    expected, found, allowed = truth.numpy(), value.numpy(), np.broadcast_to(tolerance.numpy(), truth.shape)
    low, high = (expected, expected) if interval is None else (end.numpy() for end in interval)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        error = np.maximum(np.maximum(low - found, found - high), 0)
        ratios = error / allowed
    at = np.unravel_index(int(ratios.argmax()), truth.shape)
    if np.isnan(ratios[at]):  # argmax returns the first not-a-number, if there is one.
        ratios = np.where(error == 0, 0.0, ratios)
        ratios[np.isnan(ratios)] = np.inf
        at = np.unravel_index(int(ratios.argmax()), truth.shape)
    where = dict(zip(name or [f"axis {axis}" for axis in range(truth.ndim)], map(int, at), strict=True))
    farthest, off, rounding, right, said, least, most = (float(array[at]) for array in (ratios, error, allowed, expected, found, low, high))
    finite = bool(np.isfinite(ratios[at])) or bool(np.isfinite(found).all())
    kinks, reach = (0, 0.0) if interval is None else _kinks(expected, found, allowed, low, high)
    return WorstElement(group, farthest, off, rounding, where, right, said, finite, low=least, high=most, kinks=kinks, reach=reach)


def _kinks(expected: Array, found: Array, allowed: Array, low: Array, high: Array) -> tuple[int, float]:
    """Returns the number of elements at a kink and the largest position in their intervals."""
    at = high - low > allowed
    if not at.any():
        return 0, 0.0
    expected, found, low, high = expected[at], found[at], low[at], high[at]
    end = np.where(found < expected, low, high)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shares = np.where(end == expected, 0.0, (found - expected) / (end - expected))
    return int(at.sum()), float(np.nan_to_num(shares).clip(0, 1).max())


def judge_quantity(
    stage: str, candidate: QuantityError, reference: QuantityError | None, widen: bool = True, ambiguous: str = ""
) -> Judgement:
    """Judges a quantity: AGREE where each error is at most its rounding plus twice the reference's own error in the same group.

    Args:
        stage: name of the stage, for the record.
        candidate: the contender's worst elements.
        reference: the reference's, in the same groups; ``None`` where it could not be run.
        widen: whether the reference's own error counts; it does not for a contender that claims a finer precision.
        ambiguous: the reason, if the numbers were compared on another assignment than the definition's.
    """
    allowed = {worst.group: worst for worst in reference.elements} if reference is not None and widen else {}
    judged = [(worst, 1 + 2 * _own_error(allowed.get(worst.group))) for worst in candidate.elements]
    if not judged:
        return Judgement(stage, candidate.quantity, Verdict.AGREE, 0.0, 0.0, 0.0)
    worst, share = max(judged, key=lambda entry: entry[0].ratio / entry[1])
    allowance, excess = worst.tolerance * share, worst.ratio / share
    common = (stage, candidate.quantity)
    kinks: dict[str, Any] = {"kinks": candidate.kinks, "kink_reach": candidate.kink_reach}
    if excess <= 1:
        verdict = Verdict.AMBIGUOUS if ambiguous else Verdict.AGREE
        return Judgement(*common, verdict, worst.error, allowance, excess, reason=ambiguous, **kinks)
    overflows = [p for p, _ in judged if not p.finite and p.group in allowed and not allowed[p.group].finite]
    if overflows and all(p.ratio / s <= 1 or p in overflows for p, s in judged):
        reason = f"not finite, as the reference's own {candidate.quantity} in this dtype"
        return Judgement(*common, Verdict.AMBIGUOUS, worst.error, allowance, excess, reason=reason, **kinks)
    finding = _finding(*common, worst, share, candidate, reference)
    return Judgement(*common, Verdict.DIFFER, worst.error, allowance, excess, reason=ambiguous, finding=finding, **kinks)


def _own_error(worst: WorstElement | None) -> float:
    """Returns the reference's error in roundings; 0 where it is not finite, so that it widens no tolerance."""
    return 0.0 if worst is None or not worst.finite else worst.ratio


def _finding(
    stage: str, quantity: str, worst: WorstElement, share: float, candidate: QuantityError, reference: QuantityError | None
) -> Finding:
    at_kink = worst.low < worst.high
    off = (worst.value - worst.truth) / worst.truth if worst.truth and not at_kink else float("nan")
    relative = f", {off:+.3g} of it" if not math.isnan(off) else ""
    return Finding(
        stage,
        quantity,
        f"off by {worst.error:.3g}{relative}" + (f", at {worst.group}" if worst.group else ""),
        where=worst.where,
        exact=f"{worst.truth:.9g}" + (f", at a kink: from {worst.low:.9g} to {worst.high:.9g}" if at_kink else ""),
        reference=reference.read(worst.where) if reference is not None else "not available",
        candidate=f"{worst.value:.9g}",
        error=worst.error,
        allowance=worst.tolerance * share,
        shapes=candidate.shapes,
    )
