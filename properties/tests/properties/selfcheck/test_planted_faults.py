"""The planted faults that any batch shows are caught at once; a fault that is none survives; the twin is sound again after each call."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from oracle.cases.case import Case, Prediction, Setting
from oracle.comparison.compare import compare
from oracle.contract.run import run_loss
from oracle.contract.verdict import Verdict
from oracle.tools.progress import Notes
from properties.differential.plan import GeneratedShare
from properties.differential.shrink import shrunk
from properties.divergences.small_cases import box, plain
from properties.selfcheck.mutants import mutants, sampled
from properties.selfcheck.planted_faults import CATALOGUE, Fault, hunt
from properties.selfcheck.planted_faults.fault import Patch
from properties.selfcheck.planted_faults.hunt import END_TO_END, SOUND, STAGES, Catch, PlantingError
from reports.faults.report import SCHEMA, build
from reports.rows import validated
from twinloss import DetectionLoss, loss
from twinloss.terms import classification

DOUBLE = Setting("float64")
FEW = [GeneratedShare(DOUBLE, "tiny", 2, 0, ())]
NEAR = Prediction("near", seed=1, spread=0.25)
# Two images, one of them with overlapping boxes of three classes, one at the border, one short.
CASE = dataclasses.replace(
    plain(
        box(4, 4, 44, 36),
        box(8, 6, 50, 40, label=2),
        box(-6, 30, 20, 61, label=1),
        box(30, 40, 35, 46, label=2),
        box(20, 20, 60, 30, image=1),
        images=2,
        size=(64, 96),
        num_classes=3,
        reg_max=16,
        strides=(8, 16),
        topk=3,
    ),
    prediction=NEAR,
)
QUICK = {
    "one candidate more": "assign",
    "α + 0.01": "metrics",
    "bins' shares swapped": "loss_given",
    "gains swapped": "loss_given",
    "anchors off by 1e-4 cells": "anchors",
    "width and height of the image swapped": "targets",
    "right and bottom swapped": "decode",
    "no side lengthened": "candidates",
    "weight without O": "assign",
    "weight too large by 1e-4": "assign",
    "no factor of images": "loss_given",
    "α_c differentiated": "loss_given",
    "gradient through S": "loss_given",
}


def named(name: str) -> Fault:
    (fault,) = [fault for fault in CATALOGUE if fault.name == name]
    return fault


@pytest.mark.parametrize(("name", "stage"), QUICK.items())
def test_a_fault_is_caught_at_its_stage_and_end_to_end(name: str, stage: str) -> None:
    fault = named(name)
    seen, blind = compare(CASE, DOUBLE, [fault.contender(), fault.blind()]).said
    assert (seen.verdict, seen.findings[0].stage) == (Verdict.DIFFER, stage)
    assert (blind.verdict, blind.findings[0].stage) == (Verdict.DIFFER, "loss")


def test_the_twin_itself_is_not() -> None:
    sound = Fault(name=SOUND, violates="", section="")
    assert [said.verdict for said in compare(CASE, DOUBLE, [sound.contender(), sound.blind()]).said] == [Verdict.AGREE] * 2


def test_the_catalogue_names_what_it_violates() -> None:
    assert len(CATALOGUE) >= 60
    assert len({fault.name for fault in CATALOGUE}) == len(CATALOGUE)
    assert all(fault.violates.endswith(".") and fault.section for fault in CATALOGUE)
    assert all(fault.patches or fault.spec or fault.before or fault.after for fault in CATALOGUE)


@pytest.mark.parametrize("fault", CATALOGUE, ids=lambda fault: fault.name)
def test_every_fault_runs_and_is_gone_after_the_call(fault: Fault) -> None:
    sound = run_loss(DetectionLoss(CASE.spec), CASE.build(), Setting())
    faulty = run_loss(fault.criterion(CASE.spec), CASE.build(), Setting())
    again = run_loss(DetectionLoss(CASE.spec), CASE.build(), Setting())
    assert faulty.loss.shape == (3,)
    assert torch.equal(sound.loss, again.loss)
    assert torch.equal(sound.grad_boxes, again.grad_boxes)


def test_what_is_no_fault_survives_and_the_twin_gives_no_alarm() -> None:
    harmless = Fault(name="another block size", violates="", section="", patches=(Patch(classification, "BLOCK", lambda _: 1 << 10),))
    catches = {(catch.fault, catch.mode): catch for catch in hunt.hunt([harmless], FEW)}
    assert set(catches) == {(name, mode) for name in (SOUND, harmless.name) for mode in (STAGES, END_TO_END)}
    assert not any(catch.caught for catch in catches.values())
    assert all(catch.examples > 0 for catch in catches.values())


def test_a_fault_that_raises_is_no_catch() -> None:
    def make(_: object) -> Callable[..., object]:
        def broken(*_: object) -> object:
            raise AttributeError("no such stage any more")

        return broken

    gone = Fault(name="gone", violates="", section="", patches=(Patch(loss, "prepare_targets", make),))
    with pytest.raises(PlantingError, match="'gone' does not run, plant it anew: raised AttributeError"):
        hunt.hunt([gone], FEW)


def test_a_hunt_ends_with_the_last_catch_and_says_where(tmp_path: Path) -> None:
    catches = hunt.hunt([named("sum of weights at least 2"), named("gains swapped")], FEW, notes=Notes(tmp_path / "0.jsonl"))
    found = [catch for catch in catches if catch.fault != SOUND]
    assert all(catch.caught for catch in found)
    noted = [json.loads(line)["differing"] for line in (tmp_path / "0.jsonl").read_text("utf-8").splitlines()]
    assert sorted(tuple(one) for differing in noted for one in differing) == sorted((catch.mode, catch.stage) for catch in found)
    assert all(catch.case and catch.stage and catch.setting == "float64" for catch in found)


def test_shares_take_turns_and_add_up_to_the_default_run() -> None:
    shares = list(hunt.shares(0.1))
    assert len({(share.setting, share.profile) for share in shares[:9]}) == 9
    assert sum(share.examples for share in shares if share.setting == DOUBLE) == 125


def rows(*catches: Catch) -> pd.DataFrame:
    return validated(pd.DataFrame([dataclasses.asdict(catch) for catch in catches]), SCHEMA, Path("rows.parquet"))


def test_the_report_is_red_for_a_survivor_and_for_a_false_alarm() -> None:
    caught = Catch("a", "A.", "1", STAGES, caught=True, stage="loss", quantity="loss", examples=3)
    alive, twin = Catch("b", "B.", "2", STAGES, caught=False, examples=9), Catch(SOUND, "", "", STAGES, caught=False)
    assert build(rows(caught, twin)).tone == "good"
    assert build(rows(caught, alive, twin)).headline == "1 of 2 hunts ended without a catch"
    assert build(rows(caught, dataclasses.replace(twin, caught=True))).tone == "bad"


def test_a_sample_of_mutants_is_the_same_for_a_seed_and_changes_more_than_annotations() -> None:
    found = sampled(["impl/twinloss/ragged.py"], 5, seed=1)
    assert found == sampled(["impl/twinloss/ragged.py"], 5, seed=1) != sampled(["impl/twinloss/ragged.py"], 5, seed=2)
    assert len({mutant.operator for mutant in found}) == 5
    assert not list(mutants("properties/divergences/input_edits.py", "core/ReplaceBinaryOperator_BitOr_Add"))


def test_a_failing_batch_shrinks_to_what_makes_it_fail() -> None:
    def fails(case: Case) -> bool:
        return any(box.label == 2 for box in case.boxes) and 16 in case.spec.strides

    least = shrunk(CASE, fails, 5.0)
    assert fails(least)
    assert (least.batch_size, len(least.boxes), least.spec.strides) == (1, 1, (16,))
    assert least.num_anchors == 1
    assert shrunk(CASE, fails, 0.0) == CASE
