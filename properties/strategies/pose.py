"""Batches of pose: boxes as for detection, with keypoints in, about and outside of them, of both generations.

The keypoints of a batch are drawn as one pattern with a seed, so that 21 keypoints take no longer to draw or to shrink than one.

Numbers in brackets are sections of the pose specification.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Setting
from oracle.cases.noise import Noise
from oracle.cases.tasks.pose import pose_spec, shares
from oracle.definition.keypoints import extents, large_enough, small_enough
from oracle.definition.pose import ExactPose
from properties.strategies import cases, predictions, tags_of
from properties.strategies.profiles import Profile, definitions
from twinloss import LossSpec, PoseSpec

COUNTS = (1, 17, 5, 21)
Places = Literal["centre", "inside", "around", "far", "corner", "repeated"]
Flags = Literal["visible", "mixed", "hidden", "one", "none"]

SIGMAS: tuple[float, ...] = (0.1, 0.5, 0.02, 1.0)
POSE_GAINS = ((12.0, 1.0, 1.0), (12.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.0, 2.0, 0.5))
_STREAM = 60

TAGS = {
    "generation-1": "the definition is that of YOLOv8 to YOLO12",
    "generation-2": "the definition is that of YOLO26",
    "likelihood": "the loss has a likelihood term",
    "evaluation": "the model predicts no deviations, as in evaluation",
    "unseen-keypoints": "a box has no visible keypoint",
    "one-keypoint": "a box has one visible keypoint of several",
    "hidden": "a keypoint's visibility is 1",
    "outside": "a visible keypoint lies outside of its box",
    "gate": "a box lies on a border of the level gate, to within 1e-6",
    "gate-empty": "the level gate takes all candidates from a box, which then keeps them",
    "underflow": "a candidate's metric is below 1e-37 in float64",
}


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Keypoints of the boxes of a batch.

    Attributes:
        places: where they are: at the box's centre, inside of it, ``around`` it (half of them outside), ``far`` outside of box and image,
            all in one ``corner`` of the box, or ``repeated`` on the same place.
        flags: which are visible; ``hidden`` keypoints are labelled 1, ``none`` 0, and ``one`` is 2 while the rest is 0.
        three: whether a target has a third number, the visibility.
        twins: whether the keypoints of a box equal those of the box before it, relative to the box.
        seed: seed of the places and of mixed flags.
    """

    places: Places
    flags: Flags
    three: bool
    twins: bool
    seed: int

    def column(self, boxes: Sequence[Box], points: int) -> tuple[tuple[float, ...], ...]:
        """Returns the keypoints of each box in pixels."""
        return tuple(self._keypoints(box, index, points) for index, box in enumerate(boxes))

    def _keypoints(self, box: Box, index: int, points: int) -> tuple[float, ...]:
        noise = Noise(self.seed, _STREAM + (0 if self.twins else index))
        offset = self._offsets(noise.uniform(points, 2).astype(np.float64))
        x, y = box.cx + offset[:, 0] * box.w, box.cy + offset[:, 1] * box.h
        if not self.three:
            return tuple(np.stack([x, y], 1).reshape(-1).tolist())
        return tuple(np.stack([x, y, self._visibility(noise, index, points)], 1).reshape(-1).tolist())

    def _offsets(self, draw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns places (n, 2) relative to the box's centre, in its sides."""
        return {
            "centre": draw * 0,
            "inside": draw - 0.5,
            "around": 2 * draw - 1,
            "far": 20 * draw - 10,
            "corner": 0.05 * draw - 0.5,
            "repeated": np.repeat(draw[:1], len(draw), 0) - 0.5,
        }[self.places]

    def _visibility(self, noise: Noise, index: int, points: int) -> NDArray[np.float64]:
        whole = {"visible": 2.0, "hidden": 1.0, "none": 0.0}
        if self.flags in whole:
            return np.full(points, whole[self.flags])
        if self.flags == "one":
            return np.where(np.arange(points) == index % points, 2.0, 0.0)
        return np.floor(noise.uniform(points) * 3).astype(np.float64)


_GATES = (None, None, 0.0, 0.0, 2.0, 12.0)
_THIN, _LONG = 7 / 8, 12.5  # Width in strides of the second level, root of the area in strides of the first.
_GENERATIONS: tuple[Literal[1, 2], ...] = (1, 2, 2)
_NEAR, _BORDER, _UNDERFLOW = 1e-3, 1e-6, 1e-37  # Pixels, relative, a metric.

_PATTERNS = st.builds(
    Pattern,
    places=st.sampled_from(("inside", "around", *get_args(Places))),
    flags=st.sampled_from(("visible", "mixed", "mixed", *get_args(Flags)[2:])),
    three=st.sampled_from((True, True, False)),
    twins=st.booleans(),
    seed=st.integers(0, 2**16),
)


@st.composite
def pose_definitions(draw: st.DrawFn) -> PoseSpec:
    """Definitions of both generations that the reference supports; they shrink to one keypoint and the first generation."""
    plain: LossSpec = draw(_PLAIN)
    points, generation = draw(st.sampled_from(COUNTS)), draw(st.sampled_from(_GENERATIONS))
    chosen = draw(st.sampled_from((None, None, None, *SIGMAS)))
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(LossSpec)}
    return PoseSpec(
        **fields | {"gains": (*plain.gains, *draw(st.sampled_from(POSE_GAINS)))},
        keypoint_shape=(points, draw(st.sampled_from((3, 3, 2)))),
        generation=generation,
        sigmas=None if chosen is None else tuple(chosen * (1 + k % 3) / 2 for k in range(points)),
        flow=generation == 2 and draw(st.sampled_from((True, True, False))),
    )


