"""The kinds of case of segmentation, oriented boxes and pose: one or more for each change that the tasks' specifications list."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from random import Random
from typing import Any

from oracle.cases.case import Box, Case, Prediction
from oracle.ladder.questions import CaseKind, Question, interface_question, questions, scene
from oracle.ladder.tasks import PROTOTYPES
from twinloss import LossSpec, OrientedSpec, PoseSpec, SegmentationSpec

ORIENTED = OrientedSpec(num_classes=3)
MAPS = SegmentationSpec(num_classes=3)
INSTANCES = SegmentationSpec(num_classes=3, overlap_mask=False)
AWARE = SegmentationSpec(num_classes=3, mask_aware=True)
FIRST = PoseSpec(num_classes=2, keypoint_shape=(5, 3))
COCO = PoseSpec(num_classes=1)
SECOND = PoseSpec(num_classes=2, keypoint_shape=(5, 3), generation=2, reg_max=1)
FLOWING = dataclasses.replace(SECOND, flow=True)
BARE = {"prototypes": float(PROTOTYPES)}
SEMANTIC = BARE | {"semantic": 1.0}


def turned(case: Case) -> Case:
    """Returns the case with an angle for each box, from -45 to 135 degrees."""
    draw = Random(len(case.boxes))
    return dataclasses.replace(case, extras={"angle": tuple(draw.uniform(-math.pi / 4, 3 * math.pi / 4) for _ in case.boxes)})


def with_options(options: dict[str, float], *cases: Case) -> tuple[Case, ...]:
    """Returns the cases with numbers of their predictions and masks."""
    return tuple(dataclasses.replace(case, options=options) for case in cases)


def without(case: Case, image: int) -> Case:
    """Returns the case without the boxes of an image."""
    return dataclasses.replace(case, boxes=tuple(box for box in case.boxes if box.image != image))


def ordinary(spec: LossSpec, seed: int, **options: Any) -> tuple[Case, Case, Case]:
    """Returns a case of one box, and batches with predictions of an early and of a later stage of training."""
    early = scene(seed, spec=spec, **options)
    return scene(seed, spec=spec, **options | {"images": 1, "boxes": 1}), early, dataclasses.replace(early, prediction=_late(seed))


def _late(seed: int) -> Prediction:
    return Prediction("middle", seed)


def two_heads(cases: tuple[Case, ...], name: str = "") -> Iterator[CaseKind]:
    """Yields the kind of end-to-end heads."""
    fields = {"criterion": "E2ELoss", "updates": 3, "epochs": 10}
    yield CaseKind(f"two heads{name}", cases, dtypes=("float32",), fields=fields, entry_point="two heads")


def oriented() -> Iterator[CaseKind]:
    """Yields the kinds of oriented boxes (oriented spec section 14)."""
    distances = dataclasses.replace(ORIENTED, reg_max=1)
    weighted = dataclasses.replace(ORIENTED, class_weights=(0.5, 1.0, 3.0))
    yield CaseKind("typical", tuple(map(turned, ordinary(ORIENTED, 31))))
    yield CaseKind("reg_max 1", tuple(map(turned, ordinary(distances, 32))))
    for name, sides in (("sides below 8 px", (3.0, 5.0, 7.9)), ("sides 8 to 16 px", (8.1, 12.0, 15.9)), ("thin sides", (2.1, 2.5, 60.0))):
        yield CaseKind(name, tuple(map(turned, ordinary(ORIENTED, 33, sides=sides, exact_sides=True))))
    oblong = Case(ORIENTED, (64, 128), 1, (Box(0, 1, 60, 30, 3, 24), Box(0, 0, 30, 30, 24, 1.5)), Prediction("early", 34))
    yield CaseKind("short sides in an oblong image", (oblong,))
    yield CaseKind("no boxes", (dataclasses.replace(scene(35, spec=ORIENTED), boxes=()),))
    yield CaseKind("an image without boxes", (turned(without(scene(35, spec=ORIENTED), 1)),))
    yield CaseKind("class weights", (turned(scene(36, spec=weighted)),))
    yield CaseKind("second cut", (turned(scene(37, spec=dataclasses.replace(ORIENTED, topk=7, topk2=1))),))
    yield CaseKind("gains", (turned(scene(38, spec=dataclasses.replace(ORIENTED, gains=(1.0, 2.0, 0.25, 3.0)))),))
    yield from two_heads((turned(scene(39, spec=distances)),))
    other = {"image_size": (192, 192)}
    yield CaseKind("input: another resized_shape", (turned(scene(31, spec=ORIENTED)),), dtypes=("float32",), fields=other)


def segment() -> Iterator[CaseKind]:
    """Yields the kinds of instance segmentation (segmentation spec section 13).

    Most have three images: of two, some releases mistake bare prototypes for a pair with semantic logits.
    """
    yield CaseKind("two images", with_options(BARE, scene(40, spec=MAPS)))
    for name, spec in (("index maps", MAPS), ("instance masks", INSTANCES)):
        yield CaseKind(name, with_options(BARE, *ordinary(spec, 41, images=3)))
        yield CaseKind(f"{name}, semantic", with_options(SEMANTIC, *ordinary(spec, 42, images=3)))
        yield CaseKind(
            f"{name}, an image without boxes",
            with_options(BARE, without(scene(43, spec=spec, images=3), 1), without(scene(43, spec=spec, images=3), 0)),
        )
        yield CaseKind(f"{name}, semantic, an image without boxes", with_options(SEMANTIC, without(scene(43, spec=spec, images=3), 0)))
    finer = BARE | {"mask_height": 48.0, "mask_width": 48.0}
    yield CaseKind("masks finer than the prototypes", with_options(finer, *ordinary(MAPS, 44, images=3)))
    yield CaseKind(
        "masks coarser than the prototypes", with_options(BARE | {"mask_height": 12.0, "mask_width": 12.0}, *ordinary(MAPS, 44, images=3))
    )
    aligned = scene(45, spec=MAPS, images=3, sides=(16.0, 32.0, 48.0), exact_sides=True)
    whole = tuple(dataclasses.replace(box, cx=8.0 * round(box.cx / 8), cy=8.0 * round(box.cy / 8)) for box in aligned.boxes)
    yield CaseKind("borders on whole pixels", with_options(BARE, dataclasses.replace(aligned, boxes=whole)))
    yield CaseKind("50 anchors and more", with_options(BARE, scene(46, spec=MAPS, images=1, boxes=9, sides=(30, 70))))
    outside = Case(MAPS, (96, 96), 1, (Box(0, 1, 10, 40, 45, 40), Box(0, 0, 80, 12, 20, 50)), Prediction("early", 47))
    yield CaseKind("boxes beyond the image's left and top", with_options(BARE, outside))
    few = Case(INSTANCES, (64, 64), 3, (Box(1, 1, 30, 30, 40, 30),), Prediction("early", 48))
    yield CaseKind("fewer instance masks than images", with_options(BARE, few))
    yield CaseKind("no boxes", with_options(SEMANTIC, dataclasses.replace(scene(49, spec=MAPS, images=3), boxes=())))
    yield CaseKind("no boxes, no semantic logits", with_options(BARE, dataclasses.replace(scene(49, spec=MAPS, images=3), boxes=())))
    yield CaseKind("reg_max 1", with_options(BARE, *ordinary(dataclasses.replace(MAPS, reg_max=1), 50, images=3)))
    yield CaseKind("mask-aware", with_options(SEMANTIC, *ordinary(AWARE, 51, images=3)))
    yield CaseKind("sides 8 to 16 px", with_options(BARE, *ordinary(MAPS, 52, images=3, sides=(8.1, 12.0, 15.9), exact_sides=True)))
    weighted = dataclasses.replace(MAPS, class_weights=(0.5, 1.0, 3.0))
    yield CaseKind("class weights", with_options(BARE, scene(53, spec=weighted, images=3)))
    yield from two_heads(with_options(SEMANTIC, scene(54, spec=dataclasses.replace(MAPS, reg_max=1))))
    yield from two_heads(with_options(SEMANTIC, scene(54, spec=dataclasses.replace(AWARE, reg_max=1))), ", mask-aware")


def invisible(case: Case, *, all_of_them: bool) -> Case:
    """Returns the case with every keypoint of its boxes invisible, or every second one."""
    points = case.spec.keypoint_shape[0] if isinstance(case.spec, PoseSpec) else 0
    rows = []
    for box in case.boxes:
        places = [(box.cx + box.w * (k / points - 0.5), box.cy + box.h / 4 * (-1) ** k) for k in range(points)]
        rows.append(tuple(value for k, (x, y) in enumerate(places) for value in (x, y, 0.0 if all_of_them or k % 2 else 1.0)))
    return dataclasses.replace(case, extras={"keypoints": tuple(rows)})


def with_prediction(case: Case, kind: Any, spread: float = 1.0) -> Case:
    """Returns the case with another recipe of predictions."""
    return dataclasses.replace(case, prediction=Prediction(kind, case.prediction.seed, spread))


def pose() -> Iterator[CaseKind]:
    """Yields the kinds of pose (pose spec section 12)."""
    for name, spec in (("first generation", FIRST), ("second generation", SECOND), ("likelihood", FLOWING)):
        yield CaseKind(name, ordinary(spec, 61))
        yield CaseKind(f"{name}, keypoints invisible", tuple(invisible(scene(62, spec=spec), all_of_them=every) for every in (False, True)))
        yield CaseKind(f"{name}, no boxes", (dataclasses.replace(scene(63, spec=spec), boxes=()),))
        yield CaseKind(f"{name}, an image without boxes", (without(scene(63, spec=spec), 1),))
    yield CaseKind("17 keypoints", ordinary(COCO, 64))
    yield CaseKind("17 keypoints, likelihood", ordinary(dataclasses.replace(COCO, generation=2, flow=True), 64))
    yield CaseKind("reg_max 1", ordinary(dataclasses.replace(FIRST, reg_max=1), 65))
    yield CaseKind("sides 8 to 16 px", ordinary(FIRST, 66, sides=(8.1, 12.0, 15.9), exact_sides=True))
    yield CaseKind("two numbers a keypoint", ordinary(dataclasses.replace(FIRST, keypoint_shape=(5, 2)), 67))
    exact = tuple(with_prediction(scene(seed, spec=FLOWING), "exact") for seed in (68, 69))
    yield CaseKind("predictions exact", exact, dtypes=("float64",))  # in float32 the sign of an error is rounding
    yield CaseKind("predictions saturated", (with_prediction(scene(68, spec=FLOWING), "saturated"),))
    yield CaseKind("deviations below float32", (with_prediction(scene(70, spec=FLOWING), "random", 40.0),))
    sigmas = (0.05, 0.1, 0.2, 0.1, 0.3)
    yield CaseKind("sigmas", ordinary(dataclasses.replace(FIRST, sigmas=sigmas), 71))
    yield CaseKind("sigmas, second generation", ordinary(dataclasses.replace(SECOND, sigmas=sigmas), 71))
    yield CaseKind("20 picks", (scene(72, spec=dataclasses.replace(FIRST, topk=20), boxes=2, sides=(40, 80)),))
    yield CaseKind("class weights", (scene(73, spec=dataclasses.replace(FIRST, class_weights=(0.5, 3.0))),))
    yield from two_heads((scene(74, spec=FLOWING),))
    other = {"image_size": (192, 192)}
    yield CaseKind("input: another resized_shape", (scene(61, spec=SECOND),), dtypes=("float32",), fields=other)


def task_questions() -> tuple[Question, ...]:
    """Returns the questions of all three tasks, and how each of their criteria is called."""
    called = []
    for spec in (ORIENTED, MAPS, AWARE, FIRST, FLOWING):
        (case,) = with_options(BARE if isinstance(spec, SegmentationSpec) else {}, Case(spec, (32, 32), 1, (Box(0, 0, 16, 16, 16, 16),)))
        called.append(interface_question(case))
    return (*questions((*oriented(),)), *questions((*segment(),)), *questions((*pose(),)), *called)
