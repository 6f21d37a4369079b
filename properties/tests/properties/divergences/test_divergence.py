"""Every entry of the register holds, and the documentation's table shows all of them."""

from __future__ import annotations

import dataclasses

import pytest

from properties.divergences import REGISTER, Divergence, contenders
from properties.divergences.table import markdown


@pytest.mark.parametrize("entry", REGISTER, ids=lambda entry: entry.name)
def test_the_answers_are_the_recorded_ones(entry: Divergence) -> None:
    stale = {
        name: f"recorded {entry.answers[name]!r}, today {found!r}"
        for name, found in entry.observed().items()
        if found != entry.answers[name]
    }
    assert not stale, f"the entry {entry.name} is stale: {stale}"


@pytest.mark.parametrize("entry", REGISTER, ids=lambda entry: entry.name)
def test_an_entry_records_different_answers(entry: Divergence) -> None:
    assert {"definition", "reference", "twin"} <= set(entry.answers) <= set(contenders())
    answers = {*entry.answers.values(), entry.expected or entry.answers["twin"]}
    assert len(answers) > 1, "all answers are equal and expected: that is not a divergence"
    assert all((entry.what.endswith("."), entry.why.endswith("."), entry.section))


def test_names_are_unique() -> None:
    assert len({entry.name for entry in REGISTER}) == len(REGISTER)


def test_an_entry_with_another_answer_is_stale() -> None:
    entry = REGISTER[0]
    # With K = 2 the third box picks the anchor itself, so that both rules give the same answer.
    gone = dataclasses.replace(entry, case=dataclasses.replace(entry.case, spec=dataclasses.replace(entry.case.spec, topk=2)))
    assert gone.observed() != gone.answers


def test_an_error_is_an_answer() -> None:
    entry = next(entry for entry in REGISTER if entry.name == "class-beyond-classes")
    assert entry.observed() == {"definition": "ValueError", "reference": "IndexError", "twin": "ValueError"}


def test_the_table_has_a_row_for_each_entry_and_no_cell_breaks_it() -> None:
    head, rule, *rows = markdown().splitlines()
    assert len(rows) == len(REGISTER)
    assert {row.count(" | ") for row in rows} == {head.count(" | ")} == {rule.count(" | ")}
