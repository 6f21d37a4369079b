"""Hypothesis strategies for whole batches of the loss.

They draw :class:`~oracle.cases.case.Case` records, not tensors. A failure prints as JSON, and shrinks towards one square image of 64 px
with one level, one class, and a box at simple coordinates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from hypothesis import strategies as st

from oracle.cases.case import Box, Case, Prediction, PredictionKind
from properties.strategies.crowds import PATTERNS, Crowd, crowds
from properties.strategies.placements import ordinary_placements, placements
from properties.strategies.profiles import MEDIUM, PROFILES, TINY, Frame, Profile, definitions, image_sizes
from properties.strategies.tags import TAGS, tags_of
from twinloss import LossSpec

__all__ = [
    "KINDS", "MEDIUM", "PATTERNS", "PROFILES", "TAGS", "TINY", "Crowd", "Frame", "Profile", "cases", "crowds", "definitions",
    "ordinary_placements", "placements", "predictions", "tags_of",
]  # fmt: skip

# Kinds of predictions (see oracle.cases.logits) and the sizes of their pseudo-random part, the simplest first.
KINDS: dict[PredictionKind, tuple[float, ...]] = {
    "near": (0.25, 0.0, 0.05, 1.0, 3.0),
    "random": (1.0, 0.1, 4.0, 10.0),
    "untrained": (1.0,),
    "exact": (1.0,),
    "saturated": (1.0, 0.5),
    "early": (1.0,),
    "middle": (1.0,),
    "late": (1.0, 0.3),
    "zeros": (1.0,),
}

# Predictions near the truth exercise every stage; the other kinds need fewer batches.
_SHARES: tuple[PredictionKind, ...] = (
    "near", "random", "exact", "near", "saturated", "zeros", "near", "untrained", "early", "middle", "late", "exact",
)  # fmt: skip


def predictions(kinds: Sequence[PredictionKind] = _SHARES) -> st.SearchStrategy[Prediction]:
    """Strategy of recipes of logits; a kind that is listed twice is drawn twice as often."""

    @st.composite
    def prediction(draw: st.DrawFn) -> Prediction:
        kind = draw(st.sampled_from(kinds))
        return Prediction(kind=kind, spread=draw(st.sampled_from(KINDS[kind])), seed=draw(st.integers(0, 2**16)))

    return prediction()


# Strategies are made once, because Hypothesis takes longer to make one than to draw from it. An image or a class is drawn from the largest
# range and taken modulo the number of images or classes.
_DEFINITIONS, _PREDICTIONS = definitions(), predictions()
_IMAGE, _LABEL = st.integers(0, 59), st.integers(0, 364)
_ROWS = {
    profile.name: [
        st.lists(st.tuples(_IMAGE, _LABEL, way), max_size=profile.max_boxes) for way in (ordinary_placements(), placements(), placements())
    ]
    for profile in PROFILES.values()
}
_CROWDS = {profile.name: st.lists(crowds(profile, _IMAGE), max_size=1) for profile in PROFILES.values()}


@st.composite
def cases(
    draw: st.DrawFn,
    profile: Profile = TINY,
    *,
    definition: st.SearchStrategy[LossSpec] | None = None,
    prediction: st.SearchStrategy[Prediction] | None = None,
    tagged: bool = True,
) -> Case:
    """Whole batches with boxes in order of image, and with their tags.

    Args:
        draw: supplied by Hypothesis.
        profile: bounds of the size: :data:`TINY` (64 to 128 px, thousands in minutes) or :data:`MEDIUM` (160 to 256 px).
        definition: strategy of definitions; by default :func:`definitions`.
        prediction: strategy of recipes of logits; by default :func:`predictions`.
        tagged: whether to compute the tags, which takes most of the time.
    """
    spec = draw(_DEFINITIONS if definition is None else definition)
    height, width = draw(image_sizes(profile, spec.strides[0]))
    images = draw(st.integers(1, profile.max_images))
    frame = Frame(_fewer_classes(spec, profile, height, width, images), height, width)
    case = Case(
        spec=frame.spec,
        image_size=(height, width),
        batch_size=images,
        boxes=tuple(sorted(_draw_boxes(draw, profile, frame, images), key=lambda box: box.image)),
        prediction=draw(_PREDICTIONS if prediction is None else prediction),
        workload=f"generated-{profile.name}",
    )
    return dataclasses.replace(case, tags=tags_of(case)) if tagged else case


def _fewer_classes(spec: LossSpec, profile: Profile, height: int, width: int, images: int) -> LossSpec:
    """Returns the definition with its classes reduced to the profile's bound of class logits."""
    anchors = sum(-(-height // s) * -(-width // s) for s in spec.strides)
    most = max(profile.max_scores // (anchors * images), 1)
    if spec.num_classes <= most:
        return spec
    return dataclasses.replace(spec, num_classes=most, class_weights=spec.class_weights and spec.class_weights[:most])


def _draw_boxes(draw: st.DrawFn, profile: Profile, frame: Frame, images: int) -> Iterator[Box]:
    earlier: dict[int, list[Box]] = {image: [] for image in range(images)}
    for image, label, placement in draw(draw(st.sampled_from(_ROWS[profile.name]))):
        boxes = earlier[image % images]
        boxes.append(Box(image % images, label % frame.spec.num_classes, *placement.place(frame, boxes)))
    for crowd in draw(_CROWDS[profile.name]):
        earlier[crowd.image % images] += crowd.boxes(frame, crowd.image % images)
    for boxes in earlier.values():
        yield from boxes
