"""Planted faults are explained rightly or not at all: a small part of what ``nox -s explained`` measures."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from oracle.cases.case import Case
from properties.selfcheck.explained_faults import NOT_EXPLAINED, NOT_SHOWN, RIGHT, Measured, batches, both, measured, pairs
from properties.selfcheck.planted_faults import CATALOGUE
from properties.selfcheck.planted_faults.fault import Fault, Result

SINGLE = {
    "one candidate less": "K - 1 instead of K [5.4]",
    "contested anchors to the best metric": "conflicts go to the best metric among pickers [5.5]",
    "box gain of 7.499": "box_loss and its gradient are 0.999867 times what they should be [7]",
    "α + 0.01": "α + 0.01 [5.3]",
    "gradient of boxes clipped at 0.5": "the gradient of boxes clipped at 0.5 [8]",
}


@functools.cache
def drawn(run_seed: int) -> tuple[Case, ...]:
    return tuple(batches(16, run_seed))


def fault(name: str) -> Fault:
    return next(fault for fault in CATALOGUE if fault.name == name)


def found(planted: Fault) -> Measured:
    torch.set_num_threads(1)
    return measured(planted, drawn(11), drawn(12))


@pytest.mark.parametrize("name", SINGLE)
def test_a_fault_is_named_and_confirmed_on_fresh_batches(name: str) -> None:
    shown = found(fault(name))
    assert shown.verdict == RIGHT, shown
    assert shown.explanation.startswith(SINGLE[name])
    assert shown.agree == shown.fresh


def test_two_faults_are_named_together() -> None:
    shown = found(both(fault("one candidate less"), fault("gradient of boxes clipped at 0.5")))
    assert shown.verdict == RIGHT, shown
    assert all(part in shown.explanation for part in ("K - 1 instead of K", "clipped at 0.5"))


@pytest.mark.parametrize("name", ["no more than 9 cells a row inside", "K anchors of each part of the pyramid"])
def test_what_no_definition_gives_is_not_named(name: str) -> None:
    assert found(fault(name)).verdict in (NOT_EXPLAINED, NOT_SHOWN)


def doubled(name: str) -> Fault:
    def after(result: Result, _preds: Any, _batch: Any) -> Result:
        return result[0] * 2, result[1]

    return Fault(name, "", name, after=after)


def test_a_pair_has_both_changes_and_is_drawn_again_from_a_seed() -> None:
    pair = both(doubled("first"), doubled("second"))
    assert pair.name == "first + second"
    assert pair.after is not None
    assert float(pair.after((torch.ones(1), {}), None, None)[0]) == 4
    names = [one.name for one in pairs([doubled(str(n)) for n in range(20)], 3, run_seed=1)]
    assert names == [one.name for one in pairs([doubled(str(n)) for n in range(20)], 3, run_seed=1)]
    assert len(set(names)) == 3
