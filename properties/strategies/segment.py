"""Batches of instance segmentation: those of detection, with polygons, an encoding of masks, an assigner and the sizes of the grids."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from oracle.cases.case import Box, Case
from oracle.cases.polygons import Ring, octagon
from oracle.cases.tasks.segment import grid
from oracle.cases.workloads.labelled_images import LabelledImages
from oracle.cases.workloads.task_batches import task_batches
from properties.strategies import cases, definitions
from properties.strategies.crowds import PATTERNS, Crowd
from properties.strategies.profiles import Frame, Profile
from properties.strategies.tags import tags_of
from twinloss import LossSpec, SegmentationSpec

Rings = tuple[Ring, ...]

# Instances of an additional crowd: older releases crop fewer than 50 masks by another rule; an index map of more than 255 is int32.
CROWDS = (0,) * 33 + (49, 50, 51) * 2 + (500,)
PROTOTYPES = (4, 1, 32, 2)
# Rows and columns of the masks' grid by those of the prototypes': a factor, and pixels beyond it.
MASK_GRIDS = ((1.0, 0), (1.0, 0), (2.0, 0), (4.0, 0), (0.5, 0), (0.25, 0), (1.0, -3), (0.7, 1), (1.6, 2))
# The prototypes' grid: the image's stride, and columns beyond it, so that the scales of rows and columns differ.
PROTO_GRIDS = ((4, 0), (4, 0), (4, 0), (8, 0), (2, 0), (4, 3), (4, -2))
SEMANTIC_GRIDS = (None, 8, 4, 16, 5)


def _rectangle(cx: float, cy: float, w: float, h: float) -> Ring:
    x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    return x1, y1, x2, y1, x2, y2, x1, y2


def _box(box: Box, *, right: float = 0.0, down: float = 0.0, scale: float = 1.0) -> Ring:
    """Returns the box, moved by shares of its sides and scaled about its centre."""
    return _rectangle(box.cx + right * box.w, box.cy + down * box.h, box.w * scale, box.h * scale)


SHAPES: dict[str, Callable[[Box], Rings]] = {
    "octagon": lambda box: (octagon(box.cx, box.cy, box.w, box.h),),
    "rectangle": lambda box: (_box(box),),
    "triangle": lambda box: ((*_box(box)[:4], box.cx, box.cy + box.h / 2),),
    "hole": lambda box: (_box(box), _box(box, scale=0.5)),
    "parts": lambda box: tuple(_box(box, right=side, scale=0.3) for side in (-0.35, 0.35)),
    "pixel": lambda box: (_rectangle(box.cx, box.cy, 1.0, 1.0),),
    "empty": lambda _: (),
    "beside": lambda box: (_box(box, right=0.4, down=0.4),),
    "around": lambda box: (_box(box, scale=8),),
}
"""Polygons of a box, by name; ``beside`` and ``around`` reach beyond it."""

TAGS = {
    "mask-aware": "the assignment reads the masks",
    "instance-masks": "masks come one per box",
    "semantic": "there is a semantic term",
    "resized-prototypes": "masks and prototypes have different grids",
    "fewer-boxes-than-images": "there are fewer boxes than images",
    "many-instances": "the batch has 50 boxes or more",
}

_BASE = definitions(classes=(1, 3, 2, 20, 80))


@st.composite
def segmentation_definitions(draw: st.DrawFn) -> SegmentationSpec:
    """Definitions that the reference supports; they shrink to index maps and the plain assigner."""
    spec: LossSpec = draw(_BASE)
    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    return SegmentationSpec(**fields, mask_aware=draw(st.booleans()), overlap_mask=draw(st.sampled_from((True, False))))


_DEFINITIONS = segmentation_definitions()
_SHAPES = st.lists(st.sampled_from(tuple(SHAPES)), min_size=1, max_size=4)
_IMAGE, _SEED = st.integers(0, 59), st.integers(0, 2**16)


@st.composite
def segment_cases(draw: st.DrawFn, profile: Profile) -> Case:
    """Whole batches of instance segmentation, with their tags."""
    case: Case = draw(cases(profile, definition=_DEFINITIONS, tagged=False))
    case = _crowded(draw, case)
    shapes = draw(_SHAPES)
    polygons = tuple(SHAPES[shapes[index % len(shapes)]](box) for index, box in enumerate(case.boxes))
    case = dataclasses.replace(case, extras={"polygons": polygons} if polygons else {}, options=_grids(draw, case))
    return dataclasses.replace(case, tags=(*tags_of(case), *_tags(case)))


def _crowded(draw: st.DrawFn, case: Case) -> Case:
    """Returns the case, or seldom the case with many more boxes in one image."""
    if not (count := draw(st.sampled_from(CROWDS))):
        return case
    crowd = Crowd(draw(_IMAGE) % case.batch_size, count, draw(st.sampled_from(PATTERNS)), draw(_SEED))
    boxes = (*case.boxes, *crowd.boxes(Frame(case.spec, *case.image_size), crowd.image))
    return dataclasses.replace(case, boxes=tuple(sorted(boxes, key=lambda box: box.image)))


def _grids(draw: st.DrawFn, case: Case) -> dict[str, float]:
    """Returns the options of a case."""
    (stride, beyond), (factor, off) = draw(st.sampled_from(PROTO_GRIDS)), draw(st.sampled_from(MASK_GRIDS))
    rows, columns = (max(side // stride, 1) for side in case.image_size)
    columns = max(columns + beyond, 1)
    options = {"prototypes": draw(st.sampled_from(PROTOTYPES)), "proto_height": rows, "proto_width": columns}
    options |= {name: max(int(side * factor) + off, 1) for name, side in (("mask_height", rows), ("mask_width", columns))}
    if (semantic := draw(st.sampled_from(SEMANTIC_GRIDS))) is not None:
        sides = (max(side // semantic, 1) for side in case.image_size)
        options |= {"semantic": 1} | dict(zip(("semantic_height", "semantic_width"), sides, strict=True))
    return {name: float(value) for name, value in options.items()}


def _tags(case: Case) -> Iterator[str]:
    """Yields the tags of :data:`TAGS` that a case has."""
    spec = case.spec
    assert isinstance(spec, SegmentationSpec)
    holds = {
        "mask-aware": spec.mask_aware,
        "instance-masks": not spec.overlap_mask,
        "semantic": bool(case.options["semantic"]) if "semantic" in case.options else False,
        "resized-prototypes": grid(case, "proto") != grid(case, "mask"),
        "fewer-boxes-than-images": len(case.boxes) < case.batch_size,
        "many-instances": len(case.boxes) >= 50,
    }
    yield from (tag for tag, has in holds.items() if has)


# Definitions and options of the heads that real batches take in turn: YOLOv8's, YOLO26's, and an open-vocabulary one's.
HEADS: tuple[tuple[dict[str, Any], dict[str, float]], ...] = (
    ({}, {}),
    ({"reg_max": 1, "mask_aware": True}, {"semantic": 1.0}),
    ({"overlap_mask": False}, {}),
)


def segment_batches(source: LabelledImages, **arguments: Any) -> Iterator[Case]:
    """Yields batches of a pack of masks, for each of :data:`HEADS` in turn.

    Args:
        source: the pack.
        arguments: of :func:`~oracle.cases.workloads.batches.real_batches`.
    """
    for index, case in enumerate(task_batches("segment", source, **arguments)):
        # Predictions of a stage of training come every third time; this order gives each head each stage.
        numbers, options = HEADS[(index + index // len(HEADS)) % len(HEADS)]
        yield dataclasses.replace(case, spec=dataclasses.replace(case.spec, **numbers), options=options)


def smaller(case: Case) -> Iterator[Case]:
    """Yields batches with fewer prototypes, without semantic logits, with the shipped grids, or with octagons for polygons."""
    options = dict(case.options)
    for name, value in (("prototypes", 1.0), ("semantic", 0.0)):
        if options.get(name, value) != value:
            yield dataclasses.replace(case, options=options | {name: value})
    for names in (("mask_height", "mask_width"), ("proto_height", "proto_width"), ("semantic_height", "semantic_width")):
        if names[0] in options:
            yield dataclasses.replace(case, options={name: value for name, value in options.items() if name not in names})
    if case.extras:
        yield dataclasses.replace(case, extras={})
