"""Batches that once failed: saved so that they can be read, found again, and judged on every test run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.comparison.compare import compare
from oracle.comparison.registry import load_candidate, shipped
from oracle.contract.verdict import Verdict
from properties.differential.saved_cases import SavedCase, all_saved, load, read
from properties.tasks import task_of
from properties.training.captured_batches import load_all
from twinloss import LossSpec

CASE = Case(LossSpec(num_classes=2, reg_max=4, strides=(8,), topk=3), (64, 64), 1, (Box(0, 1, 30, 30, 40, 40),), Prediction("near"))
SAVED = SavedCase(CASE, Setting("float32"), "mine:make", "mine:make differs", {"mine:make": "mine 1.0", "reference": "ultralytics 8.4.190"})
COMMITTED = list(all_saved())


@pytest.mark.parametrize("saved", COMMITTED, ids=[saved.case.digest for saved in COMMITTED])
def test_those_who_are_right_agree_on_every_committed_case(saved: SavedCase) -> None:
    ours = shipped(task_of(saved.case).name)
    names = ("reference_silent", "silent", "other_rounding", "other_rounding_silent")
    candidates = [load_candidate(f"properties.selfcheck.sample_candidates:{name}") for name in names]
    setting = Setting(saved.setting.dtype, saved.setting.autocast)
    right = {"reference", "twin", saved.contender} & set(ours)
    comparison = compare(saved.case, setting, [*(ours[name] for name in sorted(right)), *candidates], ours["reference"])
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


# Files that this suite did not write, or not so.

Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> Case:
    """The case read back from its JSON, after a change of it."""
    record = json.loads(CASE.to_json())
    change(record)
    return Case.from_json(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("spec"), r"object missing required field `spec`"),
        (lambda r: r.update(spec=[]), r"spec: expected `object`, got `array`"),
        (lambda r: r["spec"].update(topk="3"), r"spec\.topk: expected `int`, got `str`"),
        (lambda r: r["spec"].update(topk=True), r"spec\.topk: expected `int`, got `bool`"),
        (lambda r: r["spec"].update(gains=[1, 2]), r"LossSpec\.gains is \(1\.0, 2\.0\); give three"),
        (lambda r: r["spec"].update(lengthen="third"), r"spec\.lengthen: invalid enum value 'third'"),
        (lambda r: r["spec"].update(topk=0), r"LossSpec\.topk is 0"),
        (lambda r: r["spec"].update(strides=[]), r"LossSpec\.strides is \(\)"),
        (lambda r: r["spec"].update(class_weights=[1.0]), r"LossSpec\.class_weights has 1 values"),
        (lambda r: r.update(image_size=[64]), r"image_size: expected `array` of length 2"),
        (lambda r: r.update(image_size=[64, 64.5]), r"image_size\[1\]: expected `int`"),
        (lambda r: r.update(image_size=[-64, 64]), r"image_size \(-64, 64\); each must be at least 1"),
        (lambda r: r.update(image_size=[1 << 40, 1 << 40]), r"logits; at most 2,147,483,648 can be held"),
        (lambda r: r.update(batch_size=10**30), r"logits; at most"),
        (lambda r: r.update(batch_size=0), r"batch_size is 0"),
        (lambda r: r.update(batch_size=None), r"batch_size: expected `int`, got `null`"),
        (lambda r: r.update(boxes={}), r"boxes: expected `array`, got `object`"),
        (lambda r: r.update(boxes=[[0, 1, 2, 3, 4]]), r"boxes\[0\]: expected `array` of length 6"),
        (lambda r: r.update(boxes=[[0, 1, 2, 3, 4, "5"]]), r"boxes\[0\]\[5\]: expected `float`, got `str`"),
        (lambda r: r.update(boxes=[[0, 1, 2, 3, 4, float("nan")]]), r"not JSON \(line 1\)"),
        (lambda r: r.update(boxes=[[0, 0, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5]]), r"boxes\[1\] has image 1 and class 0; .* counted from 0"),
        (lambda r: r.update(boxes=[[0, -1, 2, 3, 4, 5]]), r"boxes\[0\] has image 0 and class -1"),
        (lambda r: r["prediction"].update(kind="guess"), r"prediction\.kind: invalid enum value 'guess'"),
        (lambda r: r["prediction"].update(kind="inline"), r"inline boxes hold 0 numbers"),
        (lambda r: r["prediction"].update(kind="inline", inline={"boxes": "é", "scores": "é"}), r"ASCII"),
        (lambda r: r["prediction"].update(spread="wide"), r"prediction\.spread: expected `float`"),
        (lambda r: r["prediction"].update(spred=1.0), r"prediction: object contains unknown field `spred`"),
        (lambda r: r.update(tags=[1]), r"tags\[0\]: expected `str`"),
    ],
)
def test_a_case_that_is_not_one_names_the_field(change: Change, message: str) -> None:
    with pytest.raises(ValueError, match=rf"not a case of this version of the suite: .*{message}"):
        changed(change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", "expected `object`, got `array`"),
        ("[" * 100_000, "expected `object`, got `array`"),
        ('{"prediction": {"kind": "near", "inline": ' + '{"a":' * 100_000, "nested too deeply"),
        ('{"spec":\n {"num_classes": 1e400}}', "not JSON|out of range|expected `int`"),
        ('{\n"spec": {,', r"not JSON \(line 2\)"),
        ("\ud800", "not JSON"),
    ],
)
def test_text_that_is_no_case_is_an_error_of_one_kind(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Case.from_json(text)


def test_numbers_stay_as_they_are_written_and_so_does_the_digest() -> None:
    case = dataclasses.replace(CASE, spec=dataclasses.replace(CASE.spec, gains=(7, 1, 2)))
    assert Case.from_json(case.to_json()).digest == case.digest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{}", "missing required field"),
        (b"[" * 100_000, "expected `object`, got `array`"),
        (b'{"case": ' + b'{"a":' * 100_000, "nested too deeply"),
        (b"\xff\xfe{\x00}\x00", "is UTF-16 text; save it as UTF-8"),
        (b"{\n\xe9}", r"line 2: byte 0xe9 is not UTF-8"),
        (b"PK\x03\x04\n\x00", r"line 2: a zero byte"),
    ],
)
def test_a_file_that_is_no_saved_case_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "0123456789ab.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"0123456789ab\.json.*{message}"):
        load("0123", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["setting"].update(dtype="float31"), r"setting\.dtype: invalid enum value 'float31'"),
        (lambda r: r["setting"].update(device="abacus"), r"abacus"),
        (lambda r: r.update(found="text"), r"found: expected `array`, got `str`"),
        (lambda r: r.update(contender=7), r"contender: expected `str`"),
        (lambda r: r.update(case=None), r"case: expected `object`, got `null`"),
        (lambda r: r["case"].update(batch_size="2"), r"batch_size: expected `int`, got `str`"),
    ],
)
def test_a_saved_case_with_another_field_is_named(change: Change, message: str, tmp_path: Path) -> None:
    path = SAVED.write(tmp_path)
    record = json.loads(path.read_text("utf-8"))
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=rf"{path.name} is not a saved case of this version of the suite: .*{message}.*; remove it"):
        read(path)


def test_a_saved_case_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "aa.json").mkdir()
    with pytest.raises(ValueError, match=r"aa\.json cannot be read \(Is a directory\)"):
        read(tmp_path / "aa.json")
    with pytest.raises(ValueError, match="there is no saved case 'aa'"):
        load("aa", tmp_path)


def test_a_name_or_path_of_the_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = SAVED.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in (path.stem, path.stem[:4], path.name, str(path), f"./{path.name}"):
        assert load(name, tmp_path) == SAVED


@pytest.mark.parametrize("name", ["../outside", "../outside.json", "{outside}", "sub/../../outside.json", "", ".", "/", "a\\b", "\0/x"])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    SAVED.write(folder)
    SAVED.write_to(tmp_path / "outside.json")
    with pytest.raises(
        ValueError, match=r"names no file in .*; give a digest or file name of that folder, or another folder with --cases FOLDER"
    ):
        load(name.format(outside=tmp_path / "outside.json"), folder)


def test_a_pattern_is_no_name(tmp_path: Path) -> None:
    SAVED.write(tmp_path)
    for name in ("*", "?", f"[{CASE.digest[0]}]"):
        with pytest.raises(ValueError, match="there is no saved case"):
            load(name, tmp_path)


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    SAVED.write_to(tmp_path / "outside.json")
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "aa.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(ValueError, match="leads out of the folder"):
        load("aa", tmp_path / "cases")


def test_a_case_from_a_training_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "aa.json").write_text('{"spec": {}}')
    with pytest.raises(ValueError, match=r"aa\.json: .*missing required field.*; remove it, or run nox -s train again"):
        list(load_all(tmp_path))
