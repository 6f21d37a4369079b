"""The sample of mutants is repeatable."""

from __future__ import annotations

from properties.selfcheck.mutants import mutants, sampled


def test_a_sample_of_mutants_is_the_same_for_a_seed_and_changes_more_than_annotations() -> None:
    found = sampled(["impl/twinloss/assignment/ragged.py"], 5, seed=1)
    assert found == sampled(["impl/twinloss/assignment/ragged.py"], 5, seed=1) != sampled(["impl/twinloss/assignment/ragged.py"], 5, seed=2)
    assert len({mutant.operator for mutant in found}) == 5
    assert not list(mutants("properties/divergences/input_edits.py", "core/ReplaceBinaryOperator_BitOr_Add"))
