"""Makes a failing batch smaller: fewer images, boxes, levels, cells and classes, as long as it fails.

Hypothesis shrinks the choices that a batch was drawn from, and a crowd of boxes is one choice; this module changes the batch itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from oracle.cases.case import Box, Case
from properties.tasks import task_of

Fails = Callable[[Case], bool]


def shrunk(case: Case, fails: Fails, seconds: float) -> Case:
    """Returns the smallest failing batch found within a time.

    Args:
        case: a failing batch.
        fails: returns whether another batch fails.
        seconds: time of the search.
    """
    until = time.monotonic() + seconds
    least, found = case, True
    while found:
        found = False
        for smaller in _smaller(least):
            if time.monotonic() > until:
                return least
            if size(smaller) < size(least) and fails(smaller):
                least, found = smaller, True
                break
    return least


def size(case: Case) -> tuple[float, ...]:
    """Returns the size that is minimised, the most important number first.

    Boxes and images; levels; anchors; logits; images and labels other than the first; sizes of the task's own predictions, and numbers of
    its own ground truth; coordinates that are no whole numbers.
    """
    return (
        len(case.boxes) + case.batch_size,
        len(case.spec.strides),
        case.num_anchors,
        case.spec.num_classes + 4 * case.spec.reg_max,
        sum(box.image + box.label for box in case.boxes),
        sum(case.options.values()) + sum(map(_length, case.extras.values())),
        sum(not float(value).is_integer() for box in case.boxes for value in (box.cx, box.cy, box.w, box.h)),
    )


def _smaller(case: Case) -> Iterator[Case]:
    """Yields batches that are smaller in one respect, the smallest first; their predictions follow from the same recipe."""
    if case.prediction.inline is not None:
        return
    yield from _fewer_images(case)
    yield from _fewer_boxes(case)
    spec = case.spec
    if len(spec.strides) > 1:
        for strides in (*((stride,) for stride in spec.strides), spec.strides[:-1], spec.strides[1:]):
            yield from _possible(case, strides=strides)
    for side in (4, 2, 1):
        height, width = (max(spec.strides[0], (length // side) // spec.strides[0] * spec.strides[0]) for length in case.image_size)
        yield replace(case, image_size=(height, width))
    for classes in {1, 2, max(box.label for box in case.boxes) + 1 if case.boxes else 1}:
        if classes < spec.num_classes:
            boxes = tuple(replace(box, label=min(box.label, classes - 1)) for box in case.boxes)
            weights = None if spec.class_weights is None else spec.class_weights[:classes]
            yield replace(case, boxes=boxes, spec=replace(spec, num_classes=classes, class_weights=weights))
    for bins in (1, 4, 16):
        if bins < spec.reg_max:
            yield replace(case, spec=replace(spec, reg_max=bins))
    yield from task_of(case).smaller(case)
    yield replace(case, boxes=tuple(map(_rounded, case.boxes)))
    for at, box in enumerate(case.boxes):
        yield replace(case, boxes=(*case.boxes[:at], _rounded(box), *case.boxes[at + 1 :]))


def _possible(case: Case, strides: tuple[int, ...]) -> Iterator[Case]:
    """Yields the batch with other strides, and the image's sides rounded up to the finest stride."""
    height, width = (-(-length // strides[0]) * strides[0] for length in case.image_size)
    yield replace(case, spec=replace(case.spec, strides=strides), image_size=(height, width))


def _fewer_images(case: Case) -> Iterator[Case]:
    if case.batch_size == 1:
        return
    for image in range(case.batch_size):
        yield _kept(case, [image])
    for image in range(case.batch_size):
        yield _kept(case, [other for other in range(case.batch_size) if other != image])


def _kept(case: Case, images: list[int]) -> Case:
    number = {image: k for k, image in enumerate(images)}
    case = _chosen(case, [at for at, box in enumerate(case.boxes) if box.image in number])
    return replace(case, batch_size=len(images), boxes=tuple(replace(box, image=number[box.image]) for box in case.boxes))


def _fewer_boxes(case: Case) -> Iterator[Case]:
    """Yields the batch without all boxes, a half of them, a quarter, and so on, down to single ones."""
    part = len(case.boxes)
    while part > 0:
        for start in range(0, len(case.boxes), part):
            yield _chosen(case, [at for at in range(len(case.boxes)) if not start <= at < start + part])
        part //= 2


def _rounded(box: Box) -> Box:
    """Returns the box rounded to whole pixels; a side that would become 0 is kept."""
    cx, cy, w, h = (float(round(value)) for value in (box.cx, box.cy, box.w, box.h))
    return replace(box, cx=cx, cy=cy, w=w or box.w, h=h or box.h)


def _chosen(case: Case, boxes: list[int]) -> Case:
    """Returns the batch with the boxes at these places, and what belongs to them."""
    extras = {name: tuple(column[at] for at in boxes) for name, column in case.extras.items()}
    return replace(case, boxes=tuple(case.boxes[at] for at in boxes), extras=extras)


def _length(values: Any) -> int:
    """Returns how many numbers nested tuples hold."""
    return sum(map(_length, values)) if isinstance(values, tuple) else 1
