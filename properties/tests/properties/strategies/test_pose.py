"""Batches of pose: their dimensions, their tags, and what makes them smaller."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings

from oracle.cases.build import build
from oracle.cases.case import Box, Case
from properties.strategies import TINY
from properties.strategies.pose import COUNTS, TAGS, Pattern, pose_cases, smaller_pose
from twinloss import PoseSpec


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    """Cases of many short runs, because a run of Hypothesis returns to earlier draws."""
    found: list[Case] = []
    for number in range(16):

        @seed(number)
        @settings(max_examples=12, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(pose_cases(TINY))
        def collect(case: Case) -> None:
            found.append(case)

        collect()
    return found


def spec_of(case: Case) -> PoseSpec:
    assert isinstance(case.spec, PoseSpec)
    return case.spec


def test_drawn_cases_take_all_values_of_every_dimension(drawn: list[Case]) -> None:
    specs = [spec_of(case) for case in drawn]
    assert {spec.keypoint_shape for spec in specs} == {(points, numbers) for points in COUNTS for numbers in (2, 3)}
    assert {(spec.generation, spec.flow) for spec in specs} == {(1, False), (2, False), (2, True)}
    assert {spec.sigmas is None for spec in specs} == {False, True}
    sizes = {len(case.extras["keypoints"][0]) // spec_of(case).keypoint_shape[0] for case in drawn if case.boxes}
    assert sizes == {2, 3}
    assert TAGS.keys() <= {tag for case in drawn for tag in case.tags}


def test_json_brings_every_case_back(drawn: list[Case]) -> None:
    for case in drawn[::5]:
        assert Case.from_json(case.to_json()) == case


def test_every_case_builds_with_finite_predictions(drawn: list[Case]) -> None:
    for case in drawn[::6]:
        preds, batch = build(case)
        assert all(preds[name].isfinite().all() for name in preds if name != "feats")
        assert len(batch["keypoints"]) == len(case.boxes)


def test_failures_shrink_to_one_keypoint_of_the_first_generation() -> None:
    quick = settings(max_examples=200, database=None, deadline=None)
    least = find(pose_cases(TINY), lambda case: len(case.boxes) > 0, settings=quick, random=random.Random(0))
    assert spec_of(least).generation == 1
    assert spec_of(least).keypoint_shape == (1, 3)
    assert len(least.boxes) == 1


def test_smaller_cases_are_smaller_and_build(drawn: list[Case]) -> None:
    case = next(
        case for case in drawn if case.boxes and spec_of(case).keypoint_shape[0] > 5 and spec_of(case).flow and not spec_of(case).sigmas
    )
    found = list(smaller_pose(case))
    assert any(spec_of(one).keypoint_shape[0] < spec_of(case).keypoint_shape[0] for one in found)
    assert any(not spec_of(one).flow for one in found)
    for one in found:
        build(one)


def test_a_pattern_places_and_hides_keypoints() -> None:
    (row,) = Pattern("far", "one", three=True, twins=False, seed=1).column([Box(0, 0, 32, 32, 10, 10)], 4)
    assert sorted(row[2::3]) == [0, 0, 0, 2]
    assert max(abs(row[0] - 32), abs(row[1] - 32)) > 5
