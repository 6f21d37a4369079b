"""Intervals of the mask-aware overlap hold what the reference computes, and are open only where rounding or a tie decides."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, PredictionKind, Setting
from oracle.definition.segmentation import ExactSegmentation
from oracle.reference.segmentation import ReferenceSegmentation
from oracle.tolerance.margins import Margins, margins_of
from oracle.tolerance.mask_overlaps import SegmentMargins
from oracle.tolerance.precision import precision_of
from twinloss import SegmentationSpec

SETTINGS = (Setting("float64"), Setting("float32"), Setting("bfloat16"))


def case_of(*boxes: Box, kind: PredictionKind = "near", seed: int = 1, topk: int = 10) -> Case:
    spec = SegmentationSpec(num_classes=2, reg_max=4, strides=(8, 16), topk=topk, mask_aware=True)
    return Case(spec, (64, 64), 1, boxes, Prediction(kind, seed), options={"prototypes": 4.0})


def drawn(seed: int) -> Case:
    r = random.Random(seed)
    boxes = (Box(0, r.randrange(2), r.uniform(8, 56), r.uniform(8, 56), r.uniform(6, 48), r.uniform(6, 48)) for _ in range(4))
    kinds: tuple[PredictionKind, ...] = ("near", "random", "late")
    return case_of(*boxes, kind=r.choice(kinds), seed=seed, topk=r.choice((2, 10)))


def margins(case: Case, setting: Setting, claim: str = "logits") -> Margins:
    return margins_of(ExactSegmentation(case.spec), *build(case, setting), precision_of(setting, claim), SegmentMargins())


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_reference_is_within_the_interval(setting: Setting) -> None:
    for seed in range(12):
        case = drawn(seed)
        found, pairs = ReferenceSegmentation(case.spec).metrics(*build(case, setting)), margins(case, setting)
        at = pairs.lookup(found.anchor.numpy(), pairs.boxes.index_of(found.row.tolist()))
        overlap = found.overlap.double().numpy()
        assert (at >= 0).all()
        assert (overlap >= pairs.pairs.overlap_low[at]).all(), seed
        assert (overlap <= pairs.pairs.overlap_high[at]).all(), seed


def test_the_value_is_the_definitions() -> None:
    for seed in range(6):
        case = drawn(seed)
        exact = ExactSegmentation(case.spec).metrics(*build(case, Setting("float32")))
        pairs = margins(case, Setting("float32"))
        at = pairs.lookup(exact.anchor.numpy(), pairs.boxes.index_of(exact.row.tolist()))
        np.testing.assert_allclose(pairs.pairs.overlap[at], exact.overlap.numpy(), rtol=1e-12)


def test_float32_leaves_most_overlaps_decided_to_a_millionth() -> None:
    """A pixel within rounding of the threshold would open a whole pixel of the quotient."""
    width = np.concatenate([(m.pairs.overlap_high - m.pairs.overlap_low) for m in (margins(drawn(s), SETTINGS[1]) for s in range(8))])
    assert (width < 1e-5).mean() > 0.95


def test_equal_boxes_may_have_unequal_masks() -> None:
    """So no rule for equal overlaps closes their conflicts, as it does without masks."""
    box = Box(0, 0, 32, 32, 30, 30)
    found = margins(case_of(box, box), Setting("float32")).boxes
    assert found.first_twin.tolist() == [0, 1]
    assert not found.shadowed.any()


def test_a_tie_at_the_last_preselected_place_is_open() -> None:
    """The boxes' overlaps with a line are 0, and K = 1 leaves three of the equal candidates their masks."""
    line = case_of(Box(0, 0, 32, 32, 0.5, 64), kind="random", topk=1)
    masked = dataclasses.replace(line, extras={"polygons": (((8.0, 8.0, 56.0, 8.0, 56.0, 56.0, 8.0, 56.0),),)})
    found = margins(masked, Setting("float32")).pairs
    assert ((found.overlap == 0) & (found.overlap_high > 0.01)).any()
