"""What the strategies actually produce: shares of batches that are crowded, tied, clamped and so on, counted over real draws."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, find, given, seed, settings

from oracle.cases.case import Box, Case, DtypeName, Prediction, Setting
from oracle.definition.criterion import ExactCriterion
from properties.strategies import KINDS, MEDIUM, PATTERNS, PROFILES, TAGS, TINY, Crowd, Frame, Profile, cases, tags_of
from twinloss import LossSpec

DRAWS, RUNS = 14, 15  # A run of Hypothesis returns to what it has drawn before, so many short ones tell more than a long one.
DTYPES: tuple[DtypeName, ...] = ("float64", "float32", "float16", "bfloat16")

# The least share of each profile's batches that has a tag: a third to a half of what was counted over several seeds. A seed does not fix
# the draws: Hypothesis also takes constants from whatever modules are loaded.
LEAST_TINY = {
    "no-boxes": 0.03, "empty-image": 0.15, "padded": 0.25, "rectangular": 0.1, "fewer-anchors-than-k": 0.04, "many-anchors": 0.05,
    "degenerate": 0.06, "subpixel": 0.08, "short": 0.4, "touches-image": 0.2, "leaves-image": 0.3, "dropped": 0.005, "on-centre": 0.25,
    "unseen": 0.05, "contested": 0.25, "crowded": 0.06, "identical": 0.04, "identical-classes": 0.04, "nested": 0.15, "few-candidates": 0.3,
    "clamped": 0.06, "clamped-low": 0.3, "integer-distance": 0.25, "tied": 0.03, "tied-at-k": 0.02, "zero-metric": 0.3, "weightless": 0.2,
}  # fmt: skip
LEAST_MEDIUM = LEAST_TINY | {"fewer-anchors-than-k": 0.0, "many-anchors": 0.12}
LEAST = {"tiny": LEAST_TINY, "medium": LEAST_MEDIUM}


def sample(profile: Profile, count: int, number: int) -> list[Case]:
    drawn: list[Case] = []

    @seed(number)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(cases(profile))
    def collect(case: Case) -> None:
        drawn.append(case)

    collect()
    return drawn


@pytest.fixture(scope="module", params=sorted(PROFILES))
def drawn(request: pytest.FixtureRequest) -> list[Case]:
    return [case for number in range(RUNS) for case in sample(PROFILES[request.param], DRAWS, number)]


def profile_of(batch: list[Case]) -> Profile:
    return PROFILES[batch[0].workload.removeprefix("generated-")]


def test_every_tag_takes_its_share(drawn: list[Case]) -> None:
    counts = Counter(tag for case in drawn for tag in case.tags)
    least = LEAST[profile_of(drawn).name]
    assert least.keys() == TAGS.keys()
    rare = {tag: counts[tag] / len(drawn) for tag in TAGS if counts[tag] / len(drawn) < least[tag]}
    assert not rare, f"of {len(drawn)} batches too few are {rare}; at least {least}"


def test_no_tag_swallows_the_others(drawn: list[Case]) -> None:
    """A tag that nearly every batch has would tell nothing, and would leave the ordinary batch untested."""
    counts = Counter(tag for case in drawn for tag in case.tags)
    common = {tag: count / len(drawn) for tag, count in counts.items() if count > 0.95 * len(drawn)}
    assert not common, f"nearly all of {len(drawn)} batches are {common}"


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


def test_rows_are_what_a_loader_gives(drawn: list[Case]) -> None:
    """Sorted by image, in range, and with coordinates that are numbers: bad input has tests of its own."""
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
        (preds, batch), (again, batch_again) = case.build(setting), case.build(setting)
        for name in ("boxes", "scores"):
            assert preds[name].dtype == setting.torch_dtype
            assert preds[name].is_leaf
            assert preds[name].requires_grad
            assert preds[name].isfinite().all()
            assert torch.equal(preds[name], again[name])
        assert preds["boxes"].shape == (case.batch_size, 4 * case.spec.reg_max, case.num_anchors)
        assert preds["scores"].shape == (case.batch_size, case.spec.num_classes, case.num_anchors)
        assert all(torch.equal(batch[key], batch_again[key]) for key in batch)


def test_crowds_keep_to_their_pattern() -> None:
    frame = Frame(LossSpec(num_classes=3), 64, 128)
    for pattern in PATTERNS:
        boxes = Crowd(image=0, count=30, pattern=pattern, seed=5).boxes(frame, image=2)
        assert len(boxes) == 30
        assert {box.image for box in boxes} == {2}
        assert all(box.w >= 0 and box.h >= 0 for box in boxes)
        case = Case(frame.spec, (64, 128), 3, tuple(boxes), workload="generated")
        if pattern == "tiles":  # They share nothing but borders, yet the inside test lengthens them.
            assert "nested" not in tags_of(case)
        elif pattern != "scatter":
            assert "crowded" in tags_of(case), pattern
    assert "identical-classes" in tags_of(Case(frame.spec, (64, 128), 1, tuple(Crowd(0, 5, "copies", 1).boxes(frame, 0))))


def one_box(*place: float, **spec: Any) -> Case:
    """A box on one level of an 8 x 8 grid of 8 px cells."""
    return Case(LossSpec(num_classes=2, strides=(8,), **spec), (64, 64), 1, (Box(0, 0, *place),), Prediction("near", spread=0.25))


@pytest.mark.parametrize(
    ("case", "expected", "absent"),
    [
        (one_box(32, 32, 0, 20), {"degenerate", "short"}, {"subpixel"}),
        (one_box(32, 32, 0.5, 20), {"subpixel", "short"}, {"degenerate"}),
        (one_box(33, 33, 20, 20), set(), {"short", "on-centre", "touches-image", "clamped", "clamped-low", "integer-distance"}),
        (one_box(32, 32, 24, 24), {"on-centre", "integer-distance"}, {"short"}),
        (one_box(8, 32, 16, 20), {"touches-image"}, {"leaves-image"}),
        (one_box(4, 32, 16, 20), {"leaves-image"}, {"dropped"}),
        (one_box(-4, 4, 16, 20), {"leaves-image", "dropped"}, {"unseen"}),
        (one_box(100, 100, 16, 16), {"unseen"}, {"dropped"}),
        (one_box(33, 33, 60, 60, reg_max=4), {"clamped"}, set()),
        (one_box(33, 33, 20, 20, reg_max=4), set(), {"clamped"}),
        (one_box(33, 33, 2, 2), {"clamped-low", "few-candidates", "zero-metric"}, {"many-anchors"}),
        (one_box(33, 33, 20, 20, topk=1), {"many-anchors"}, {"zero-metric", "few-candidates"}),
        (one_box(33, 33, 20, 20, topk=65), {"fewer-anchors-than-k"}, {"many-anchors"}),
    ],
    ids=lambda value: str([box.w for box in value.boxes]) if isinstance(value, Case) else None,
)  # fmt: skip
def test_tags_say_what_is(case: Case, expected: set[str], absent: set[str]) -> None:
    tags = set(tags_of(case))
    assert expected <= tags
    assert not absent & tags


def test_ties_are_found_where_they_are() -> None:
    tied = dataclasses.replace(one_box(32, 32, 48, 48), prediction=Prediction("zeros"))
    assert {"tied", "tied-at-k"} <= set(tags_of(tied))
    assert not {"tied", "tied-at-k"} & set(tags_of(one_box(33, 33, 40, 40)))
    # All four anchors about the centre are equal, and none of the next ring is picked when K is 4.
    four = dataclasses.replace(tied, spec=dataclasses.replace(tied.spec, topk=4))
    assert "tied" in tags_of(four)
    assert "tied-at-k" not in tags_of(four)


def test_zero_metric_agrees_with_the_definition(drawn: list[Case]) -> None:
    """The tag means that the exact criterion picks among zeros, which is where the reference's choice is an accident."""
    for case in drawn[:: len(drawn) // 20]:
        details = ExactCriterion(case.spec).trace(*case.build(Setting(dtype="float64")))
        short = any(bool(((d.metric > 0).sum(1) < case.spec.topk).any()) for d in details if len(d.metric))
        assert ("zero-metric" in case.tags) == short


def test_failures_shrink_to_something_plain() -> None:
    quick = settings(max_examples=200, database=None, deadline=None)
    least = find(cases(TINY, tagged=False), lambda case: any(box.w > 20 for box in case.boxes), settings=quick, random=random.Random(0))
    assert least.batch_size == 1
    assert least.image_size == (64, 64)
    assert least.spec == LossSpec(num_classes=1, strides=(8,))
    assert len(least.boxes) <= 2  # One, but Hypothesis stops when it has made no headway for a while.


def test_medium_is_larger_than_tiny() -> None:
    assert min(MEDIUM.sides) > max(TINY.sides)
