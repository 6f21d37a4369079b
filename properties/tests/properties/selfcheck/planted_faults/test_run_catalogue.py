"""A run of the catalogue records what each fault shows; a harmless change survives; a fault that raises is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from oracle.cases.case import Setting
from oracle.tools.progress import ProgressFile
from properties.differential.plan import GeneratedShare
from properties.selfcheck.planted_faults import CATALOGUE, Fault
from properties.selfcheck.planted_faults.fault import Patch
from properties.selfcheck.planted_faults.run_catalogue import END_TO_END, SOUND, STAGES, FaultResult, PlantingError, run_catalogue, shares
from reports.faults.report import SCHEMA, build
from reports.rows import validated
from twinloss import loss
from twinloss.terms import classification

DOUBLE = Setting("float64")
FEW = [GeneratedShare(DOUBLE, "tiny", 2, 0, ())]


def test_a_harmless_change_survives_and_the_twin_gives_no_alarm() -> None:
    harmless = Fault("another block size", "", "", patches=(Patch(classification, "BLOCK", lambda _: 1 << 10),))
    results = {(result.fault, result.mode): result for result in run_catalogue([harmless], FEW)}
    assert set(results) == {(name, mode) for name in (SOUND, harmless.name) for mode in (STAGES, END_TO_END)}
    assert not any(result.caught for result in results.values())
    assert all(result.examples > 0 for result in results.values())


def test_a_fault_that_raises_is_not_caught() -> None:
    def make(_: object) -> Callable[..., object]:
        def broken(*_: object) -> object:
            raise AttributeError("no such stage any more")

        return broken

    gone = Fault("gone", "", "", patches=(Patch(loss, "prepare_targets", make),))
    with pytest.raises(PlantingError, match="'gone' does not run, plant it anew: raised AttributeError"):
        run_catalogue([gone], FEW)


def test_a_run_ends_with_the_last_caught_fault_and_records_the_batch(tmp_path: Path) -> None:
    results = run_catalogue(
        [fault for fault in CATALOGUE if fault.name in ("sum of weights at least 2", "gains swapped")],
        FEW,
        notes=ProgressFile(tmp_path / "0.jsonl"),
    )
    found = [result for result in results if result.fault != SOUND]
    assert all(result.caught for result in found)
    noted = [json.loads(line)["differing"] for line in (tmp_path / "0.jsonl").read_text("utf-8").splitlines()]
    assert sorted(tuple(one) for differing in noted for one in differing) == sorted((result.mode, result.stage) for result in found)
    assert all(result.case and result.stage and result.setting == "float64" for result in found)


def test_shares_take_turns_and_add_up_to_the_default_run() -> None:
    taken = list(shares(0.1))
    assert len({(share.setting, share.profile) for share in taken[:9]}) == 9
    assert sum(share.examples for share in taken if share.setting == DOUBLE) == 125


def rows(*results: FaultResult) -> pd.DataFrame:
    return validated(pd.DataFrame([dataclasses.asdict(result) for result in results]), SCHEMA, Path("rows.parquet"))


def test_the_report_is_red_for_a_survivor_and_for_a_false_alarm() -> None:
    caught = FaultResult("a", "A.", "1", STAGES, caught=True, stage="loss", quantity="loss", examples=3)
    alive, twin = FaultResult("b", "B.", "2", STAGES, caught=False, examples=9), FaultResult(SOUND, "", "", STAGES, caught=False)
    assert build(rows(caught, twin)).tone == "good"
    assert build(rows(caught, alive, twin)).headline == "1 of 2 hunts ended without a catch"
    assert build(rows(caught, dataclasses.replace(twin, caught=True))).tone == "bad"
