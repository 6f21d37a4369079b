"""Batches of instance segmentation: their dimensions, shapes of polygons, heads of real batches, and polygons of label files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, find, given, seed, settings
from PIL import Image

from oracle.cases.build import build
from oracle.cases.case import Box, Case
from oracle.cases.polygons import rasterised
from oracle.cases.tasks.segment import grid, instance_masks
from oracle.cases.workloads.task_packs import mask_images
from properties.strategies import TINY
from properties.strategies.segment import CROWDS, HEADS, PROTOTYPES, SHAPES, TAGS, segment_batches, segment_cases, smaller
from twinloss import SegmentationSpec


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    """Cases of many short runs, because a run of Hypothesis returns to earlier draws."""
    found: list[Case] = []
    for number in range(12):

        @seed(number)
        @settings(max_examples=14, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(segment_cases(TINY))
        def collect(case: Case) -> None:
            found.append(case)

        collect()
    return found


def test_drawn_cases_take_all_values_of_every_dimension(drawn: list[Case]) -> None:
    specs = [case.spec for case in drawn]
    assert all(isinstance(spec, SegmentationSpec) for spec in specs)
    assert {(spec.mask_aware, spec.overlap_mask) for spec in specs if isinstance(spec, SegmentationSpec)} == {
        (aware, overlap) for aware in (False, True) for overlap in (False, True)
    }
    assert {case.options["prototypes"] for case in drawn} == set(PROTOTYPES)
    assert {case.options.get("semantic", 0.0) for case in drawn} == {0.0, 1.0}
    assert len({grid(case, "mask")[0] / grid(case, "proto")[0] for case in drawn}) > 5
    assert TAGS.keys() <= {tag for case in drawn for tag in case.tags}


def test_json_brings_every_case_back(drawn: list[Case]) -> None:
    for case in drawn[::4]:
        assert Case.from_json(case.to_json()) == case


def test_every_case_builds_with_finite_predictions_and_sound_masks(drawn: list[Case]) -> None:
    for case in drawn[::6]:
        preds, batch = build(case)
        leaves = preds["proto"] if isinstance(preds["proto"], tuple) else (preds["proto"],)
        assert all(leaf.isfinite().all() for leaf in (preds["mask_coefficient"], *leaves))
        assert isinstance(case.spec, SegmentationSpec)
        assert len(batch["masks"]) == (case.batch_size if case.spec.overlap_mask else len(case.boxes))


def test_failures_shrink_to_octagons_on_the_shipped_grids() -> None:
    quick = settings(max_examples=200, database=None, deadline=None)
    least = find(segment_cases(TINY), lambda case: len(case.boxes) > 0, settings=quick, random=random.Random(0))
    assert least.options["mask_height"] == least.options["proto_height"] == 16
    assert least.extras["polygons"][0] == SHAPES["octagon"](least.boxes[0])
    assert least.spec == SegmentationSpec(num_classes=1, strides=(8,))


def test_crowds_include_both_sides_of_fifty_instances() -> None:
    assert {0, 49, 50, 51, 500} == set(CROWDS)


def test_shapes_of_polygons() -> None:
    box = Box(0, 0, 32, 32, 24, 16)
    pixels = {name: int(rasterised(shape(box), (64, 64), (64, 64)).sum()) for name, shape in SHAPES.items()}
    assert pixels["rectangle"] == 24 * 16
    assert pixels["hole"] == 24 * 16 - 12 * 8
    assert pixels["empty"] == 0
    assert pixels["pixel"] <= 4
    assert pixels["around"] == 64 * 64
    assert 0 < pixels["parts"] < pixels["triangle"] < pixels["octagon"] < pixels["rectangle"]


def test_smaller_cases_are_smaller_and_build(drawn: list[Case]) -> None:
    case = next(case for case in drawn if case.boxes and case.options["prototypes"] > 1 and case.options.get("semantic"))
    found = list(smaller(case))
    assert {1.0} <= {one.options.get("prototypes") for one in found}
    assert any(not one.extras for one in found)
    for one in found:
        build(one)


def test_real_batches_take_the_heads_in_turn_with_every_stage_of_training() -> None:
    cases = list(segment_batches(mask_images("coco"), batch=1, count=9, imgsz=160))
    heads = [(case.spec.reg_max, getattr(case.spec, "mask_aware"), getattr(case.spec, "overlap_mask")) for case in cases]  # noqa: B009
    assert len(set(heads)) == len(HEADS)
    assert len({(head, case.prediction.kind) for head, case in zip(heads, cases, strict=True)}) == 9
    assert all(len(case.extras["polygons"]) == len(case.boxes) for case in cases)


def test_polygons_of_label_files_become_masks(tmp_path: Path) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.25 0.25 0.75 0.25 0.75 0.5 0.25 0.5\n1 0.5 0.5 0.9 0.9 0.5 0.9\n")
    (case,) = segment_batches(mask_images(f"labels:{tmp_path}"), batch=1, count=1, imgsz=64)
    box = case.boxes[0]
    assert (box.cx, box.cy, box.w, box.h) == (32, 24, 32, 16)
    first, second = instance_masks(case, (64, 64))
    assert first[16:32, 16:48].all()
    assert first.sum() == 16 * 32
    assert 0 < second.sum() < 26 * 26
    assert torch.unique(build(case).batch["masks"]).tolist() == [0, 1, 2]
