"""Wrong contenders and small hand-made cases for the tests of the judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oracle.cases.case import Box, Case, Prediction, PredictionKind, Setting
from oracle.cases.logits import inline_text
from oracle.comparison.compare import Comparison, compare
from oracle.comparison.registry import shipped
from oracle.comparison.trial import Trial
from oracle.contract.contender import Contender
from oracle.contract.verdict import Judgement, Verdict
from oracle.judge.truth import DefinitionAnswers
from twinloss import Assignment, DetectionLoss, LossSpec

FLOAT32, FLOAT64 = Setting("float32"), Setting("float64")
SHIPPED = shipped()
REFERENCE, TWIN, TIED_TWIN = SHIPPED["reference"], SHIPPED["twin"], SHIPPED["twin-reference-ties"]


class Edited(DetectionLoss):
    """The twin with an edited assignment, the same in every answer."""

    edit: Callable[[Assignment], Assignment]

    def assign(self, preds: Any, batch: Any) -> Assignment:
        """The edited assignment."""
        return type(self).edit(super().assign(preds, batch))

    def __call__(self, preds: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on it."""
        return self.loss_given(preds, batch, self.assign(preds, batch))


class Silent:
    """A criterion without stages."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, preds: Any, batch: Any) -> Any:
        """The other's loss."""
        return self.inner(preds, batch)


def edited(edit: Callable[[Assignment], Assignment]) -> Contender:
    """Returns the twin with an edited assignment."""
    kind = type("EditedTwin", (Edited,), {"edit": staticmethod(edit)})
    return Contender("edited", "", kind, arithmetic="float32")


def changed(**numbers: Any) -> Contender:
    """Returns the twin with another definition's numbers."""
    return Contender("changed", "", lambda spec: DetectionLoss(dataclasses.replace(spec, **numbers)), arithmetic="float32")


def silent(contender: Contender) -> Contender:
    """Returns a contender without its stages."""
    return dataclasses.replace(contender, factory=lambda spec: Silent(contender.factory(spec)))


def judged(case: Case, contender: Contender, setting: Setting = FLOAT32) -> Comparison:
    """Compares one contender on a case, with the reference."""
    return compare(case, setting, [contender], REFERENCE)


def judgement_of(comparison: Comparison, stage: str, quantity: str) -> Judgement:
    """Returns one judgement on the first contender."""
    (found,) = [j for j in comparison.results[0].judgements if (j.stage, j.quantity) == (stage, quantity)]
    return found


def verdict_of(comparison: Comparison, stage: str, quantity: str) -> Verdict:
    """Returns one verdict on the first contender."""
    return judgement_of(comparison, stage, quantity).verdict


def ordinary(seed: int = 0, kind: PredictionKind = "middle", **numbers: Any) -> Case:
    """Returns two images with overlapping boxes of ordinary size, none of whose decisions is close."""
    rng = np.random.default_rng(seed)
    spec = LossSpec(num_classes=4, **numbers)
    boxes = [
        Box(image, int(rng.integers(4)), *map(float, rng.uniform(20, 76, 2)), *map(float, rng.uniform(24, 60, 2)))
        for image in (0, 1)
        for _ in range(4)
    ]
    return Case(spec, (96, 96), 2, tuple(boxes), Prediction(kind, seed))


def drawn(boxes: list[Box], sides: Mapping[int, tuple[float, ...]], scores: Mapping[tuple[int, int], float], spec: LossSpec) -> Case:
    """Returns one image of 64 px and R = 1, with distances and class logits as given by anchor; 1 and -4 elsewhere."""
    anchors = sum((64 // s) ** 2 for s in spec.strides)
    distances = np.ones((1, 4, anchors), np.float32)
    logits = np.full((1, spec.num_classes, anchors), -4, np.float32)
    for anchor, four in sides.items():
        distances[0, :, anchor] = four
    for (label, anchor), value in scores.items():
        logits[0, label, anchor] = value
    return Case(spec, (64, 64), 1, tuple(boxes), Prediction("inline", inline=inline_text(distances, logits)))


ONE_LEVEL = LossSpec(num_classes=2, reg_max=1, strides=(8,), topk=2)
# Centres of the first row of anchors are (4, 4), (12, 4), (20, 4) and so on; eight to a row.


def tied_case(gap: float = 0.0) -> Case:
    """Returns a box over three anchors, K = 2: one is best, the others tie for the second place, except for a gap in their logits."""
    box = Box(0, 0, 12.0, 4.0, 24.0, 8.0)
    exact = {0: (0.5, 0.5, 2.5, 0.5), 1: (1.5, 0.5, 1.5, 0.5), 2: (2.5, 0.5, 0.5, 0.5)}
    return drawn([box], exact, {(0, 0): 1.0, (0, 1): 3.0, (0, 2): 1.0 - gap}, ONE_LEVEL)


def moved(old: int, new: int) -> Callable[[Assignment], Assignment]:
    """Returns an edit that moves an entry from one anchor to another."""

    def edit(held: Assignment) -> Assignment:
        anchor = torch.where(held.anchor == old, new, held.anchor)
        order = anchor.argsort()
        return Assignment(held.image[order], anchor[order], held.box[order], held.weight[order])

    return edit


def contested_case(second: Box, spec: LossSpec = ONE_LEVEL) -> Case:
    """Returns two boxes that pick the same two anchors, whose predictions lie between them."""
    first = Box(0, 0, 12.0, 4.0, 24.0, 8.0)
    sides = {0: (0.5, 0.5, 2.5, 0.5), 1: (1.5, 0.5, 1.5, 0.5)}
    return drawn([first, second], sides, {(0, 0): 2.0, (0, 1): 2.0, (1, 0): 2.0, (1, 1): 2.0}, spec)


def handed(to: int) -> Callable[[Assignment], Assignment]:
    """Returns an edit that assigns every held anchor to one box."""
    return lambda held: dataclasses.replace(held, box=torch.full_like(held.box, to))


def trial_of(case: Case, contender: Contender = TWIN, setting: Setting = FLOAT32) -> Trial:
    """Returns the trial of a contender on a case."""
    definition = DefinitionAnswers(case, setting)
    return Trial(contender, definition, definition.inputs)
