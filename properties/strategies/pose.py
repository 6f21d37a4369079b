"""Batches of pose: boxes as for detection, with keypoints in, about and outside of them, of both generations.

A box's keypoints are drawn as one pattern with a seed, so that 21 keypoints take no longer to draw or to shrink than one. They shrink to one
visible keypoint at the box's centre.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from oracle.cases.case import Box, Case
from oracle.cases.noise import Noise
from properties.strategies import cases, predictions
from properties.strategies.profiles import Profile, definitions
from twinloss import LossSpec, PoseSpec

COUNTS = (1, 17, 5, 21)
Places = Literal["centre", "inside", "around", "far", "corner", "repeated"]
Flags = Literal["visible", "mixed", "hidden", "one", "none"]

SIGMAS: tuple[float, ...] = (0.1, 0.5, 0.02, 1.0)
POSE_GAINS = ((12.0, 1.0, 1.0), (12.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.0, 2.0, 0.5))
_STREAM = 60


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
    points, generation = draw(st.sampled_from(COUNTS)), draw(st.sampled_from((1, 2, 2)))
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
    case: Case = draw(cases(profile, definition=st.just(spec), prediction=_PREDICTIONS))
    found = case.spec
    assert isinstance(found, PoseSpec)
    pattern: Pattern = draw(_PATTERNS)
    boxes = _at_gate(case.boxes, found, draw(st.sampled_from((None, None, 2, 12)))) if found.generation == 2 else case.boxes
    options = {"evaluation": 1.0} if found.generation == 2 and draw(_EVALUATION) else {}
    extras = {"keypoints": pattern.column(boxes, found.keypoint_shape[0])} if boxes else {}
    return dataclasses.replace(case, boxes=boxes, extras=extras, options=options, workload=f"generated-pose-{profile.name}")


def _at_gate(boxes: tuple[Box, ...], spec: PoseSpec, factor: int | None) -> tuple[Box, ...]:
    """Returns the boxes, of which the first is a square at the lower (2) or upper (12) border of the gate of a level."""
    if factor is None or not boxes:
        return boxes
    side = float(factor * spec.strides[len(boxes) % len(spec.strides)])
    first = boxes[0]
    return (dataclasses.replace(first, cx=float(round(first.cx)), cy=float(round(first.cy)), w=side, h=side), *boxes[1:])


def fewer_keypoints(case: Case) -> list[Case]:
    """Returns smaller batches: half of the keypoints, the first generation, no flow, no visibility."""
    spec = case.spec
    assert isinstance(spec, PoseSpec)
    points, numbers = spec.keypoint_shape
    found = []
    if points > 1 and spec.sigmas is None and case.prediction.kind != "inline":
        half, column = points // 2, case.extras.get("keypoints", ())
        kept = tuple(row[: len(row) // points * half] for row in column)
        smaller = dataclasses.replace(spec, keypoint_shape=(half, numbers))
        found.append(dataclasses.replace(case, spec=smaller, extras={"keypoints": kept} if kept else {}))
    if spec.flow:
        found.append(dataclasses.replace(case, spec=dataclasses.replace(spec, flow=False)))
    return found
