"""Drawn cases take all values of every dimension, keep to their profile, and build the same tensors every time."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from hypothesis import find, settings

from oracle.cases.build import build
from oracle.cases.case import Case, DtypeName, Setting
from properties.strategies import KINDS, MEDIUM, TINY, cases
from properties.tests.properties.strategies.helpers import profile_of, sample
from twinloss import LossSpec

DTYPES: tuple[DtypeName, ...] = ("float64", "float32", "float16", "bfloat16")


def test_dimensions_take_all_their_values(drawn: list[Case]) -> None:
    profile = profile_of(drawn)
    assert {case.prediction.kind for case in drawn} == KINDS.keys()
    assert {len(case.spec.strides) for case in drawn} == {1, 2, 3, 4}
    assert {case.batch_size for case in drawn} == set(range(1, profile.max_images + 1))
    assert {1, 2, 3} < {case.spec.num_classes for case in drawn}
    assert max(case.spec.num_classes for case in drawn) == 365
    assert {1, 2, 4, 8, 16, 32} == {case.spec.reg_max for case in drawn}
    assert {None, 1, 3} < {case.spec.topk2 for case in drawn}
    assert any(case.spec.class_weights for case in drawn)
    assert len({case.spec.gains for case in drawn}) > 1
    assert len({(case.spec.alpha, case.spec.beta) for case in drawn}) > 1


def test_sizes_keep_to_the_profile(drawn: list[Case]) -> None:
    profile = profile_of(drawn)
    per_image = [max(Counter(b.image for b in case.boxes).values(), default=0) for case in drawn]
    assert max(per_image) >= max(profile.crowds)
    assert sum(count <= 10 for count in per_image) > len(drawn) / 3
    for case in drawn:
        assert max(case.image_size) < max(profile.sides) + case.spec.strides[0]
        assert case.num_anchors * case.batch_size * case.spec.num_classes <= profile.max_scores


def test_batches_differ(drawn: list[Case]) -> None:
    assert len({case.digest for case in drawn}) > 0.8 * len(drawn)


def test_rows_are_valid_and_sorted_by_image(drawn: list[Case]) -> None:
    """Invalid input has tests of its own."""
    for case in drawn:
        images = [box.image for box in case.boxes]
        assert images == sorted(images)
        for box in case.boxes:
            assert 0 <= box.image < case.batch_size
            assert 0 <= box.label < case.spec.num_classes
            assert box.w >= 0
            assert box.h >= 0
            assert all(abs(value) < 1e5 for value in (box.cx, box.cy, box.w, box.h))


def test_json_brings_every_case_back(drawn: list[Case]) -> None:
    for case in drawn:
        back = Case.from_json(case.to_json())
        assert back == case
        assert back.digest == case.digest


def test_the_same_seed_draws_the_same_cases() -> None:
    assert [case.digest for case in sample(TINY, 25, number=3)] == [case.digest for case in sample(TINY, 25, number=3)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_building_gives_the_same_finite_numbers_every_time(drawn: list[Case], dtype: DtypeName) -> None:
    setting = Setting(dtype=dtype)
    for case in drawn[:: len(drawn) // 40]:
        (preds, batch), (again, batch_again) = build(case, setting), build(case, setting)
        for name in ("boxes", "scores"):
            assert preds[name].dtype == setting.torch_dtype
            assert preds[name].is_leaf
            assert preds[name].requires_grad
            assert preds[name].isfinite().all()
            assert torch.equal(preds[name], again[name])
        assert preds["boxes"].shape == (case.batch_size, 4 * case.spec.reg_max, case.num_anchors)
        assert preds["scores"].shape == (case.batch_size, case.spec.num_classes, case.num_anchors)
        assert all(torch.equal(batch[key], batch_again[key]) for key in batch)


def test_failures_shrink_to_a_simple_case() -> None:
    quick = settings(max_examples=200, database=None, deadline=None)
    least = find(cases(TINY, tagged=False), lambda case: any(box.w > 20 for box in case.boxes), settings=quick, random=random.Random(0))
    assert least.batch_size == 1
    assert least.image_size == (64, 64)
    assert least.spec == LossSpec(num_classes=1, strides=(8,))
    assert len(least.boxes) <= 2  # One box is the least, but Hypothesis may stop early.


def test_medium_is_larger_than_tiny() -> None:
    assert min(MEDIUM.sides) > max(TINY.sides)
