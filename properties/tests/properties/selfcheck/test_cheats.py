"""Cheating candidates are named; the slow ones, which the soak finds, are run by ``nox -s cheats``."""

from __future__ import annotations

import pytest

from oracle.cases.case import Setting
from oracle.comparison.compare import compare
from oracle.comparison.conduct import STAGE
from oracle.comparison.registry import load_isolated
from oracle.contract.contender import Contender
from oracle.ladder.questions import scene
from properties.differential.soak import Soak
from properties.selfcheck.cheats import CHEATS, MODULE, Cheat, named
from twinloss import DetectionLoss

QUICK = ("patches_the_judge", "resets_seeds", "lies_by_a_subclass", "mutates_after_return", "closes_streams", "reads_uninitialised_memory")


@pytest.mark.parametrize("cheat", [one for one in CHEATS if one.name in QUICK], ids=lambda cheat: cheat.name)
def test_a_cheat_is_named(cheat: Cheat) -> None:
    candidate = load_isolated(f"{MODULE}:{cheat.name}")
    found = [
        finding
        for seed in (1, 2)
        for finding in compare(scene(seed, images=1, boxes=2), Setting("float32"), [candidate], None, (STAGE, "loss")).results[0].findings
    ]
    assert named(cheat, found), found


def test_the_catalogue_has_at_least_ten() -> None:
    assert len({cheat.name for cheat in CHEATS}) >= 10


def test_the_soak_passes_the_twin_and_finds_what_counts_its_calls() -> None:
    twin = Contender("twin", "", lambda spec: DetectionLoss(spec, backend="torch"), arithmetic="float32")
    assert not any(one.finding for one in Soak(twin, calls=3).judgements())
    calls: list[int] = []

    def counting(spec: object) -> object:
        sound = DetectionLoss(spec, backend="torch")  # type: ignore[arg-type]

        def call(preds: object, batch: object) -> object:
            calls.append(0)
            loss, items = sound(preds, batch)  # type: ignore[arg-type]
            return (loss * 1.5 if len(calls) > 8 else loss), items

        return call

    late = Contender("late", "", counting, arithmetic="float32")  # type: ignore[arg-type]
    (judgement,) = Soak(late, calls=10).judgements()
    assert judgement.finding is not None
    assert judgement.finding.quantity == "depends on history"
    assert "after 1" in judgement.finding.what
