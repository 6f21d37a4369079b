"""What each recipe of logits says: that predictions near the truth are near it, that exact ones are exact, and stages follow each other."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, PredictionKind, Setting
from oracle.cases.logits import TRAINING_STAGES, inline_text, logits
from oracle.cases.noise import Noise
from oracle.cases.workloads import real_batches
from oracle.definition.criterion import ExactCriterion
from twinloss import LossSpec

FLOAT64 = Setting(dtype="float64")
BOXES = (Box(0, 1, 20, 24, 32, 40), Box(0, 0, 44, 40, 24, 32), Box(2, 2, 32, 32, 60, 60), Box(2, 0, 30, 30, 10, 20))


def case_of(kind: PredictionKind, reg_max: int = 16, **recipe: float) -> Case:
    prediction = dataclasses.replace(Prediction(kind), **recipe)  # type: ignore[arg-type]
    return Case(LossSpec(num_classes=3, reg_max=reg_max), (64, 64), 3, BOXES, prediction)


def best_overlaps(case: Case) -> Tensor:
    """Of every anchor that is a candidate: its largest overlap with a box."""
    preds, batch = build(case, FLOAT64)
    best = torch.zeros(case.batch_size, case.num_anchors, dtype=torch.float64)
    seen = torch.zeros_like(best, dtype=torch.bool)
    for detail in ExactCriterion(case.spec).trace(preds, batch):
        if len(detail.rows):
            best[detail.image], seen[detail.image] = detail.overlap.amax(0), detail.candidate.any(0)
    return best[seen]


def test_noise_is_the_same_bits_everywhere() -> None:
    """Written down once: an inline case found elsewhere must be found here."""
    assert Noise(7, 3).bell(3).tolist() == [0.9691249132156372, 0.9009645581245422, -1.2499065399169922]
    assert Noise(7, 3).uniform(3).tolist() == [0.4821285605430603, 0.7241355180740356, 0.050253987312316895]
    assert Noise(7, 3).order(5).tolist() == [2, 3, 0, 4, 1]


def test_noise_is_a_bell() -> None:
    values = Noise(1).bell(400_000)
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert 3 < np.abs(values).max() < 3.47
    uniform = Noise(1).uniform(100_000)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert np.abs(np.quantile(uniform, [0.25, 0.5, 0.75]) - [0.25, 0.5, 0.75]).max() < 0.01


def test_seeds_and_streams_are_apart() -> None:
    first, seed, stream = Noise(1, 0).bell(1000), Noise(2, 0).bell(1000), Noise(1, 1).bell(1000)
    for other in (seed, stream):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.1


@pytest.mark.parametrize("reg_max", [1, 2, 16])
def test_exact_predictions_are_exact(reg_max: int) -> None:
    """Wherever the bins reach, an anchor predicts one of its boxes; where distances are halves, to the bit."""
    within = (Box(0, 0, 28, 28, 8, 8),) if reg_max == 2 else BOXES[:2]
    case = Case(LossSpec(num_classes=3, strides=(8,), reg_max=reg_max), (64, 64), 1, within, Prediction("exact"))
    preds, batch = build(case, FLOAT64)
    exact = ExactCriterion(case.spec)
    predicted, grid = exact.decode(preds)[0] * exact.grid(preds).strides[:, None], exact.grid(preds)
    truth, centres = exact.targets(preds, batch).corners, grid.centres * grid.strides[:, None]
    inside = ((centres[:, None] > truth[:, :2]) & (centres[:, None] < truth[:, 2:])).all(2).any(1)
    apart = (predicted[:, None] - truth).abs().amax(2).amin(1)[inside]
    assert inside.sum() >= 1
    assert (apart == 0).all()


def test_exact_predictions_of_any_distance_are_close() -> None:
    case = dataclasses.replace(case_of("exact"), boxes=(Box(0, 0, 31.7, 30.3, 41.3, 37.9),))
    assert best_overlaps(case).min() > 1 - 1e-5


def test_near_predictions_are_near() -> None:
    """Those beside a box that is lengthened for the inside test cannot be: no distance is negative."""
    batches = [dataclasses.replace(case_of("near", spread=spread), boxes=BOXES[:3]) for spread in (0.0, 0.25, 1.0, 4.0)]
    medians = [float(best_overlaps(batch).median()) for batch in batches]
    assert medians == sorted(medians, reverse=True)
    assert medians[0] > 0.9
    assert medians[-1] < 0.5


@pytest.mark.parametrize("kind", ["near", "exact"])
def test_near_and_exact_raise_the_class_that_is_there(kind: PredictionKind) -> None:
    for seed in range(3):
        preds, _ = build(case_of(kind, seed=seed))
        scores = preds["scores"].detach()
        centre = 3 * 8 + 2  # of box 0, and of no other.
        assert scores[0, :, centre].argmax() == 1
        assert scores[0, 1, centre] > 0 > scores[1].mean()


def test_an_untrained_head_knows_nothing() -> None:
    preds, _ = build(case_of("untrained"))
    boxes, scores = preds["boxes"].detach(), preds["scores"].detach().sigmoid()
    assert boxes.abs().max() < 0.5
    # Its probabilities add up to about as many objects as there are.
    assert 0.5 < scores.sum() / len(BOXES) < 2


def test_saturated_logits_are_where_arithmetic_ends() -> None:
    preds, _ = build(case_of("saturated"), Setting(dtype="float16"))
    boxes, scores = preds["boxes"].detach(), preds["scores"].detach()
    assert boxes.abs().min() >= 30
    assert boxes.abs().max() <= 80
    assert scores.isfinite().all()
    probability = scores.sigmoid()
    assert (probability == 0).any()
    assert (probability == 1).any()
    limit = scores[(scores < -17) & (scores > -18)].sigmoid()
    assert (limit == 0).any()
    assert (limit > 0).any()


def test_zeros_are_zero() -> None:
    boxes, scores = logits(case_of("zeros"))
    assert not boxes.any()
    assert not scores.any()


def test_stages_of_training_follow_each_other() -> None:
    """Overlap and confidence of what is held grow, on boxes as they are; the numbers are those of a network that learns."""
    overlaps, confidences = [], []
    for case in real_batches("synthetic-coco", imgsz=320, batch=8, count=3, seed=4):
        assert case.prediction.kind in TRAINING_STAGES
        preds, batch = build(case, FLOAT64)
        details = [d for d in ExactCriterion(case.spec).trace(preds, batch) if len(d.rows)]
        held = [(d, d.weight > 0) for d in details]
        overlaps.append(float(torch.cat([d.overlap.gather(0, d.holder.clamp(min=0)[None])[0][mask] for d, mask in held]).median()))
        confidences.append(float(torch.cat([d.probability.gather(0, d.holder.clamp(min=0)[None])[0][mask] for d, mask in held]).median()))
    assert overlaps == sorted(overlaps)
    assert confidences == sorted(confidences)
    assert 0.3 < overlaps[0] < 0.6 < overlaps[1] < 0.75 < overlaps[2] < 0.95, overlaps
    assert confidences[0] < 0.04 < confidences[1] < 0.12 < confidences[2] < 0.95, confidences


@pytest.mark.parametrize("reg_max", [1, 16])
def test_inline_logits_are_kept(reg_max: int) -> None:
    case = case_of("random", reg_max, seed=3)
    boxes, scores = logits(case)
    inline = dataclasses.replace(case, prediction=Prediction("inline", inline=inline_text(boxes, scores)))
    back = Case.from_json(inline.to_json())
    assert back.digest == inline.digest != case.digest
    for found, expected in zip(logits(back), (boxes, scores), strict=True):
        assert np.array_equal(found, expected)


def test_inline_logits_of_another_shape_are_refused() -> None:
    inline = inline_text(*logits(case_of("random")))
    other = dataclasses.replace(case_of("random", reg_max=8), prediction=Prediction("inline", inline=inline))
    with pytest.raises(ValueError, match=r"inline boxes hold 16128 numbers; this case has \(3, 32, 84\)"):
        logits(other)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'guessed' is unknown; choose one of random"):
        logits(case_of("guessed"))  # type: ignore[arg-type]


def test_malformed_boxes_do_not_stop_the_recipes() -> None:
    """Bad input is the criterion's to refuse; a head never sees it."""
    bad = (Box(9, 0, 8, 8, 4, 4), Box(0, 9, 8, 8, 4, 4), Box(0, -1, 8, 8, 4, 4), Box(0, 0, float("nan"), 8, 4, 4), Box(0, 0, 8, 8, -4, 4))
    kinds: tuple[PredictionKind, ...] = ("near", "exact", "late")
    for kind in kinds:
        clean, with_bad = case_of(kind), dataclasses.replace(case_of(kind), boxes=(*BOXES, *bad))
        assert all(np.isfinite(part).all() for part in logits(with_bad))
        if kind == "late":  # The others choose among boxes by chance, and so among more.
            assert all(np.array_equal(a, b) for a, b in zip(logits(clean), logits(with_bad), strict=True))


def test_recipes_are_quick() -> None:
    """Thousands of small cases must not wait for their numbers; processor time, so that a busy machine does not fail it."""
    kinds: tuple[PredictionKind, ...] = ("random", "near", "late")
    for kind in kinds:
        case = case_of(kind)
        logits(case)
        started = time.process_time()
        for _ in range(20):
            logits(case)
        assert (time.process_time() - started) / 20 < 5e-3
