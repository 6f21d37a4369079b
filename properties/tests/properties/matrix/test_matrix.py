"""The matrix: planted differences are attributed, cells carry their counter-proof, and every catalogued difference has a row."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from oracle.comparison.recorded_answers import AnsweredBatch, RecordedAnswer
from oracle.comparison.registry import shipped
from oracle.comparison.wrong_definitions import catalogue, named
from oracle.contract.run import run_loss
from oracle.definition.variant import Variant, VariedCriterion
from oracle.ladder.questions import scene
from properties.matrix.answers import Reply, ask
from properties.matrix.attribution import FLOAT32, attributed
from properties.matrix.cells import DIFFERS, NOT_OFFERED, SAME, feature_cell
from properties.matrix.columns import all_columns
from properties.matrix.features import CONDUCT, FEATURES, HALF, features_of
from properties.matrix.packages import ADAPTERS, PACKAGES
from twinloss import LossSpec

SPEC = LossSpec(num_classes=3)
FLOAT64 = Setting("float64")


def answered(case: Case, variants: Sequence[Variant]) -> RecordedAnswer:
    """Returns the answer of an implementation that has these differences."""
    return RecordedAnswer(case, run_loss(VariedCriterion(case.spec, variants), build(case, FLOAT64), FLOAT64))


def test_two_planted_differences_are_found_in_their_features_and_proved() -> None:
    planted = (named("K - 1 instead of K"), next(one for one in catalogue() if one.release))
    chosen = [feature for feature in FEATURES if feature.name in ("top-k", "tiny boxes", "empty images")]
    asked = {feature: [answered(case, planted) for case in feature.cases(SPEC)[:3]] for feature in chosen}
    found = attributed({feature.name: answers for feature, answers in asked.items()})
    cells = {}
    for feature, answers in asked.items():
        replies = [Reply(answer.case, FLOAT64, answer) for answer in answers]
        cells[feature.name] = feature_cell(all_columns()[0], feature, replies, found)
    assert all(cell.proved == cell.answered for cell in cells.values())
    assert cells["top-k"].verdict == cells["tiny boxes"].verdict == DIFFERS
    assert "K - 1 instead of K" in cells["top-k"].what
    assert cells["top-k"].proved_without < cells["top-k"].proved
    assert cells["top-k"].after < 1e-8 < cells["top-k"].before


def test_right_answers_are_the_same_and_none_is_not_offered() -> None:
    feature = next(feature for feature in FEATURES if feature.name == "top-k")
    case = scene(3, images=1, boxes=1)
    answer = answered(case, ())
    found = attributed({feature.name: [answer]})
    assert found.variants == ()
    cell = feature_cell(all_columns()[0], feature, [Reply(case, FLOAT64, answer)], found)
    assert (cell.verdict, cell.what) == (SAME, "")
    nothing = attributed({feature.name: []})
    declined = feature_cell(all_columns()[0], feature, [Reply(case, FLOAT64, declined="it has no option for K")], nothing)
    assert (declined.verdict, declined.what) == (NOT_OFFERED, "it has no option for K")


@pytest.mark.parametrize("name", ["twin", "twin-torch", "reference"])
@pytest.mark.parametrize("bins", [16, 1])
def test_right_answers_in_float32_are_the_same(bins: int, name: str) -> None:
    contender, setting = shipped("detect")[name], Setting("float32")
    for feature in FEATURES:
        for case in feature.cases(LossSpec(num_classes=3, reg_max=bins)):
            reply = ask(contender, case, setting)
            if name != "reference":
                assert reply.answer is not None
            if reply.answer is not None:
                batch = AnsweredBatch(reply.answer, FLOAT32)
                assert batch.explained((), any_ties=True), (
                    f"{feature.name}: rounding decides, which makes a difference of {batch.distance(())}"
                )


def test_every_wrong_definition_belongs_to_a_row() -> None:
    rows = {feature.name for feature in FEATURES} | {HALF, CONDUCT}
    for variant in catalogue():
        assert features_of(variant) <= rows, variant
        assert features_of(variant) or variant.release, variant


@pytest.mark.parametrize("bins", [16, 1])
def test_batches_of_a_feature_are_valid_and_not_twice_the_same(bins: int) -> None:
    spec = LossSpec(num_classes=3, reg_max=bins)
    for feature in FEATURES:
        digests = [case.digest for case in feature.cases(spec)]
        assert len(digests) == len(set(digests)), feature.name
        assert digests or (bins == 1 and feature.name == "distribution")


def test_columns_are_pinned_and_have_an_adapter() -> None:
    names = [column.name for column in all_columns()]
    assert len(names) == len(set(names))
    assert sum(column.kind == "release" for column in all_columns()) >= 10
    for package in PACKAGES:
        assert (ADAPTERS / f"{package.adapter}.py").is_file()
        assert all("==" in requirement for requirement in package.also)