_PLAIN, _DEFINITIONS, _PREDICTIONS = definitions(), pose_definitions(), predictions()
_EVALUATION = st.sampled_from((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0))


@st.composite
def pose_cases(draw: st.DrawFn, profile: Profile) -> Case:
    """Batches of pose with their tags; a tenth of the boxes of the second generation lies at a border of the level gate."""
    spec: PoseSpec = draw(_DEFINITIONS)
    case: Case = draw(cases(profile, definition=st.just(spec), prediction=_PREDICTIONS, tagged=False))
    found = case.spec
    assert isinstance(found, PoseSpec)
    pattern: Pattern = draw(_PATTERNS)
    boxes = _at_gate(case.boxes, found, draw(st.sampled_from(_GATES))) if found.generation == 2 else case.boxes
    options = {"evaluation": 1.0} if found.generation == 2 and draw(_EVALUATION) else {}
    extras = {"keypoints": pattern.column(boxes, found.keypoint_shape[0])} if boxes else {}
    case = dataclasses.replace(case, boxes=boxes, extras=extras, options=options, workload=f"generated-pose-{profile.name}")
    return dataclasses.replace(case, tags=pose_tags(case))


def _at_gate(boxes: tuple[Box, ...], spec: PoseSpec, factor: float | None) -> tuple[Box, ...]:
    """Returns the boxes, of which the first is a square at the lower (2) or upper (12) border of the gate of a level.

    With a factor of 0 it is so thin and long that the gate refuses the one level on which it has candidates.
    """
    if factor is None or not boxes:
        return boxes
    strides, first = spec.strides, boxes[0]
    if factor == 0 and len(strides) > 1:
        width = _THIN * strides[1]
        return (dataclasses.replace(first, cx=float(strides[-1]), w=width, h=(_LONG * strides[0]) ** 2 / width), *boxes[1:])
    side = float((factor or 2) * strides[len(boxes) % len(strides)])
    return (dataclasses.replace(first, cx=float(round(first.cx)), cy=float(round(first.cy)), w=side, h=side), *boxes[1:])


def pose_tags(case: Case) -> tuple[str, ...]:
    """Returns the tags of a case: those of detection, then those of :data:`TAGS`."""
    found = set(_definition_tags(case))
    if case.boxes:
        found |= set(_keypoint_tags(case))
        found |= set(_assignment_tags(case)) if pose_spec(case).generation == 2 else set()
    return *tags_of(case), *(tag for tag in TAGS if tag in found)


def _definition_tags(case: Case) -> Iterator[str]:
    spec = pose_spec(case)
    yield f"generation-{spec.generation}"
    if spec.flow:
        yield "likelihood"
    if case.options.get("evaluation"):
        yield "evaluation"


def _keypoint_tags(case: Case) -> Iterator[str]:
    points = shares(case)
    flags = points[..., 2] if points.shape[2] == 3 else np.full(points.shape[:2], 2.0)
    seen = (flags != 0).sum(1)
    if (seen == 0).any():
        yield "unseen-keypoints"
    if (seen == 1).any() and points.shape[1] > 1:
        yield "one-keypoint"
    if (flags == 1).any():
        yield "hidden"
    centres, sides = (np.array([pair]).reshape(-1, 2) for pair in ([(b.cx, b.cy) for b in case.boxes], [(b.w, b.h) for b in case.boxes]))
    away = np.abs(points[..., :2] * np.array(case.image_size[::-1]) - centres[:, None])
    if ((away > sides[:, None] / 2 + _NEAR).any(-1) & (flags != 0)).any():
        yield "outside"


def _assignment_tags(case: Case) -> Iterator[str]:
    spec = dataclasses.replace(pose_spec(case), flow=False)
    roots = np.sqrt([b.w * b.h for b in case.boxes])
    borders = np.array([factor * stride for factor in (2, 12) for stride in spec.strides])
    if (np.abs(roots[:, None] / borders - 1) < _BORDER).any():
        yield "gate"
    exact, (preds, batch) = ExactPose(spec), build(case, Setting("float64"))
    strides = exact.grid(preds).strides
    for one in exact.trace(preds, batch):
        extent = extents(one.corners)
        fitting = (one.border > 0) & large_enough(extent, strides) & small_enough(extent, strides)
        if (one.candidate.any(1) & ~fitting.any(1)).any():
            yield "gate-empty"
        if (one.candidate & (one.metric < _UNDERFLOW)).any():
            yield "underflow"


def smaller_pose(case: Case) -> Iterator[Case]:
    """Yields batches with half of the keypoints, all of them visible, without flow, and of the first generation."""
    spec = case.spec
    assert isinstance(spec, PoseSpec)
    points, numbers = spec.keypoint_shape
    plain = case.prediction.kind != "inline"
    if points > 1 and spec.sigmas is None and plain:
        half = points // 2
        extras = {name: tuple(row[: len(row) // points * half] for row in column) for name, column in case.extras.items()}
        yield dataclasses.replace(case, spec=dataclasses.replace(spec, keypoint_shape=(half, numbers)), extras=extras)
    if any(len(row) == 3 * points for row in case.extras.get("keypoints", ())):
        seen = tuple(tuple(2.0 if k % 3 == 2 else value for k, value in enumerate(row)) for row in case.extras["keypoints"])
        if seen != case.extras["keypoints"]:
            yield dataclasses.replace(case, extras={**case.extras, "keypoints": seen})
    if spec.flow:
        yield dataclasses.replace(case, spec=dataclasses.replace(spec, flow=False))
    elif spec.generation == 2 and plain:
        yield dataclasses.replace(case, spec=dataclasses.replace(spec, generation=1), options={})
