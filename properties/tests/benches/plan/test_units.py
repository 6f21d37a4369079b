"""The plan of a run: its units and its batches."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benches.measure.case_files import leaves_of, load, load_spec, save
from benches.measure.machine_rates import class_logits, moved_bytes
from benches.plan.contenders import AUTO_TWIN, BASELINE, NATIVE_TWIN, TORCH_TWIN, BenchContender, candidates
from benches.plan.sweeps import SWEEPS, candidate_pairs
from benches.plan.units import SAMPLINGS, units
from benches.plan.workloads import COVER, WORKLOADS, Workload, generated, labelled
from benches.run.campaign import worker_plans
from oracle.cases.build import build
from oracle.cases.case import Setting
from oracle.tools.options import TASKS
from twinloss import DetectionLoss

BOTH = [BASELINE, TORCH_TWIN]
SMALL = Workload("small", "two small images", boxes=5, batch=2, imgsz=64, num_classes=3)


def test_speed_is_asked_about_on_every_kind_of_batch() -> None:
    sizes = {name: (workload.batch, workload.imgsz) for name, workload in WORKLOADS.items()}
    assert {sizes[name][0] for name in sizes} >= {1, 4, 16, 64}
    assert {imgsz for _, imgsz in sizes.values()} == {640, 1280}
    assert {workload.num_classes for workload in WORKLOADS.values()} >= {1, 365, None}
    assert {workload.reg_max for workload in WORKLOADS.values()} == {1, 16}
    assert (WORKLOADS["boxes-300"].batch, WORKLOADS["boxes-1000"].batch, WORKLOADS["xview"].batch) == (16, 4, 1)


@pytest.mark.parametrize(("name", "boxes"), [("empty", 0), ("boxes-300", 16 * 300), ("boxes-1000", 4 * 1000), ("xview", 4967)])
def test_generated_batches_hold_what_they_say(name: str, boxes: int) -> None:
    case = WORKLOADS[name].case()
    assert len(case.boxes) == boxes
    assert case.batch_size == WORKLOADS[name].batch
    per_image = Counter(box.image for box in case.boxes)
    assert set(per_image.values()) <= {boxes // case.batch_size}


@pytest.mark.parametrize("count", [1, 40, 2000])
def test_generated_boxes_lie_inside_and_cover_what_they_should(count: int) -> None:
    boxes = generated(count, 3, 640, 7)
    for box in boxes:
        assert box.w / 2 - 1e-3 <= box.cx <= 640 - box.w / 2 + 1e-3
        assert box.h / 2 - 1e-3 <= box.cy <= 640 - box.h / 2 + 1e-3
        assert 0 <= box.label < 7
    if count > 1:
        cover = sum(box.w * box.h for box in boxes) / (3 * 640**2)
        assert cover == pytest.approx(COVER / 100, rel=0.35)
    assert boxes == generated(count, 3, 640, 7)


def test_labels_wrap_to_the_classes_of_the_workload() -> None:
    labels = {box.label for box in WORKLOADS["classes-1"].case().boxes}
    assert labels == {0}


def test_a_users_labels_become_the_only_workload(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("2 0.5 0.5 0.25 0.5\n0 0.25 0.25 0.1 0.1\n")
    workload = labelled(str(tmp_path), imgsz=128, batch=3)
    case = workload.case()
    assert (case.batch_size, case.image_size, len(case.boxes), case.spec.num_classes) == (3, (128, 128), 6, 3)
    planned = list(units("default", BOTH, [workload]))
    assert {unit.workload.name for unit in planned} == {"labels"}
    assert {unit.heap for unit in planned} == {"steady", "default"}
    assert {unit.setting.name for unit in planned} >= {"float32", "bfloat16", "bfloat16+autocast(bfloat16)", "float16"}


def test_a_folder_may_be_called_like_a_layout(tmp_path: Path) -> None:
    folder = tmp_path / "my-mosaic"
    folder.mkdir()
    (folder / "a.txt").write_text("2 0.5 0.5 0.25 0.5\n")
    assert len(labelled(str(folder), imgsz=128, batch=2).case().boxes) == 2


def test_labels_that_are_not_there_are_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        labelled("nowhere", 640, 16)


@pytest.mark.parametrize("extent", SAMPLINGS)
def test_every_unit_of_a_plan_has_a_name_of_its_own(extent: str) -> None:
    planned = list(units(extent, BOTH))  # type: ignore[arg-type]
    names = Counter(unit.name for unit in planned)
    assert max(names.values()) == 1
    assert all(BASELINE in unit.contenders for unit in planned), "nothing has a ratio without the baseline"


def test_the_default_plan_measures_every_workload_and_both_heaps() -> None:
    planned = list(units("default", [*BOTH, BenchContender("reference", "compile")]))
    plain = [unit for unit in planned if unit.point is None]
    assert {unit.workload.name for unit in plain} == set(WORKLOADS)
    assert Counter(unit.heap for unit in plain)["default"] >= 5
    assert [
        unit.workload.name for unit in planned if any(contender.compiled for contender in unit.contenders) and unit.setting == Setting()
    ] == ["coco"]
    assert {unit.point for unit in planned if unit.point} == set(SWEEPS)


def test_a_gpu_has_no_heap_to_vary() -> None:
    assert {unit.heap for unit in units("full", BOTH, device="cuda")} == {"steady"}
    assert {unit.setting.device for unit in units("full", BOTH, device="cuda")} == {"cuda"}


def test_sweeps_vary_one_number_over_a_decade_or_more() -> None:
    for sweep in {point.sweep for point in SWEEPS}:
        sizes = [point.size for point in SWEEPS if point.sweep == sweep]
        assert sizes == sorted(set(sizes))
        assert len(sizes) >= 5
        assert sizes[-1] >= 10 * sizes[0]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_workloads_of_its_own_with_its_twin_beside_the_reference(task: str) -> None:
    planned = list(units("default", [BASELINE, NATIVE_TWIN, TORCH_TWIN], tasks=[task]))
    assert planned
    assert {unit.workload.task for unit in planned} == {task}
    assert {unit.workload.name for unit in planned if not unit.point} == {one.name for one in WORKLOADS.values() if one.task == task}
    fastest = NATIVE_TWIN if task == "detect" else AUTO_TWIN
    assert {unit.contenders for unit in planned} == {(BASELINE, fastest, TORCH_TWIN)}
    assert {unit.heap for unit in planned} == {"steady", "default"}
    assert [unit.workload.task for unit in units("quick", BOTH, tasks=[task])]


@pytest.mark.parametrize("name", ["masks-26", "oriented", "people-26"])
def test_a_workload_of_a_task_is_read_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    case = replace(WORKLOADS[name], batch=2, imgsz=128).case()
    case_folder = save(case, tmp_path)
    built, read = build(case), load(case_folder, "float32", "cpu")
    assert load_spec(case_folder) == case.spec
    assert case.spec.task == WORKLOADS[name].task
    assert built.preds.keys() == read.preds.keys()
    assert all(leaf.is_leaf and leaf.requires_grad for leaf in read.leaves())
    saved = dict(leaves_of(read.preds))
    assert all(torch.equal(saved.pop(key), leaf) for key, leaf in leaves_of(built.preds))
    assert not saved
    for key, tensor in built.batch.items():
        assert torch.equal(read.batch[key], tensor), key
        assert read.batch[key].dtype == tensor.dtype


def test_generated_oriented_boxes_have_angles_and_no_count_of_upright_windows() -> None:
    case = WORKLOADS["oriented-2000"].case()
    assert len(case.boxes) == len(case.extras["angle"]) == 2000
    assert -math.pi / 4 <= min(case.extras["angle"]) < max(case.extras["angle"]) < 3 * math.pi / 4


def test_candidate_pairs_are_those_of_the_definition() -> None:
    case = replace(WORKLOADS["coco"], batch=2, imgsz=160).case()
    criterion = DetectionLoss(case.spec)
    assert candidate_pairs(case) == len(criterion.metrics(*build(case)).row)
    crowded = Workload("crowded", "", boxes=200, batch=1, imgsz=128).case()
    assert candidate_pairs(crowded) == len(DetectionLoss(crowded.spec).metrics(*build(crowded)).row)


def test_processes_are_shared_on_the_steady_heap_alone() -> None:
    planned = list(units("default", BOTH))
    processes = worker_plans(planned)
    alone = [plan for plan in processes if plan.units[0].heap == "default"]
    assert all(len(plan.units) == 1 for plan in alone)
    assert all({unit.heap for unit in plan.units} == {"steady"} for plan in processes if plan not in alone)
    turns = Counter(unit for plan in processes for unit in plan.units)
    assert turns == {unit: unit.sampling.processes for unit in planned}
    assert len([plan for plan in processes if plan not in alone]) == max(unit.sampling.processes for unit in planned)


def test_saved_inputs_are_the_cases_own_to_the_bit(tmp_path: Path) -> None:
    case = SMALL.case()
    case_folder = save(case, tmp_path)
    for dtype in ("float32", "float16", "float64"):
        built, read = build(case, Setting(dtype)), load(case_folder, dtype, "cpu")
        for name in ("boxes", "scores"):
            assert torch.equal(built.preds[name], read.preds[name])
            assert read.preds[name].requires_grad
            assert read.preds[name].is_leaf
        assert [feat.shape for feat in built.preds["feats"]] == [feat.shape for feat in read.preds["feats"]]
        for name, tensor in built.batch.items():
            torch.testing.assert_close(read.batch[name].float(), tensor.float(), rtol=1e-7, atol=0)
            assert read.batch[name].shape == tensor.shape
    assert load_spec(case_folder) == case.spec
    assert save(case, tmp_path) == case_folder, "the same case has the same place"


def test_the_floor_counts_every_logit_once_in_and_once_out(tmp_path: Path) -> None:
    case_folder = save(SMALL.case(), tmp_path)
    anchors = 8 * 8 + 4 * 4 + 2 * 2
    assert class_logits(case_folder) == 2 * 3 * anchors
    assert moved_bytes(case_folder, 4) == 2 * 4 * 2 * (3 + 64) * anchors
    assert np.load(case_folder / "prediction scores.npy").shape == (2, 3, anchors)


def test_labels_of_contenders_are_read_back() -> None:
    contenders = [*BOTH, *candidates(["my.module:make", "other:make"]), BenchContender("twin", "triton+graph")]
    assert [BenchContender.parse(contender.label) for contender in contenders] == contenders
    assert all(re.fullmatch(r"\S+/\S+", contender.label) for contender in contenders)
