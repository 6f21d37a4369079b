"""Where numbers are farthest from the definition: the worst element of each group, in units of its rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from oracle.contract.verdict import Finding, Judgement, Verdict

Where = Mapping[str, int | str]


@dataclass(frozen=True)
class Peak:
    """The worst element of a group of numbers.

    Attributes:
        group: which elements, such as ``level 1, held``.
        ratio: error ÷ slack; infinite where the value is no finite number.
        error, slack: of that element.
        where: its index, by name.
        truth, value: what the definition and the contender say there.
        finite: whether all of the group's values are finite.
    """

    group: str
    ratio: float
    error: float
    slack: float
    where: Where
    truth: float
    value: float
    finite: bool


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


def peak_of(group: str, truth: Tensor, value: Tensor, slack: Tensor, name: Sequence[str] | None = None) -> Peak | None:
    """The worst element of equally shaped tensors; its index is named by axis. ``None`` for empty ones."""
    if truth.numel() == 0:
        return None
    # On the host and in numpy: the judge asks for a thousand small peaks a second.
    expected, found, allowed = truth.numpy(), value.numpy(), np.broadcast_to(slack.numpy(), truth.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.abs(found - expected)
        ratios = error / allowed
    at = np.unravel_index(int(ratios.argmax()), truth.shape)
    if np.isnan(ratios[at]):  # argmax answers the first that is no number, if there is one.
        ratios = np.where(error == 0, 0.0, ratios)
        ratios[np.isnan(ratios)] = np.inf
        at = np.unravel_index(int(ratios.argmax()), truth.shape)
    where = dict(zip(name or [f"axis {axis}" for axis in range(truth.ndim)], map(int, at), strict=True))
    farthest, off, rounding = (float(array[at]) for array in (ratios, error, allowed))
    finite = bool(np.isfinite(ratios[at])) or bool(np.isfinite(found).all())
    return Peak(group, farthest, off, rounding, where, truth=float(expected[at]), value=float(found[at]), finite=finite)


def judge_peaks(stage: str, candidate: Peaks, reference: Peaks | None, widen: bool = True, ambiguous: str = "") -> Judgement:
    """Verdict on a quantity: its error may be the rounding, and twice the reference's own error in the same group on top.

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
    if excess <= 1:
        verdict = Verdict.AMBIGUOUS if ambiguous else Verdict.AGREE
        return Judgement(*common, verdict, peak.error, allowance, excess, reason=ambiguous)
    overflows = [p for p, _ in judged if not p.finite and p.group in allowed and not allowed[p.group].finite]
    if overflows and all(p.ratio / s <= 1 or p in overflows for p, s in judged):
        reason = f"not finite, as the reference's own {candidate.quantity} in this dtype"
        return Judgement(*common, Verdict.AMBIGUOUS, peak.error, allowance, excess, reason=reason)
    finding = _finding(*common, peak, share, candidate, reference)
    return Judgement(*common, Verdict.DIFFER, peak.error, allowance, excess, reason=ambiguous, finding=finding)


def _own_error(peak: Peak | None) -> float:
    """The reference's error in units of rounding; an answer that is no number widens nothing."""
    return 0.0 if peak is None or not peak.finite else peak.ratio


def _finding(stage: str, quantity: str, peak: Peak, share: float, candidate: Peaks, reference: Peaks | None) -> Finding:
    off = (peak.value - peak.truth) / peak.truth if peak.truth else float("nan")
    relative = f", {off:+.3g} of it" if not math.isnan(off) else ""
    return Finding(
        stage,
        quantity,
        f"off by {peak.error:.3g}{relative}" + (f", at {peak.group}" if peak.group else ""),
        where=peak.where,
        exact=f"{peak.truth:.9g}",
        reference=reference.read(peak.where) if reference is not None else "not available",
        candidate=f"{peak.value:.9g}",
        error=peak.error,
        allowance=peak.slack * share,
        shapes=candidate.shapes,
    )
