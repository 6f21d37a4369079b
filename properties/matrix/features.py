"""The features of the definition, each with directed batches on which a difference in that feature shows.

Boxes are large unless a feature is about small ones, and the definition is the usual one unless a feature is about its numbers, so that a
difference in one feature shows in few others. Batches are the ladder's scenes, small enough to be explained quickly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from oracle.cases.case import Box, Case, Prediction, PredictionKind
from oracle.definition.variant import Variant
from oracle.ladder.questions import scene
from twinloss import LossSpec

KINDS: tuple[PredictionKind, ...] = ("middle", "early", "late")
HALF = "half precision"
CONDUCT = "conduct"


@dataclass(frozen=True)
class Feature:
    """One row of the matrix.

    Attributes:
        name: the feature.
        sections: sections of the specification.
        cases: returns its batches, given the definition that a column is asked with, whose R is 16, or 1 where there are no bins.
    """

    name: str
    sections: str
    cases: Callable[[LossSpec], tuple[Case, ...]]


def _scenes(spec: LossSpec, seed: int, **options: Any) -> tuple[Case, ...]:
    """Returns three batches of large boxes, with predictions of three stages of a training."""
    usual: dict[str, Any] = {"sides": (36.0, 90.0), "size": (128, 128), "boxes": 3, "spec": spec}
    return tuple(scene(seed + k, kind=kind, **usual | options) for k, kind in enumerate(KINDS))


def _with(spec: LossSpec, **fields: Any) -> LossSpec:
    return dataclasses.replace(spec, **fields)


def _boxes(spec: LossSpec, size: tuple[int, int], *boxes: tuple[float, ...], kind: PredictionKind = "middle") -> Case:
    """Returns a batch of one image with boxes given by two corners in pixels."""
    found = [Box(0, n % spec.num_classes, (x + z) / 2, (y + w) / 2, z - x, w - y) for n, (x, y, z, w) in enumerate(boxes)]
    return Case(spec, size, 1, tuple(found), Prediction(kind, 31), workload="matrix")


def _anchors(spec: LossSpec) -> tuple[Case, ...]:
    layouts = (_with(spec, strides=(4, 8, 16, 32)), _with(spec, strides=(8,)), _with(spec, strides=(8, 16)))
    wide = _scenes(spec, 2, size=(64, 160), sides=(36.0, 60.0))
    odd = _scenes(spec, 5, size=(104, 136))
    return (*wide, *odd, *(scene(8, sides=(36.0, 90.0), size=(128, 128), boxes=3, spec=one) for one in layouts))


def _truth(spec: LossSpec) -> tuple[Case, ...]:
    outside = _boxes(spec, (128, 128), (-20.0, 30.0, 40.0, 90.0), (70.0, 60.0, 150.0, 140.0))
    flat = _boxes(spec, (128, 128), (10.0, 10.0, 80.0, 80.0), (40.0, 40.0, 40.0, 90.0))
    thin = _boxes(spec, (128, 128), (10.0, 20.0, 100.0, 60.3), (33.3, 33.4, 90.6, 77.7))
    return outside, flat, thin, *_scenes(_with(spec, num_classes=1), 11)


def _borders(spec: LossSpec) -> tuple[Case, ...]:
    """Sides that pass through anchors' centres, which are 4 + 8 k; shares of 128 px are exact."""
    on = _boxes(spec, (128, 128), (12.0, 12.0, 60.0, 60.0), (68.0, 20.0, 116.0, 92.0))
    one_side = _boxes(spec, (128, 128), (12.0, 15.0, 61.0, 66.0), (65.0, 20.0, 117.0, 93.0), kind="early")
    beyond = _scenes(spec, 14, size=(320, 320), sides=(180.0, 300.0), boxes=2, images=1)
    no_centre = _boxes(spec, (128, 128), (45.0, 37.0, 83.0, 43.0), (45.0, 77.0, 51.0, 115.0))
    return on, one_side, *beyond, no_centre


def _tiny(spec: LossSpec) -> tuple[Case, ...]:
    def small(strides: tuple[int, ...], *sides: float) -> Case:
        return scene(17, sides=sides, exact_sides=True, boxes=3, spec=_with(spec, strides=strides))

    usual = (8, 16, 32)
    lists = ((2.0, 5.0, 7.9), (8.0, 8.1, 12.0, 15.9), (16.0, 16.1, 24.0, 31.9), (3.0, 20.0))
    more = (small((4, 8, 16, 32), 3.0, 4.1, 7.9, 8.1), small((8,), 3.0, 7.9, 8.1, 15.9))
    return (*(small(usual, *sides) for sides in lists), *more)


