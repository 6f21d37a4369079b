"""The search compares a batch once, however often Hypothesis draws it, and goes on until the share has as many as it was to have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st

from oracle.cases.case import Case, Prediction, Setting
from oracle.contract.verdict import Verdict
from properties.differential import test_generated as generated
from properties.differential.plan import GeneratedShare
from properties.differential.search import Search, SearchEnded
from twinloss import LossSpec


def case(seed: int) -> Case:
    return Case(LossSpec(num_classes=1, reg_max=4, strides=(8,)), (32, 32), 1, (), Prediction("random", seed))


@pytest.mark.parametrize(("different", "asked", "found"), [(300, 60, 60), (8, 60, 8), (300, 1, 1)], ids=["many", "few", "one"])
def test_a_share_counts_different_batches(different: int, asked: int, found: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most draws repeat an earlier one, since only the first of the numbers matters."""
    compared: list[str] = []

    def compare(drawn: Case, *_: Any) -> Any:
        compared.append(drawn.digest)
        agreed = SimpleNamespace(verdict=Verdict.AGREE, error_over_allowance=0.1 + len(drawn.digest) / 1e3, margin=2.0)
        return SimpleNamespace(verdict=Verdict.AGREE, results=[SimpleNamespace(judgements=[agreed])])

    drawn = st.tuples(st.integers(0, different - 1), st.integers()).map(lambda numbers: case(numbers[0]))
    monkeypatch.setattr(generated, "TASKS", {"detect": SimpleNamespace(cases=lambda _: drawn)})
    recorder: Any = SimpleNamespace(compare=compare, all_left_out=lambda _: "", hung={}, seed=1, database=None)
    generated.test_generated(GeneratedShare(Setting("float32"), "tiny", asked, 0, ("twin",)), recorder)
    assert len(compared) == len(set(compared)) == found


def test_a_batch_that_ends_the_search_is_counted() -> None:
    hangs = SimpleNamespace(verdict=Verdict.DIFFER, results=[SimpleNamespace(contender=SimpleNamespace(name="mine"))])
    recorder: Any = SimpleNamespace(
        compare=lambda *_: hangs, hung={"mine": "it hangs"}, conclude=lambda failed, asked: f"{len(failed)} of {asked}"
    )
    search = Search(recorder, GeneratedShare(Setting("float32"), "tiny", 9, 0, ("mine",)))
    with pytest.raises(SearchEnded, match="a contender that hangs is not called again"):
        search.judge(case(0))
    assert search.conclusion() == "1 of 1"
