"""Inputs of a candidate are new before each timed call; another revision of the twin reads the definition."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from random import Random

import pytest

from benches.measure.case_files import LoadedCase, load_spec, save
from benches.measure.timing import CallSetting, InterleavedTiming
from benches.plan.contenders import AUTO_TWIN, BenchContender
from oracle.cases.build import build
from oracle.cases.case import Setting
from oracle.ladder.questions import scene

CASE = scene(1, images=1, boxes=1)


def loaded() -> LoadedCase:
    return LoadedCase(*build(CASE, Setting("float32")))


def test_renewed_predictions_are_others_and_near_the_old_ones() -> None:
    inputs = loaded()
    before = [leaf.detach().clone() for leaf in inputs.leaves()]
    inputs.renew(Random(1))
    for old, new in zip(before, inputs.leaves(), strict=True):
        changed = (new.detach() - old).abs()
        assert (changed[old != 0] > 0).float().mean() > 0.9
        assert (changed <= 1e-3 * old.abs()).all()
        assert new.is_leaf
        assert new.requires_grad


def test_inputs_are_renewed_where_a_candidate_is_timed_alone() -> None:
    for contenders, renewed in (([AUTO_TWIN], False), ([AUTO_TWIN, BenchContender("twinloss:DetectionLoss", "own")], True)):
        inputs = loaded()
        timing = InterleavedTiming(contenders, CASE.spec, inputs, CallSetting())
        before = inputs.preds["boxes"].detach().clone()
        timing.round()
        assert bool((inputs.preds["boxes"].detach() != before).any()) is renewed


def test_a_definition_is_read_by_a_revision_that_lacks_a_field_at_its_default(tmp_path: Path) -> None:
    file = save(CASE, tmp_path) / "case.json"
    record = json.loads(file.read_text("utf-8"))
    later = record["spec"] | {"of a later revision": "as always"}
    file.write_text(json.dumps(record | {"spec": later, "usual": [*record["usual"], "of a later revision"]}), "utf-8")
    assert load_spec(file.parent) == CASE.spec
    file.write_text(json.dumps(record | {"spec": later}), "utf-8")
    with pytest.raises(ValueError, match="has no of a later revision; compare with one that has"):
        load_spec(file.parent)
    file.write_text(json.dumps(record | {"spec": record["spec"] | {"num_classes": 7}}), "utf-8")
    assert load_spec(file.parent) == dataclasses.replace(CASE.spec, num_classes=7)
