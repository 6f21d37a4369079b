"""Tags describe a case correctly, and drawn cases have each tag often enough."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.definition.criterion import ExactCriterion
from properties.strategies import TAGS, tags_of
from properties.tests.properties.strategies.helpers import profile_of
from twinloss import LossSpec

# The least share of each profile's batches that must have a tag: a third to a half of the share counted over several seeds. A seed does not
# fix the draws, because Hypothesis also takes constants from the loaded modules.
LEAST_TINY = {
    "no-boxes": 0.03, "empty-image": 0.15, "padded": 0.25, "rectangular": 0.1, "fewer-anchors-than-k": 0.04, "many-anchors": 0.05,
    "degenerate": 0.06, "subpixel": 0.08, "short": 0.4, "touches-image": 0.2, "leaves-image": 0.3, "dropped": 0.005, "on-centre": 0.25,
    "unseen": 0.05, "contested": 0.25, "crowded": 0.06, "identical": 0.04, "identical-classes": 0.04, "nested": 0.15, "few-candidates": 0.3,
    "clamped": 0.06, "clamped-low": 0.3, "integer-distance": 0.25, "tied": 0.03, "tied-at-k": 0.02, "zero-metric": 0.3, "weightless": 0.2,
}  # fmt: skip
LEAST_MEDIUM = LEAST_TINY | {"fewer-anchors-than-k": 0.0, "many-anchors": 0.12}
LEAST = {"tiny": LEAST_TINY, "medium": LEAST_MEDIUM}


def test_every_tag_is_frequent_enough(drawn: list[Case]) -> None:
    counts = Counter(tag for case in drawn for tag in case.tags)
    least = LEAST[profile_of(drawn).name]
    assert least.keys() == TAGS.keys()
    rare = {tag: counts[tag] / len(drawn) for tag in TAGS if counts[tag] / len(drawn) < least[tag]}
    assert not rare, f"of {len(drawn)} batches too few are {rare}; at least {least}"


def test_no_tag_is_on_nearly_every_batch(drawn: list[Case]) -> None:
    """If nearly every batch had a tag, batches without it would not be tested."""
    counts = Counter(tag for case in drawn for tag in case.tags)
    common = {tag: count / len(drawn) for tag, count in counts.items() if count > 0.95 * len(drawn)}
    assert not common, f"nearly all of {len(drawn)} batches are {common}"


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
def test_tags_describe_the_case(case: Case, expected: set[str], absent: set[str]) -> None:
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
    """The tag means that the exact criterion has fewer than K positive metrics for a box."""
    for case in drawn[:: len(drawn) // 20]:
        details = ExactCriterion(case.spec).trace(*build(case, Setting(dtype="float64")))
        short = any(bool(((d.metric > 0).sum(1) < case.spec.topk).any()) for d in details if len(d.metric))
        assert ("zero-metric" in case.tags) == short
