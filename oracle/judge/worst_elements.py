"""Where numbers are farthest from the definition: the worst element of each group, in units of its rounding.

At a kink the definition is an interval: what lies within is right, and what lies beyond is as far off as from the nearer end.
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
    """Between what numbers may lie before any rounding: both ends are the definition's but at a kink."""

    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Peak:
    """The worst element of a group of numbers.

    Attributes:
        group: which elements, such as ``level 1, held``.
        ratio: error ÷ slack; infinite where the value is no finite number.
        error, slack: of that element; the error is counted from the nearer end of what it may be.
        where: its index, by name.
        truth, value: what the definition and the contender say there.
        finite: whether all of the group's values are finite.
        low, high: ends of what it may be; both are ``truth`` where it lies at no kink.
        kinks: how many of the group's elements lie at a kink, that is, may differ by more than their rounding.
        reach: how far into such an interval the contender stands: 0 where the definition does, 1 at an end; the largest of all.
    """

    group: str
    ratio: float
    error: float
    slack: float
    where: Where
    truth: float
    value: float
    finite: bool
    low: float = math.nan
    high: float = math.nan
    kinks: int = 0
    reach: float = 0.0


@dataclass(frozen=True)
class Peaks:
    """The worst elements of one quantity, one for each group.

    Attributes:
        quantity: what the numbers are.
        peaks: of each group that has elements.
        shapes: of what was compared, by name.
        read: the contender's value at an index, as text.
    """

    quantity: str
    peaks: tuple[Peak, ...]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    read: Callable[[Where], str] = str

    @property
    def worst_ratio(self) -> float:
        """The largest error ÷ slack of all groups, 0 when there is nothing to compare."""
        return max((peak.ratio for peak in self.peaks), default=0.0)

    @property
    def kinks(self) -> int:
        """How many elements lie at a kink."""
        return sum(peak.kinks for peak in self.peaks)

    @property
    def kink_reach(self) -> float:
        """How far into its interval the contender stands, the largest of all; no number where nothing lies at a kink."""
        return max((peak.reach for peak in self.peaks if peak.kinks), default=math.nan)


def peak_of(
    group: str, truth: Tensor, value: Tensor, slack: Tensor, name: Sequence[str] | None = None, interval: Interval | None = None
) -> Peak | None:
    """The worst element of equally shaped tensors; its index is named by axis. ``None`` for empty ones."""
    if truth.numel() == 0:
        return None
    # On the host and in numpy: the judge asks for a thousand small peaks a second.
    expected, found, allowed = truth.numpy(), value.numpy(), np.broadcast_to(slack.numpy(), truth.shape)
    low, high = (expected, expected) if interval is None else (end.numpy() for end in interval)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.maximum(np.maximum(low - found, found - high), 0)
        ratios = error / allowed
    at = np.unravel_index(int(ratios.argmax()), truth.shape)
    if np.isnan(ratios[at]):  # argmax answers the first that is no number, if there is one.
        ratios = np.where(error == 0, 0.0, ratios)
        ratios[np.isnan(ratios)] = np.inf
        at = np.unravel_index(int(ratios.argmax()), truth.shape)
    where = dict(zip(name or [f"axis {axis}" for axis in range(truth.ndim)], map(int, at), strict=True))
    farthest, off, rounding, right, said, least, most = (float(array[at]) for array in (ratios, error, allowed, expected, found, low, high))
    finite = bool(np.isfinite(ratios[at])) or bool(np.isfinite(found).all())
    kinks, reach = (0, 0.0) if interval is None else _kinks(expected, found, allowed, low, high)
    return Peak(group, farthest, off, rounding, where, right, said, finite, low=least, high=most, kinks=kinks, reach=reach)


def _kinks(expected: Array, found: Array, allowed: Array, low: Array, high: Array) -> tuple[int, float]:
    """How many elements lie at a kink, and how far into its interval the contender stands."""
    at = high - low > allowed
    if not at.any():
        return 0, 0.0
    expected, found, low, high = expected[at], found[at], low[at], high[at]
    end = np.where(found < expected, low, high)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(end == expected, 0.0, (found - expected) / (end - expected))
    return int(at.sum()), float(np.nan_to_num(shares).clip(0, 1).max())


def judge_peaks(stage: str, candidate: Peaks, reference: Peaks | None, widen: bool = True, ambiguous: str = "") -> Judgement:
    """Verdict on a quantity: its error may be the rounding, and twice the reference's own error in the same group on top.

    At a kink the error is counted from the nearer end of what the definition allows there; how far within it lies is told beside it.

    Args:
        stage: for the record.
        candidate: the contender's peaks.
        reference: the reference's, in the same groups; ``None`` where it could not be run.
        widen: whether the reference's own error counts: not for a contender that claims a finer arithmetic.
        ambiguous: why the numbers were compared on another assignment than the definition's own, if they were.
    """
    allowed = {peak.group: peak for peak in reference.peaks} if reference is not None and widen else {}
    judged = [(peak, 1 + 2 * _own_error(allowed.get(peak.group))) for peak in candidate.peaks]
    if not judged:
        return Judgement(stage, candidate.quantity, Verdict.AGREE, 0.0, 0.0, 0.0)
    peak, share = max(judged, key=lambda entry: entry[0].ratio / entry[1])
    allowance, excess = peak.slack * share, peak.ratio / share
    common = (stage, candidate.quantity)
    kinks: dict[str, Any] = {"kinks": candidate.kinks, "kink_reach": candidate.kink_reach}
    if excess <= 1:
        verdict = Verdict.AMBIGUOUS if ambiguous else Verdict.AGREE
        return Judgement(*common, verdict, peak.error, allowance, excess, reason=ambiguous, **kinks)
    overflows = [p for p, _ in judged if not p.finite and p.group in allowed and not allowed[p.group].finite]
    if overflows and all(p.ratio / s <= 1 or p in overflows for p, s in judged):
        reason = f"not finite, as the reference's own {candidate.quantity} in this dtype"
        return Judgement(*common, Verdict.AMBIGUOUS, peak.error, allowance, excess, reason=reason, **kinks)
    finding = _finding(*common, peak, share, candidate, reference)
    return Judgement(*common, Verdict.DIFFER, peak.error, allowance, excess, reason=ambiguous, finding=finding, **kinks)


def _own_error(peak: Peak | None) -> float:
    """The reference's error in units of rounding; an answer that is no number widens nothing."""
    return 0.0 if peak is None or not peak.finite else peak.ratio


def _finding(stage: str, quantity: str, peak: Peak, share: float, candidate: Peaks, reference: Peaks | None) -> Finding:
    at_kink = peak.low < peak.high
    off = (peak.value - peak.truth) / peak.truth if peak.truth and not at_kink else float("nan")
    relative = f", {off:+.3g} of it" if not math.isnan(off) else ""
    return Finding(
        stage,
        quantity,
        f"off by {peak.error:.3g}{relative}" + (f", at {peak.group}" if peak.group else ""),
        where=peak.where,
        exact=f"{peak.truth:.9g}" + (f", at a kink: from {peak.low:.9g} to {peak.high:.9g}" if at_kink else ""),
        reference=reference.read(peak.where) if reference is not None else "not available",
        candidate=f"{peak.value:.9g}",
        error=peak.error,
        allowance=peak.slack * share,
        shapes=candidate.shapes,
    )
