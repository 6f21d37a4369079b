"""Explanations name one, two or three wrong definitions, and nothing that does not give a candidate's numbers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings

from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.comparison.explanations import Explanation, Limits, counter_proof, explain_answers
from oracle.comparison.recorded_answers import AnsweredBatch, RecordedAnswer, Ties, record
from oracle.comparison.wrong_definitions import named
from oracle.contract.contender import Contender
from oracle.definition.variant import VariedCriterion
from properties.strategies import PROFILES, cases
from twinloss import LossSpec

FLOAT64 = Setting("float64")
RULES: tuple[Ties, Ties] = ("stable", "reference")
FEW = Limits(sample=4, beam=2, agreeing=10)


@functools.cache
def drawn(count: int = 40) -> tuple[Case, ...]:
    found: list[Case] = []

    @seed(1)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases(PROFILES["tiny"]))
    def draw(case: Case) -> None:
        found.append(case)

    draw()
    return tuple(found)


def answers(contender: Contender, batches: Sequence[Case] | None = None) -> list[RecordedAnswer]:
    found = [record(case, FLOAT64, contender) for case in batches or drawn()]
    return [answer for answer in found if answer is not None]


def with_faults(*names: str) -> Contender:
    return Contender("wrong", "", lambda spec: VariedCriterion(spec, [named(name) for name in names], "reference"))


def after(change: Any, ties: Ties = "reference") -> Contender:
    """Returns the definition, under a rule for ties, with its loss changed."""

    def factory(spec: Any) -> Any:
        exact = VariedCriterion(spec, (), ties)

        def loss(preds: Any, batch: Any) -> Any:
            value, items = exact(preds, batch)
            return change(value), items

        return loss

    return Contender("changed", "", factory)


def explained(*names: str) -> Explanation:
    return explain_answers(answers(with_faults(*names)), limits=FEW)


@pytest.mark.parametrize("name", ["conflicts go to the first picker", "IoU for CIoU in the box term", "S = the number of held anchors"])
def test_a_single_fault_is_named_and_explains_every_batch(name: str) -> None:
    found = explained(name)
    assert [variant.name for variant in found.variants] == [name]
    assert found.explained == found.failing > 0
    assert found.residual <= 1e-10
    assert found.broken == 0
    assert found.sentence().startswith(f"{name} [")
    assert found.sentence().endswith(f"explains {found.failing} of {found.failing} batches")


def test_two_faults_are_named_together_with_the_share_of_each() -> None:
    names = {"IoU for CIoU in the box term", "K + 1 instead of K"}
    found = explained(*names)
    assert {variant.name for variant in found.variants} == names
    assert found.explained == found.failing
    assert len(found.steps) == 2
    assert found.steps[-1] == found.failing


def test_an_older_release_with_a_fault_is_named_as_that_release() -> None:
    batches = [case for case in drawn() if case.spec.reg_max == 1 or len(case.boxes)]
    contender = with_faults("Ultralytics 8.0.101 to before 8.4.0", "gains left out")
    found = explain_answers(answers(contender, batches), limits=FEW)
    assert found.sentence().startswith("is Ultralytics 8.0.101 to before 8.4.0, but gains left out [7]: explains ")
    assert found.explained == found.failing


def test_a_constant_factor_is_named_where_it_is_the_same_on_all_batches() -> None:
    found = explain_answers(answers(after(lambda loss: loss * loss.new_tensor([1.0, 1.0023, 1.0]))), limits=FEW)
    assert found.sentence().startswith("cls_loss and its gradient are 1.0023 times what they should be [7]: explains ")
    assert found.explained == found.failing


def test_a_constant_factor_is_named_under_the_rule_for_ties_that_a_batch_shows() -> None:
    """A candidate that shows nothing but its loss is taken to have the reference's rule, and has the other."""
    spec = LossSpec(num_classes=1, reg_max=4, strides=(8,), topk=3)
    four_equal_anchors = [Case(spec, (64, side), 1, (Box(0, 0, 32, 32, 24, 24),), Prediction("zeros")) for side in (64, 72, 80)]
    recorded = answers(after(lambda loss: loss * loss.new_tensor([1.0, 1.0, 2.0]), "stable"), four_equal_anchors)
    by_rule = [[AnsweredBatch(one).outcome((), ties=ties).gradients["boxes"] for ties in RULES] for one in recorded]
    assert not all(torch.equal(stable, reference) for stable, reference in by_rule)
    found = explain_answers(recorded, limits=FEW)
    assert found.sentence().startswith("dfl_loss and its gradient are 2 times what they should be [7]: explains ")
    assert found.explained == found.failing


def test_a_factor_that_varies_is_not_named() -> None:
    found = explain_answers(answers(after(lambda loss: loss * (1 + 1e-3 * loss.detach().sum()))), limits=FEW)
    assert not found.named
    assert found.sentence().startswith("not explained")


def test_a_variant_that_changes_an_agreeing_batch_explains_nothing() -> None:
    """The candidate is wrong for one number of images, where a variant gives its numbers, and right for all others."""

    def factory(spec: Any) -> Any:
        right, wrong = (VariedCriterion(spec, variants, "reference") for variants in ((), (named("every box taken as class 0"),)))
        return lambda preds, batch: (wrong if len(preds["scores"]) == 1 else right)(preds, batch)

    found = explain_answers(answers(Contender("sometimes", "", factory)), limits=FEW)
    assert found.failing
    assert "class 0" not in found.what()


def test_the_counter_proof_counts_batches_and_names_the_rest() -> None:
    recorded = answers(with_faults("K + 1 instead of K"))
    proof = counter_proof(Explanation((named("K + 1 instead of K"),)), recorded)
    assert (proof.agree, proof.of, proof.remainder) == (len(recorded), len(recorded), ())
    without = counter_proof(Explanation(), recorded)
    assert 0 < without.agree < without.of
    assert len(without.remainder) == without.of - without.agree


def test_nothing_differs() -> None:
    found = explain_answers(answers(with_faults()), limits=FEW)
    assert (found.failing, found.named) == (0, False)
    assert found.sentence() == "no batch differs by more than rounding"


def test_torch_is_left_as_it_was() -> None:
    before = torch.get_default_dtype()
    explained("K + 1 instead of K")
    assert torch.get_default_dtype() is before
