"""The kinds of case that releases are asked about: those in which releases have differed, and further ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from oracle.cases.case import Box, Case, Prediction, PredictionKind
from oracle.cases.noise import Noise
from oracle.ladder.inside.messages import Message
from oracle.ladder.questions import SMALL, STAGES, CaseKind, Question, interface_question, questions, scene
from oracle.ladder.task_catalogue import task_questions
from oracle.ladder.tasks import spec_fields
from twinloss import LossSpec

LEVEL = LossSpec(num_classes=3, strides=(8,))
FOUR_LEVELS = LossSpec(num_classes=3, strides=(4, 8, 16, 32))
DISTANCES = LossSpec(num_classes=3, reg_max=1)
WEIGHTED = LossSpec(num_classes=3, class_weights=(0.5, 1.0, 3.0))
ONE_BOX = (Box(0, 1, 40.0, 44.0, 33.0, 27.0),)


def with_heads(seed: int, **options: Any) -> tuple[Case, ...]:
    """Returns a case of one box, and one batch of boxes with predictions of a trained head, an early one, noise, and an untrained one."""
    kinds: tuple[tuple[PredictionKind, float], ...] = (("middle", 1.0), ("early", 1.0), ("random", 2.0), ("untrained", 1.0))
    single = scene(seed, **options | {"images": 1, "boxes": 1})
    return (single, *(scene(seed, kind=kind, spread=spread, **options) for kind, spread in kinds))


def small_boxes(name: str, *sides: float, spec: LossSpec = SMALL) -> CaseKind:
    """Returns batches of boxes with the given sides in pixels."""
    return CaseKind(name, with_heads(7, sides=sides, exact_sides=True, spec=spec, boxes=3), stages=("assignment",))


def replaced(case: Case, *boxes: Box) -> Case:
    """Returns the case with other boxes."""
    return dataclasses.replace(case, boxes=boxes)


def two_equal_boxes(same_class: bool) -> Case:
    """Returns a case of two equal boxes and a third, different one."""
    case = scene(11, images=1, boxes=2)
    first, other = case.boxes
    return replaced(case, first, dataclasses.replace(first, label=first.label if same_class else (first.label + 1) % 3), other)


def invalid_rows(name: str, *boxes: Box, **fields: Any) -> CaseKind:
    """Returns a batch of two images with rows that a release may refuse, in float32 only."""
    good = (Box(0, 0, 30.0, 30.0, 24.0, 24.0), Box(1, 1, 60.0, 50.0, 40.0, 30.0))
    case = dataclasses.replace(scene(3), boxes=(*good, *boxes))
    return CaseKind(f"input: {name}", (case,), dtypes=("float32",), fields=fields)


def invalid_logit(name: str, value: float) -> CaseKind:
    """Returns a batch in which one logit of a candidate anchor is ``value``."""
    from oracle.cases.logits import inline_text, logits

    case = Case(SMALL, (64, 64), 1, (Box(0, 1, 30.0, 30.0, 24.0, 24.0),), Prediction("early", 5))
    boxes, scores = logits(case)
    target = boxes if "box" in name else scores
    target[0, 1, 27] = value
    spoiled = dataclasses.replace(case, prediction=Prediction("inline", inline=inline_text(boxes, scores)))
    return CaseKind(f"input: {name}", (spoiled,), dtypes=("float32",))


def ordinary() -> Iterator[CaseKind]:
    """Yields kinds of batches that occur in training."""
    wide = LossSpec(num_classes=80)
    yield CaseKind("typical", with_heads(1, boxes=5), stages=(*STAGES, "anchors"))
    yield CaseKind("rectangular", with_heads(2, size=(64, 128))[:3], stages=STAGES)
    yield small_boxes("sides below 8 px", 2.0, 5.0, 7.9)
    yield small_boxes("sides 8 to 16 px", 8.0, 8.1, 12.0, 15.9)
    yield small_boxes("sides 16 to 32 px", 16.0, 16.1, 24.0, 31.9)
    yield small_boxes("sides from 32 px", 32.0, 32.1, 45.0)
    yield small_boxes("small sides, four levels", 3.0, 4.1, 7.9, 8.1, 15.9, spec=FOUR_LEVELS)
    yield small_boxes("small sides, single level", 3.0, 7.9, 8.1, 15.9, 16.1, spec=LEVEL)
    yield CaseKind("crowded", (scene(4, images=1, boxes=24), scene(4, images=2, boxes=40, sides=(10, 40))), stages=("assignment",))
    yield CaseKind("identical boxes", (two_equal_boxes(same_class=True), two_equal_boxes(same_class=False)), stages=("assignment",))
    empty = scene(5, images=3)
    yield CaseKind("an image without boxes", (replaced(empty, *(b for b in empty.boxes if b.image != 1)),), stages=STAGES)
    yield CaseKind("no boxes", (replaced(scene(5)),), stages=STAGES)
    yield CaseKind("boxes beyond the bins", with_heads(8, sides=(120, 250), size=(256, 256), boxes=2)[:3])
    yield CaseKind("corner crowd", (scene(9, size=(288, 288), images=1, boxes=14, sides=(4, 14)), corner_crowd()), stages=("assignment",))
    yield CaseKind("predictions exact", (scene(10, kind="exact", images=1, boxes=1), scene(10, kind="exact")), stages=("assignment",))
    yield CaseKind("predictions saturated", (scene(10, kind="saturated"),))
    yield CaseKind("80 classes", (scene(12, spec=wide),))


def corner_crowd() -> Case:
    """Returns boxes crowded into the top-left corner of an image with A >= 64 K, where picks of metric 0 collide (spec section 9)."""
    boxes = tuple(Box(0, n % 3, 6 + 3 * (n % 4), 5 + 4 * (n // 4), 9 + n % 3, 8 + n % 5) for n in range(12))
    return Case(SMALL, (288, 288), 1, boxes, Prediction("early", 13))


def variants() -> Iterator[CaseKind]:
    """Yields kinds with other definitions: heads, weights, numbers of picks."""
    for name, spec in (("reg_max 1", DISTANCES), ("reg_max 8", LossSpec(num_classes=3, reg_max=8)), ("single level", LEVEL)):
        yield CaseKind(name, with_heads(14, spec=spec), stages=("assignment",))
    yield CaseKind("four levels", with_heads(15, spec=FOUR_LEVELS))
    yield CaseKind("class weights", with_heads(16, spec=WEIGHTED)[:3])
    yield CaseKind("gains", (scene(17, spec=LossSpec(num_classes=3, gains=(1.0, 2.0, 0.25))),))
    yield CaseKind("7 picks", (scene(18, spec=LossSpec(num_classes=3, topk=7)),), stages=("assignment",))
    yield CaseKind("second cut", (scene(18, spec=LossSpec(num_classes=3, topk=7, topk2=1)),), stages=("assignment",))
    yield CaseKind("fewer anchors than picks", (Case(LossSpec(num_classes=3, strides=(32,)), (64, 64), 1, ONE_BOX, Prediction("early")),))
    two = (scene(19, images=1, boxes=1), scene(19))
    yield CaseKind(
        "two heads, first generation", two, fields={"criterion": "E2EDetectLoss", "updates": 0, "epochs": 10}, entry_point="two heads"
    )
    cases = (scene(19, images=1, boxes=1, spec=DISTANCES), scene(19, spec=DISTANCES))
    for updates in (0, 3):
        fields = {"criterion": "E2ELoss", "updates": updates, "epochs": 10}
        yield CaseKind(f"two heads, second generation, {updates} updates", cases, fields=fields, entry_point="two heads")


def precisions() -> Iterator[CaseKind]:
    """Yields kinds in half precision and under autocast."""
    cases = with_heads(1, boxes=5)[:4]
    for dtype in ("float16", "bfloat16"):
        yield CaseKind(dtype, cases, dtypes=(dtype,))
        yield CaseKind(f"autocast to {dtype}", cases, dtypes=("float32", dtype), fields={"autocast": dtype})


def inputs() -> Iterator[CaseKind]:
    """Yields kinds of unusual and invalid input (spec section 10)."""
    usual = scene(20)
    mixed = replaced(usual, *usual.boxes[::2], *usual.boxes[1::2])
    yield CaseKind("input: unsorted image indices", (replaced(usual, *usual.boxes[::-1]), mixed))
    yield CaseKind("input: flat classes", (usual,), dtypes=("float32",), fields={"flat_classes": True})
    for dtype in ("float64", "float16", "bfloat16"):
        yield invalid_rows(f"{dtype} targets", target_dtypes=dict.fromkeys(("batch_idx", "cls", "bboxes"), dtype))
    yield invalid_rows("integer indices and classes", target_dtypes={"batch_idx": "int64", "cls": "int64"})
    yield invalid_rows("image index too large", Box(2, 0, 30, 30, 20, 20))
    yield invalid_rows("image index negative", Box(-1, 0, 30, 30, 20, 20))
    yield invalid_rows("class too large", Box(1, 3, 30, 30, 20, 20))
    yield invalid_rows("class negative", Box(1, -1, 30, 30, 20, 20))
    yield invalid_rows("coordinate not a number", Box(1, 0, float("nan"), 30, 20, 20))
    yield invalid_rows("coordinate infinite", Box(1, 0, 30, 30, float("inf"), 20))
    yield invalid_rows("size negative", Box(1, 0, 30, 30, -20, 20))
    yield invalid_rows("size zero", Box(1, 0, 30, 30, 0, 0))
    yield invalid_rows("box outside, right", Box(1, 0, 200, 30, 20, 20))
    yield invalid_rows("box outside, left", Box(1, 0, -40, 30, 30, 20))
    for name, value in (("box logit not a number", np.nan), ("score not a number", np.nan), ("score minus infinity", -np.inf)):
        yield invalid_logit(name, value)


def stage_questions() -> Iterator[Question]:
    """Yields questions to stages that take arrays of their own (overlap, distances, distribution term), and to the interface."""
    noise = Noise(21).uniform(6, 64, 4).astype(np.float64)
    centre, half = noise[0, :, :2] * 10, noise[1, :, :2] * 4
    moved, resized = centre + (noise[2, :, :2] - 0.5) * 2, half * (0.5 + noise[3, :, :2])
    first, second = np.concatenate([centre - half, centre + half], 1), np.concatenate([moved - resized, moved + resized], 1)
    first[:4], second[:3] = second[:4], second[1:4]  # identical pairs, and repeated ones
    second[8:10, 2:] = second[8:10, :2]  # boxes of area 0
    arrays = {"first": first, "second": second, "points": centre, "bins": noise[4].repeat(4, 1)[:, :16].repeat(4, 0) * 6 - 3}
    arrays["target"] = noise[5] * 14.9
    for entry_point in ("overlap", "distances", "distribution"):
        for dtype in ("float32", "float64", "float16", "bfloat16"):
            fields = {"entry_point": entry_point, "dtype": dtype, "spec": spec_fields(SMALL)}
            yield Question(f"stages/0/{entry_point}/{dtype}", f"stage: {entry_point}", entry_point, dtype, None, Message(fields, arrays))
    yield interface_question(Case(SMALL, (32, 32), 1, (Box(0, 0, 16.0, 16.0, 16.0, 16.0),), Prediction("zeros")))


def all_case_kinds() -> tuple[CaseKind, ...]:
    """Returns every kind of case."""
    return (*ordinary(), *variants(), *precisions(), *inputs())


def all_questions() -> tuple[Question, ...]:
    """Returns every question."""
    return (*questions(all_case_kinds()), *stage_questions(), *task_questions())