def _crowds(spec: LossSpec) -> tuple[Case, ...]:
    first = _scenes(spec, 24, images=1, boxes=2)[0]
    box, other = first.boxes[0], first.boxes[1]
    copies = [dataclasses.replace(box, label=label) for label in (box.label, (box.label + 1) % spec.num_classes)]
    equal = tuple(dataclasses.replace(first, boxes=(box, copy, other)) for copy in copies)
    corner = tuple(Box(0, n % 3, 26 + 3 * (n % 4), 25 + 4 * (n // 4), 37 + n % 3, 36 + n % 5) for n in range(8))
    crowd = Case(spec, (288, 288), 1, corner, Prediction("early", 13), workload="matrix")
    many = (_scenes(spec, 20, images=1, boxes=14), _scenes(spec, 28, images=2, boxes=8, sides=(34.0, 60.0)))
    return (*many[0], *many[1][:2], *equal, crowd)


def _without_boxes(spec: LossSpec) -> tuple[Case, ...]:
    # The logits are those of early training: where all are far below 0, torch's own cross-entropy loses four digits in float32.
    three = _scenes(spec, 44, images=3)[1]
    kept = tuple(box for box in three.boxes if box.image != 1)
    first = tuple(box for box in three.boxes if box.image == 2)
    return tuple(dataclasses.replace(three, boxes=boxes) for boxes in (kept, first, ()))


def _classification(spec: LossSpec) -> tuple[Case, ...]:
    kinds: tuple[PredictionKind, ...] = ("saturated", "untrained")
    wide = scene(38, sides=(36.0, 90.0), size=(128, 128), spec=_with(spec, num_classes=80))
    return (wide, *(scene(39, kind=kind, sides=(36.0, 90.0), size=(128, 128), spec=spec) for kind in kinds))


def _normalisation(spec: LossSpec) -> tuple[Case, ...]:
    gains = _scenes(_with(spec, gains=(1.0, 2.0, 0.25)), 41)[0]
    weak = scene(42, kind="untrained", images=1, boxes=1, sides=(36.0, 60.0), spec=spec)
    return gains, weak, *_scenes(spec, 43, images=4, boxes=2)[:2]


def _distribution(spec: LossSpec) -> tuple[Case, ...]:
    if spec.reg_max == 1:
        return ()
    beyond = _scenes(spec, 33, size=(320, 320), sides=(200.0, 310.0), boxes=2, images=1)
    return (*beyond, *_scenes(_with(spec, reg_max=8), 34)[:2])


def _ciou(spec: LossSpec) -> tuple[Case, ...]:
    """Predictions from nearly right to random; of exactly right ones rounding alone would decide which anchors a box holds."""
    kinds: tuple[tuple[PredictionKind, float], ...] = (("random", 2.0), ("near", 0.2), ("near", 2.0))
    long = _boxes(spec, (128, 160), (10.0, 10.0, 150.0, 50.0), (20.0, 60.0, 58.0, 126.0))
    return (long, *(scene(36, kind=kind, spread=far, sides=(36.0, 90.0), size=(128, 128), spec=spec) for kind, far in kinds))


FEATURES = (
    Feature("anchors", "2", _anchors),
    Feature("ground truth", "1, 3", _truth),
    Feature("candidates and borders", "5.1", _borders),
    Feature("tiny boxes", "5.1", _tiny),
    Feature("overlap", "5.2", lambda spec: _scenes(spec, 50, sides=(40.0, 110.0))),
    Feature("metric", "5.3", lambda spec: (*_scenes(_with(spec, alpha=1.0, beta=3.0), 52)[:2], *_scenes(_with(spec, beta=4.0), 53)[:1])),
    Feature("top-k", "5.4", lambda spec: tuple(_scenes(_with(spec, topk=k), 54 + k)[0] for k in (1, 4, 7, 13))),
    Feature("fewer anchors than K", "10", lambda spec: _scenes(_with(spec, strides=(32,)), 58, size=(64, 64), sides=(40.0, 60.0))[:2]),
    Feature("second cut", "5.6", lambda spec: _scenes(_with(spec, topk=7, topk2=1), 59)),
    Feature("conflicts", "5.5", _crowds),
    Feature("soft targets", "5.7", lambda spec: _scenes(spec, 60, boxes=4)),
    Feature("CIoU", "6", _ciou),
    Feature("distribution", "7", _distribution),
    Feature("distances (R = 1)", "7", lambda spec: _scenes(_with(spec, reg_max=1), 64)),
    Feature("classification", "7", _classification),
    Feature("class weights", "13", lambda spec: _scenes(_with(spec, class_weights=(0.5, 1.0, 3.0)), 66)),
    Feature("normalisation", "7", _normalisation),
    Feature("empty images", "10", _without_boxes),
)
"""Rows whose batches are compared in float64 or float32; two more are :data:`HALF` and :data:`CONDUCT`."""

SECTIONS: Mapping[str, str] = {
    "1": "ground truth",
    "2": "anchors",
    "3": "ground truth",
    "4": "distribution",
    "5": "metric",
    "5.1": "candidates and borders",
    "5.2": "overlap",
    "5.3": "metric",
    "5.4": "top-k",
    "5.5": "conflicts",
    "5.6": "second cut",
    "5.7": "soft targets",
    "6": "CIoU",
    "13": "class weights",
}
WORDS = (
    ("distance term", "distances (R = 1)"),
    ("distribution", "distribution"),
    ("classification", "classification"),
    ("box term", "CIoU"),
)
SWITCHES: Mapping[str, str] = {
    "lengthen": "tiny boxes",
    "distance_term": "distances (R = 1)",
    "anchor_weights": "normalisation",
    "clamp_margin": "distribution",
}


def features_of(variant: Variant) -> set[str]:
    """Returns the features that a wrong definition belongs to: by the fields it changes, by its section, or by its name."""
    spec = LossSpec(num_classes=3)
    if variant.numbers is not None:
        switched = {SWITCHES[name] for name in variant.numbers(spec) if name in SWITCHES and _differs(variant, spec, name)}
        if switched or variant.release:
            return switched
    if variant.section == "5.1" and ("lengthened" in variant.name or "side" in variant.name):
        return {"tiny boxes"}
    if "without boxes" in variant.name or "images with boxes" in variant.name:
        return {"empty images"}
    if variant.section in SECTIONS:
        return {SECTIONS[variant.section]}
    return {next((feature for word, feature in WORDS if word in variant.name), "normalisation")}


def _differs(variant: Variant, spec: LossSpec, name: str) -> bool:
    assert variant.numbers is not None
    return bool(variant.numbers(spec)[name] != getattr(spec, name))
