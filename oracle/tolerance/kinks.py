"""The kinks of the CIoU: where its gradient jumps, and between which values (spec sections 6 and 8).

The slope of the CIoU in a side of the prediction depends on two facts besides the numbers: whether the side lies within the truth's, and so
bounds the intersection, or beyond it, and so bounds the enclosing box; and whether the boxes overlap along that axis. Where rounding hides
a fact, a correct program may find either answer, and its gradient is any number between the two slopes. Where all facts are known, the
slope is smooth and rounding moves it little. Example: the left side of the prediction coincides with the truth's.

>>> a, b = (torch.tensor([corners], dtype=torch.float64) for corners in ([0.0, 1, 3, 3], [0.0, 0, 4, 4]))
>>> rounding = torch.full((1, 4), 1e-6, dtype=torch.float64)
>>> facts = list(possible_facts(a, rounding, b, rounding))  # The left side lies within (1) or beyond (0); the others lie within.
>>> [one.within.tolist() for one in facts]
[[[0.0, 1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0, 1.0]]]
>>> [slopes(a, b, eps=1e-7).given(one).numpy().round(3).tolist() for one in facts]  # The left slope is any number in between.
[[[-0.061, 0.188, 0.14, 0.188]], [[0.109, 0.188, 0.14, 0.188]]]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from oracle.cases.noise import Noise
from oracle.definition.formulas import ciou

SMALL_EXTENT = 16.0  # First-order bounds do not hold for an extent of fewer roundings: there the corners are moved together.
JOINT_FACTOR = 1.25  # The joint shifts are samples: other shifts of boxes 1e-4 px high changed a slope by up to 1.10 times as much.
_CHUNK = 1 << 17  # Moved boxes that are evaluated together.


class Facts(NamedTuple):
    """The facts on which the slope in each side (..., 4) depends.

    Attributes:
        within: 1 where the predicted side lies within the truth's, 0 beyond it, 1/2 on it [8].
        overlapping: 1 where the intersection has an extent along the side's axis, else 0.
    """

    within: Tensor
    overlapping: Tensor


class Slopes(NamedTuple):
    """The parts of the slope of the CIoU in each side (..., 4).

    Attributes:
        steady: the part that depends on no fact.
        inner: the part of a side that bounds the intersection.
        outer: the part of a side that bounds the enclosing box.
    """

    steady: Tensor
    inner: Tensor
    outer: Tensor

    def given(self, facts: Facts) -> Tensor:
        """Returns the slope (..., 4) for given facts."""
        return self.steady + facts.overlapping * facts.within * self.inner + (1 - facts.within) * self.outer


def slopes(a: Tensor, b: Tensor, eps: float) -> Slopes:
    """Returns the slope of the CIoU of predictions ``a`` and truths ``b`` (..., 4) in the outward sides of ``a``; α_c is a constant [6]."""
    (a_low, a_high), (b_low, b_high) = _ends(a), _ends(b)
    lengthened = a.new_tensor([0.0, eps])
    (aw, ah), (bw, bh) = (a_high - a_low + lengthened).unbind(-1), (b_high - b_low + lengthened).unbind(-1)
    extent = overlap_extent(a, b).clamp(min=0)
    intersection = extent.prod(-1)
    union = aw * ah + bw * bh - intersection + eps
    iou = intersection / union
    hull = torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low)
    diagonal = hull.square().sum(-1) + eps
    apart = b_low + b_high - a_low - a_high
    share = apart.square().sum(-1) / 4 / diagonal
    ratio = aw / ah
    turn = torch.atan(bw / bh) - torch.atan(ratio)
    aspect = 4 / math.pi**2 * turn.square()
    bend = aspect / (1 - iou + aspect + eps) * 8 / math.pi**2 * turn / (1 + ratio.square()) / ah
    across = torch.stack([ah, aw], -1)
    steady = torch.stack([bend, -bend * ratio], -1) - (iou / union)[..., None] * across
    away = apart / 2 / diagonal[..., None]
    inner = extent.flip(-1) * ((1 + iou) / union)[..., None]
    outer = 2 * hull * (share / diagonal)[..., None]
    return Slopes(torch.cat([steady - away, steady + away], -1), torch.cat([inner, inner], -1), torch.cat([outer, outer], -1))


def overlap_extent(a: Tensor, b: Tensor) -> Tensor:
    """Returns width and height (..., 2) of the intersection of boxes; negative where they are apart along an axis."""
    (a_low, a_high), (b_low, b_high) = _ends(a), _ends(b)
    return torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)


def possible_facts(a: Tensor, a_tolerance: Tensor, b: Tensor, b_tolerance: Tensor) -> Iterator[Facts]:
    """Yields the facts at boxes (H, 4) with tolerances: one where no fact is hidden, else each combination of extremes."""
    outwards = a.new_tensor([-1.0, -1.0, 1.0, 1.0])
    beyond = (a - b) * outwards
    hidden = beyond.abs() <= a_tolerance + b_tolerance
    within = torch.where(beyond < 0, 1.0, torch.where(beyond == 0, 0.5, 0.0)).double()
    extent, tolerance = overlap_extent(a, b), torch.maximum(a_tolerance, b_tolerance)
    touching = (extent.abs() <= tolerance[..., :2] + tolerance[..., 2:]).repeat(1, 2)
    overlapping = (extent > 0).double().repeat(1, 2)
    withins = [within.where(~hidden, end) for end in (0.0, 1.0)] if hidden.any() else [within]
    overlappings = [overlapping.where(~touching, end) for end in (0.0, 1.0)] if touching.any() else [overlapping]
    return (Facts(one, other) for one in withins for other in overlappings)


class Moved(NamedTuple):
    """Values (H, ...) at the corners, and their tolerance (H, ...) by rounding of the corners."""

    value: Tensor
    tolerance: Tensor


def moved_by_rounding(
    a: Tensor, a_tolerance: Tensor, b: Tensor, b_tolerance: Tensor, eps: float, facts: Sequence[Facts], *, one_at_a_time: bool = False
) -> list[Moved]:
    """Returns the CIoU (H,) of predictions and truths (H, 4), and its slopes (H, 4) for each of the facts, with tolerances.

    Corners are moved one at a time, to either side, and the changes are added up. For a box so small that one rounding changes the effect
    of another, all corners are also moved together, in all combinations and by random parts of their rounding; not with
    ``one_at_a_time``.
    """
    corners, errors = torch.cat([a, b], 1), torch.cat([a_tolerance, b_tolerance], 1)
    single = torch.eye(8, dtype=torch.float64)
    still, up, down = (_values(corners, way[:, None] * errors, eps, facts) for way in (0 * single[:1], single, -single))
    tolerances = [torch.maximum(_change(u, s), _change(d, s)).sum(0) for s, u, d in zip(still, up, down, strict=True)]
    small = is_small(corners, errors) & (not one_at_a_time)
    for some in small.nonzero()[:, 0].split(_CHUNK // len(_JOINT_SHIFTS)):
        of_some = [Facts(*(part[some] for part in one)) for one in facts]
        moved = _values(corners[some], _JOINT_SHIFTS * errors[some], eps, of_some)
        for tolerance, values, origin in zip(tolerances, moved, still, strict=True):
            tolerance[some] = torch.maximum(tolerance[some], JOINT_FACTOR * _change(values, origin[:, some]).amax(0))
    return [Moved(origin[0], tolerance) for origin, tolerance in zip(still, tolerances, strict=True)]


def is_small(corners: Tensor, errors: Tensor) -> Tensor:
    """Returns whether either box of each pair (H, 8), or their intersection, has an extent of few roundings (H,)."""
    a, b = corners.unflatten(1, (2, 4)).unbind(1)
    low, high = errors.unflatten(1, (2, 2, 2)).unbind(2)
    extents = torch.stack([a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2], overlap_extent(a, b)], 1).abs()
    tolerance = low + high
    return (extents < SMALL_EXTENT * torch.cat([tolerance, tolerance.amax(1, keepdim=True)], 1)).flatten(1).any(1)


_JOINT_SHIFTS = torch.cat(
    [
        torch.tensor(list(itertools.product((-1.0, 1.0), repeat=8)), dtype=torch.float64),
        torch.from_numpy(Noise(0).uniform(256, 8)).double() * 2 - 1,  # The extreme may lie in between.
    ]
)[:, None, :]


def _values(corners: Tensor, shifts: Tensor, eps: float, facts: Sequence[Facts]) -> list[Tensor]:
    """Returns CIoU (n, H) and slopes (n, H, 4) for each of the facts, of pairs of boxes (H, 8) moved by ``shifts`` (n, H, 8)."""
    a, b = (in_order(corners[:, part], shifts[..., part]) for part in (slice(0, 4), slice(4, 8)))
    found = slopes(a, b, eps)
    return [ciou(a, b, eps), *(found.given(one) for one in facts)]


def in_order(corners: Tensor, shifts: Tensor) -> Tensor:
    """Returns moved corners (n, H, 4) in their order: rounding may make two coordinates equal, or unequal, but never swaps them."""
    low, high = _ends(corners)
    moved_low, moved_high = _ends(corners + shifts)
    ends = torch.minimum(moved_low, moved_high), torch.maximum(moved_low, moved_high)
    return torch.cat([torch.where(low <= high, *ends), torch.where(low <= high, *ends[::-1])], -1)


def _change(moved: Tensor, origin: Tensor) -> Tensor:
    return (moved - origin).abs().nan_to_num(nan=torch.inf)


def _ends(corners: Tensor) -> tuple[Tensor, Tensor]:
    return corners[..., :2], corners[..., 2:]
