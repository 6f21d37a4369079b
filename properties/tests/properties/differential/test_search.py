"""The search compares a batch once, however often Hypothesis draws it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracle.cases.case import Case, Prediction, Setting
from oracle.contract.verdict import Verdict
from properties.differential.plan import GeneratedShare
from properties.differential.search import PHASES, Search
from twinloss import LossSpec


def case(seed: int) -> Case:
    return Case(LossSpec(num_classes=1, reg_max=4, strides=(8,)), (32, 32), 1, (), Prediction("random", seed))


def test_a_share_counts_different_batches() -> None:
    """Of draws of which most repeat an earlier one, thirty differ."""
    compared: list[str] = []

    def compare(drawn: Case, *_: Any) -> Any:
        compared.append(drawn.digest)
        return SimpleNamespace(verdict=Verdict.AGREE, results=[])

    recorder: Any = SimpleNamespace(compare=compare, all_left_out=lambda _: "", hung={})
    search = Search(recorder, GeneratedShare(Setting("float32"), "tiny", 30, 0, ("twin",)))

    @settings(max_examples=30, database=None, derandomize=True, phases=PHASES, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 31), st.integers())
    def agrees(seed: int, _: int) -> None:
        search.judge(case(seed))

    agrees()
    assert len(compared) == len(set(compared)) == search.asked >= 28
