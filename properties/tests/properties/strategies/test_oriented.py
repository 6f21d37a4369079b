"""Generated batches of oriented boxes have every tag often enough, and no angle that the twin refuses."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from oracle.cases.case import Box, Case, Prediction
from properties.strategies.oriented import TAGS, oriented_cases, oriented_tags, smaller
from properties.strategies.profiles import TINY
from twinloss import OrientedSpec

LEAST = dict.fromkeys(TAGS, 0.03) | {"perfect": 0.01, "strangers": 0.003}
SPEC = OrientedSpec(num_classes=1, reg_max=1, strides=(8,))


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    found: list[Case] = []

    @seed(1)
    @settings(max_examples=300, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(oriented_cases(TINY))
    def draw(case: Case) -> None:
        found.append(case)

    draw()
    return found


def test_every_tag_is_drawn(drawn: list[Case]) -> None:
    counts = Counter(tag for case in drawn for tag in case.tags)
    assert not {tag: counts[tag] for tag, least in LEAST.items() if counts[tag] < least * len(drawn)}


def test_angles_and_definitions_are_those_of_the_contract(drawn: list[Case]) -> None:
    for case in drawn:
        assert isinstance(case.spec, OrientedSpec)
        assert all(abs(angle) < 2 * math.pi for angle in case.extras.get("angle", ()))
        assert [box.image for box in case.boxes] == sorted(box.image for box in case.boxes)
    assert {case.spec.reg_max == 1 for case in drawn} == {True, False}


def test_smaller_batches_have_simpler_angles() -> None:
    case = Case(SPEC, (32, 32), 1, (Box(0, 0, 9, 9, 8, 8),) * 2, Prediction("zeros"), extras={"angle": (0.5, 6.0)})
    assert [one.extras["angle"] for one in smaller(case)] == [(0.5, 0.3), (0.0, 0.0)]
    assert list(smaller(dataclasses.replace(case, extras={"angle": (0.0, 0.0)}))) == []


@pytest.mark.parametrize(
    ("rows", "tags"),
    [
        ([(16, 16, 8, 8, 0.3)], {"square"}),
        ([(16, 16, 60, 2, 0.3)], {"long", "limit"}),
        ([(16, 16, 60, 1, 0.3)], {"removed"}),
        ([(-4, -4, 3, 3, 0.3)], {"dropped", "square"}),
        ([(16, 16, 12, 8, 0.3)] * 2, {"identical", "contested"}),
        ([(16, 16, 12, 8, 0.3), (16, 16, 8, 12, 0.3 - math.pi / 2)], {"rewritten", "turned", "contested"}),
    ],
)  # fmt: skip
def test_tags_of_boxes(rows: list[tuple[float, ...]], tags: set[str]) -> None:
    boxes = tuple(Box(0, 0, *row[:4]) for row in rows)
    found = set(oriented_tags(Case(SPEC, (32, 32), 1, boxes, Prediction("random"), extras={"angle": tuple(row[4] for row in rows)})))
    assert found - {"few-candidates", "zero-metric", "strangers", "on-border"} == tags
