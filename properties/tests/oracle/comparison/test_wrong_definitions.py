"""Wrong definitions of every task can be computed, so that a candidate that differs gets its explanation."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.comparison.compare import compare
from oracle.comparison.explain import LIMITS, explain
from oracle.comparison.explanations import explain_answers
from oracle.comparison.recorded_answers import AnsweredBatch, RecordedAnswer, record
from oracle.comparison.registry import TWINS
from oracle.comparison.wrong_definitions import catalogue, named
from oracle.contract.contender import Contender
from oracle.contract.run import Outcome
from twinloss import LossSpec, OrientedSpec, PoseSpec, SegmentationSpec

NUMBERS: dict[str, Any] = {"num_classes": 2, "reg_max": 4, "strides": (8, 16), "topk": 3}
SPECS: dict[str, LossSpec] = {
    "detect": LossSpec(**NUMBERS),
    "segment": SegmentationSpec(**NUMBERS),
    "instance masks": SegmentationSpec(**NUMBERS, overlap_mask=False),
    "oriented": OrientedSpec(**NUMBERS),
    "pose": PoseSpec(**NUMBERS, keypoint_shape=(5, 3)),
    "pose with a flow": PoseSpec(**NUMBERS, keypoint_shape=(5, 3), generation=2, flow=True),
}
NO_ANSWER = Outcome(torch.zeros(0), {}, {}, (), torch.float64)
BOXES = (Box(0, 1, 30, 30, 40, 24), Box(1, 0, 40, 24, 30, 36))


class Silent:
    """The twin's loss with every term 1 % larger, or of another definition; no stage is shown."""

    def __init__(self, criterion: Any, factor: float) -> None:
        self.criterion, self.factor = criterion, factor

    def __call__(self, preds: Any, batch: Any) -> Any:
        loss, items = self.criterion(preds, batch)
        return loss * self.factor, {name: value * self.factor for name, value in items.items()}


def silent(factor: float = 1.0, **numbers: Any) -> Contender:
    def factory(spec: LossSpec, **options: Any) -> Any:
        return Silent(TWINS[spec.task](dataclasses.replace(spec, **numbers), **options), factor)

    return Contender("wrong", "none", factory)


def batches(spec: LossSpec) -> list[Case]:
    extras = {"angle": (0.3, 1.2)} if spec.task == "oriented" else {}
    return [Case(spec, (64, 64), 2, BOXES, Prediction("near", seed=seed), extras=extras) for seed in (3, 4, 5)]


def notes_of(contender: Contender, spec: LossSpec) -> list[tuple[str, str]]:
    first, *others = batches(spec)
    setting = Setting("float64")
    [result] = compare(first, setting, [contender], stages=("loss",)).results
    assert result.findings
    unhurried = dataclasses.replace(LIMITS, seconds=None)  # no machine is too slow to find the name
    return explain(first, setting, contender, result.findings, [(case, setting) for case in others], limits=unhurried)


@pytest.mark.parametrize("name", SPECS)
def test_a_candidate_of_every_task_is_explained(name: str) -> None:
    said = dict(notes_of(silent(topk=2), SPECS[name]))
    assert "K - 1 instead of K [5.4]" in said["looks like"]
    assert "explains 3 of 3 batches" in said["looks like"]


@pytest.mark.parametrize("name", SPECS)
def test_a_difference_that_no_definition_explains_ends_in_factors(name: str) -> None:
    said = dict(notes_of(silent(factor=1.01), SPECS[name]))
    assert said["looks like"].startswith("every term and its gradient are 1.01 times what they should be [7]: explains 3 of 3")


def test_batches_of_one_task_with_other_terms_have_their_factors_together() -> None:
    mixed = [case for name in ("pose", "pose with a flow") for case in batches(SPECS[name])]
    assert len({case.spec.terms for case in mixed}) == 2
    answers = [answer for case in mixed if (answer := record(case, Setting("float64"), silent(factor=1.01)))]
    said = explain_answers(answers).sentence()
    assert said == "every term and its gradient are 1.01 times what they should be [7]: explains 6 of 6 batches"


@pytest.mark.parametrize("name", SPECS)
def test_every_wrong_definition_can_be_computed(name: str) -> None:
    spec = SPECS[name]
    batch = AnsweredBatch(RecordedAnswer(batches(spec)[0], NO_ANSWER))
    for variant in catalogue(spec.task):
        if variant.applies(spec):
            outcome = batch.outcome((variant,))
            assert outcome.loss.shape == (len(spec.terms),), variant.name


def test_names_are_unique_and_found_again() -> None:
    names = [variant.name for variant in catalogue()]
    assert len(set(names)) == len(names)
    assert named("borders inclusive") in catalogue()
    with pytest.raises(KeyError, match="no wrong definition is called 'borders open'"):
        named("borders open")


def test_variants_of_numbers_out_of_range_do_not_apply() -> None:
    one_class = LossSpec(num_classes=1, topk=1)
    assert not named("K - 1 instead of K").applies(one_class)
    assert named("K - 1 instead of K").applies(SPECS["detect"])
    assert not named("class weights ignored").applies(one_class)
