"""Batches of oriented boxes: those of detection, each box with an angle, and some changed into what only an oriented box can be.

Numbers in brackets are sections of the oriented specification.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.definition.assignment_trace import ImageTrace
from oracle.definition.oriented import SMALLEST_SIDE, ExactOriented
from properties.strategies import cases, definitions, predictions
from properties.strategies.profiles import Frame, Profile
from twinloss import OrientedSpec

TAGS = {
    "removed": "a row has a side below 2 px, so that it is removed before all else",
    "limit": "a side is 2 px, to within a last bit",
    "dropped": "a row is not valid: the sum of its five numbers is not positive",
    "long": "a box is at least 20 times as long as it is wide",
    "square": "the sides of a box differ by at most a last bit",
    "turned": "an angle lies outside of the loader's range, or the width is the shorter side",
    "identical": "two boxes of one image have the same five numbers",
    "rewritten": "two boxes of one image are the same rectangle with other numbers",
    "on-border": "an anchor's centre lies on a side within 1e-4 px",
    "perfect": "a candidate's overlap is the largest that occurs",
    "contested": "an anchor is a candidate of two boxes",
    "few-candidates": "a valid box has candidates, but fewer than K",
    "zero-metric": "a valid box has fewer than K candidates of positive metric, so that anchors of metric 0 may be picked",
    "strangers": "a candidate's overlap is 0",
}

# Angles in radians: the loader's range and its ends, right angles, half turns and more, up to a turn: the twin refuses others.
_END = float(np.float32(3 * math.pi / 4))
ANGLES = (
    0.3, 0.0, 1.0, math.pi / 2, -math.pi / 4, _END, float(np.nextafter(np.float32(_END), np.float32(0))), math.pi / 4, 2.0, -0.5, 1e-4,
    math.pi, 3.5, -1.9, 6.28, -6.28,
)  # fmt: skip
LENGTHS = (64.0, 40.0, 128.0, 2000.0)
ASPECTS = (20.0, 5.0, 60.0, 1000.0)
# About the limit of 3.1, and far below it.
_LIMITS = (SMALLEST_SIDE, float(np.nextafter(np.float32(2), np.float32(0))), float(np.nextafter(np.float32(2), np.float32(3))), 0.01, 0.0)
_TURNED = (-math.pi / 4, 3 * math.pi / 4)


class Turned(NamedTuple):
    """A box and its angle, and whether it is a rectangle that the image has already."""

    box: Box
    angle: float
    again: bool = False


class Draw(NamedTuple):
    """What changes a box.

    Attributes:
        rule: a name of :data:`RULES`.
        angle: index into :data:`ANGLES`.
        number: which of the rule's numbers.
    """

    rule: str
    angle: int
    number: int


Rule = Callable[[Turned, "Turned | None", Draw, Frame], Turned]


def _sides(turned: Turned, w: float, h: float) -> Turned:
    return Turned(dataclasses.replace(turned.box, w=w, h=h), turned.angle)


def _long(turned: Turned, _earlier: Turned | None, draw: Draw, _frame: Frame) -> Turned:
    """Makes a long box, whose short side is 2 px or more."""
    length, aspect = LENGTHS[draw.number % len(LENGTHS)], ASPECTS[draw.number // len(LENGTHS) % len(ASPECTS)]
    return _sides(turned, length, max(length / aspect, SMALLEST_SIDE))


def _square(turned: Turned, _earlier: Turned | None, draw: Draw, _frame: Frame) -> Turned:
    """Makes a square, or one whose height differs by a last bit."""
    side = np.float32(max(turned.box.w, 4.0))
    return _sides(turned, float(side), float(np.nextafter(side, np.float32((side, 0, np.inf)[draw.number % 3]))))


def _limit(turned: Turned, _earlier: Turned | None, draw: Draw, _frame: Frame) -> Turned:
    """Gives one side, or both, a length about the limit."""
    short = _LIMITS[draw.number % len(_LIMITS)]
    return _sides(turned, *((short, turned.box.h), (turned.box.w, short), (short, short))[draw.number // len(_LIMITS) % 3])


def _again(turned: Turned, earlier: Turned | None, draw: Draw, _frame: Frame) -> Turned:
    """Writes the image's last box again, turned by 0 to 3 right angles with the sides exchanged for an odd number.

    Of three or more such boxes of one class the gradients do not tell which one holds an anchor: a box is written again once.
    """
    if earlier is None or earlier.again:
        return turned
    box, turns = earlier.box, draw.number % 4
    w, h = (box.h, box.w) if turns % 2 else (box.w, box.h)
    same = dataclasses.replace(box, label=turned.box.label, w=w, h=h)
    other = earlier.angle + turns * math.pi / 2 * (1 if draw.number % 8 < 4 else -1)
    return Turned(same, other if abs(other) < ANGLES[-2] else math.remainder(other, math.pi), again=True)


def _on_border(turned: Turned, _earlier: Turned | None, draw: Draw, frame: Frame) -> Turned:
    """Moves the box so that the centre of an anchor lies on one of its sides; every other box is upright, so that it does exactly."""
    (rows, columns), stride = frame.grids[0], frame.spec.strides[0]
    x, y = (draw.number % columns + 0.5) * stride, (draw.number // columns % rows + 0.5) * stride
    w, h = (float(max(round(side), frame.spec.shortest_side)) for side in (turned.box.w, turned.box.h))
    along, across = ((w / 2, 0.0), (0.0, h / 2), (-w / 2, 0.0), (0.0, -h / 2))[draw.number % 4]
    angle = turned.angle if draw.number // 4 % 2 else 0.0
    cosine, sine = math.cos(angle), math.sin(angle)
    centre = x - along * cosine + across * sine, y - along * sine - across * cosine
    return Turned(dataclasses.replace(turned.box, cx=centre[0], cy=centre[1], w=w, h=h), angle)


def _cornered(turned: Turned, _earlier: Turned | None, draw: Draw, _frame: Frame) -> Turned:
    """Moves a small box to the image's top-left corner, where the sum of its five numbers is about 0 [3.3]."""
    place, side = (-1.0, -3.0, 0.5, -2.0)[draw.number % 4], (2.5, 2.0, 4.0)[draw.number // 4 % 3]
    return Turned(dataclasses.replace(turned.box, cx=place, cy=place, w=side, h=side), turned.angle)


RULES: dict[str, Rule] = {
    "as drawn": lambda turned, *_: turned,
    "exchanged": lambda turned, *_: _sides(turned, turned.box.h, turned.box.w),
    "long": _long,
    "square": _square,
    "limit": _limit,
    "again": _again,
    "on border": _on_border,
    "cornered": _cornered,
}
"""What becomes of a box, by name; the simplest first."""

_SHARES = ("as drawn", "as drawn", "exchanged", "long", "again", "on border", "square", "limit", "cornered")


@st.composite
def oriented_definitions(draw: st.DrawFn) -> OrientedSpec:
    """Definitions that the reference supports."""
    spec = draw(_BASE)
    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    gains = (*spec.gains, draw(st.sampled_from((1.0, 1.0, 2.0, 0.0))))
    # The newest heads have R = 1.
    return OrientedSpec(**fields | {"gains": gains, "reg_max": draw(st.sampled_from((spec.reg_max, spec.reg_max, 1)))})


_BASE = definitions()
_DEFINITIONS = oriented_definitions()
# Predictions about the kink of 8, 2e-4 of a side off the truth; and such that are far off, whose overlap is 0 [5.2].
_FINE = st.builds(Prediction, kind=st.just("near"), spread=st.sampled_from((0.0, 2e-4, 1e-3, 5e-3, 10.0, 30.0)), seed=st.integers(0, 2**16))
_PREDICTIONS = st.one_of(predictions(), predictions(), predictions(), _FINE)
_DRAWS = st.lists(st.builds(Draw, st.sampled_from(_SHARES), st.integers(0, len(ANGLES) - 1), st.integers(0, 2**12)), min_size=1, max_size=8)


@st.composite
def oriented_cases(draw: st.DrawFn, profile: Profile, *, tagged: bool = True) -> Case:
    """Whole batches of oriented boxes, with their tags; drawn changes are applied to the boxes in turn."""
    case: Case = draw(cases(profile, definition=_DEFINITIONS, prediction=_PREDICTIONS, tagged=False))
    draws = draw(_DRAWS)
    frame = Frame(case.spec, *case.image_size)
    last: dict[int, Turned] = {}
    changed = []
    for index, box in enumerate(case.boxes):
        one = draws[index % len(draws)]
        # Each round through the changes takes the next angle, so that the boxes of a crowd differ.
        plain = Turned(box, ANGLES[(one.angle + index // len(draws)) % len(ANGLES)])
        last[box.image] = RULES[one.rule](plain, last.get(box.image), one._replace(number=one.number + index // len(draws)), frame)
        changed.append(last[box.image])
    angles = tuple(turned.angle for turned in changed)
    case = dataclasses.replace(case, boxes=tuple(turned.box for turned in changed), extras={"angle": angles} if angles else {})
    return dataclasses.replace(case, tags=oriented_tags(case)) if tagged else case


def smaller(case: Case) -> Iterator[Case]:
    """Yields batches without angles, or with the angles of the loader's range."""
    angles = case.extras.get("angle", ())
    simpler = tuple(angle if _TURNED[0] <= angle < _TURNED[1] else 0.3 for angle in angles)
    if simpler != angles:
        yield dataclasses.replace(case, extras={"angle": simpler})
    if any(angles):
        yield dataclasses.replace(case, extras={"angle": (0.0,) * len(angles)})


def oriented_tags(case: Case) -> tuple[str, ...]:
    """Returns the tags of a case in the order of :data:`TAGS`."""
    inputs = build(case, Setting("float64"))
    exact = ExactOriented(case.spec)
    with torch.no_grad():
        traces, boxes = exact.trace(*inputs), exact.truth(*inputs).corners
    found = {name for name, holds in _of_rows(boxes, inputs.batch["batch_idx"]).items() if holds}
    found |= {name for trace in traces for name, holds in _of_image(trace, case).items() if holds}
    return tuple(tag for tag in TAGS if tag in found)


def _of_rows(boxes: torch.Tensor, image: torch.Tensor) -> dict[str, bool]:
    sides, angle = boxes[:, 2:4], boxes[:, 4]
    kept = (sides >= SMALLEST_SIDE).all(1)
    # The covariance is the same however the rectangle is written.
    doubled = torch.stack([(2 * angle).cos(), (2 * angle).sin()], 1) * (sides[:, :1] ** 2 - sides[:, 1:] ** 2)
    shape = torch.cat([boxes[:, :2], (sides**2).sum(1, keepdim=True), doubled], 1)
    pairs = (image[:, None] == image) & torch.ones(len(image), len(image)).tril(-1).bool()
    same = (boxes[:, None] == boxes).all(2) & pairs
    alike = ((shape[:, None] - shape).abs() <= 1e-4 * (1 + shape.abs())).all(2) & pairs
    turned = (angle < _TURNED[0]) | (angle >= _TURNED[1]) | (sides[:, 0] < sides[:, 1])
    return {
        "removed": bool((~kept).any()),
        "limit": bool(((sides - SMALLEST_SIDE).abs() < 1e-6).any()),
        "dropped": bool((kept & (boxes.sum(1) <= 0)).any()),
        "long": bool((kept & (sides.amax(1) >= 20 * sides.amin(1))).any()),
        "square": bool((kept & ((sides[:, 0] - sides[:, 1]).abs() <= 1e-6 * sides[:, 0])).any()),
        "turned": bool((kept & turned).any()),
        "identical": bool(same.any()),
        "rewritten": bool((alike & ~same).any()),
    }


def _of_image(trace: ImageTrace, case: Case) -> dict[str, bool]:
    candidates, positive = trace.candidate.sum(1), (trace.metric > 0).sum(1)
    return {
        "on-border": bool((trace.border.abs() < 1e-4).any()),
        "perfect": bool((trace.overlap > 0.99955).any()),
        "contested": bool((trace.candidate.sum(0) > 1).any()),
        "few-candidates": bool(((candidates > 0) & (candidates < case.spec.topk)).any()),
        "zero-metric": bool((positive < case.spec.topk).any()),
        "strangers": bool((trace.candidate & (trace.overlap == 0)).any()),
    }
