"""Batches that once failed: saved so that they can be read, found again, and judged on every test run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.comparison.compare import compare
from oracle.comparison.registry import load_candidate, shipped
from oracle.contract.verdict import Verdict
from properties.differential.saved_cases import Saved, all_saved, load, read
from twinloss import LossSpec

CASE = Case(LossSpec(num_classes=2, reg_max=4, strides=(8,), topk=3), (64, 64), 1, (Box(0, 1, 30, 30, 40, 40),), Prediction("near"))
SAVED = Saved(CASE, Setting("float32"), "mine:make", "mine:make differs", {"mine:make": "mine 1.0", "reference": "ultralytics 8.4.190"})
COMMITTED = list(all_saved())


@pytest.mark.parametrize("saved", COMMITTED, ids=[saved.case.digest for saved in COMMITTED])
def test_those_who_are_right_agree_on_every_committed_case(saved: Saved) -> None:
    ours = shipped()
    names = ("reference_silent", "silent", "other_rounding", "other_rounding_silent")
    strangers = [load_candidate(f"properties.selfcheck.sample_candidates:{name}") for name in names]
    setting = Setting(saved.setting.dtype, saved.setting.autocast)
    comparison = compare(saved.case, setting, [ours["reference"], ours["twin"], *strangers], ours["reference"])
    assert comparison.verdict is not Verdict.DIFFER, comparison.report()


def test_there_are_committed_cases() -> None:
    assert len(COMMITTED) >= 1


def test_a_file_is_named_by_its_content_and_gives_the_batch_back(tmp_path: Path) -> None:
    path = SAVED.write(tmp_path)
    assert path.name == f"{CASE.digest}.json"
    assert read(path) == SAVED
    assert load(CASE.digest[:5], tmp_path) == SAVED
    record = json.loads(path.read_text("utf-8"))
    assert record["versions"]["reference"] == "ultralytics 8.4.190"
    assert record["case"]["boxes"] == [[0, 1, 30.0, 30.0, 40.0, 40.0]]


def test_an_unknown_digest_is_an_error_that_says_what_there_is(tmp_path: Path) -> None:
    SAVED.write(tmp_path)
    with pytest.raises(ValueError, match=f"there is no saved case 'ffff' .* saved are: {CASE.digest}"):
        load("ffff", tmp_path)


def test_a_file_of_another_version_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = SAVED.write(tmp_path)
    path.write_text(path.read_text("utf-8").replace('"spread"', '"spred"'))
    with pytest.raises(ValueError, match="is not a saved case of this version of the suite"):
        read(path)
