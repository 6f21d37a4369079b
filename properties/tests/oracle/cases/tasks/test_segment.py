"""Masks, prototypes and coefficients of a case."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, PredictionKind, Setting
from oracle.cases.logits import inline_text, scene_of
from oracle.cases.tasks import task_of
from oracle.cases.tasks.segment import grid, mask_shapes
from twinloss import SegmentationSpec

# A box of 24 px, a smaller one on top of it, and one of another image.
BOXES = (Box(0, 1, 16, 16, 24, 24), Box(0, 0, 16, 16, 8, 8), Box(2, 2, 24, 16, 12, 20))
KINDS: tuple[PredictionKind, ...] = ("random", "untrained", "near", "exact", "saturated", "early", "middle", "late", "zeros")


def case_of(kind: PredictionKind = "near", *, options: dict[str, float] | None = None, **numbers: Any) -> Case:
    spec = SegmentationSpec(num_classes=3, reg_max=4, strides=(8,), **numbers)
    return Case(spec, (32, 64), 3, BOXES, Prediction(kind, 5), options={"prototypes": 3.0, "semantic": 1.0, **(options or {})})


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_have_the_shapes_of_the_case_and_the_same_bits_every_time(kind: PredictionKind) -> None:
    case = case_of(kind, options={"proto_height": 5.0, "proto_width": 9.0, "semantic_height": 3.0})
    found, again = (task_of(case).predictions(case) for _ in range(2))
    shapes = {"mask_coefficient": (3, 3, 32), "proto": (3, 3, 5, 9), "semantic": (3, 3, 3, 8)}
    assert mask_shapes(case) == shapes
    for name, shape in shapes.items():
        assert found[name].shape == shape
        assert found[name].dtype == np.float32
        assert np.isfinite(found[name]).all()
        assert np.array_equal(found[name], again[name])


def test_without_semantic_logits_there_is_one_tensor_and_no_classes() -> None:
    inputs = build(case_of(options={"semantic": 0.0}))
    assert isinstance(inputs.preds["proto"], torch.Tensor)
    assert "sem_masks" not in inputs.batch


def test_index_maps_show_the_smallest_instance_by_its_place_in_the_image() -> None:
    maps = build(case_of()).batch["masks"]
    assert maps.shape == (3, 8, 16)
    assert maps.dtype == torch.uint8
    assert maps[0].unique().tolist() == [0, 1, 2]
    assert maps[0, 4, 4] == 2
    assert maps[1].count_nonzero() == 0
    assert maps[2].unique().tolist() == [0, 1]


def test_instance_masks_overlap_and_come_one_per_box() -> None:
    masks = build(case_of(overlap_mask=False)).batch["masks"]
    assert masks.shape == (3, 8, 16)
    assert masks[:, 4, 4].tolist() == [1, 1, 1]
    assert masks.sum((1, 2)).argsort(descending=True).tolist() == [0, 2, 1]


def test_many_instances_need_a_wider_dtype() -> None:
    boxes = tuple(Box(0, 0, 1 + index % 31, 1 + index // 31, 3, 3) for index in range(300))
    assert build(dataclasses.replace(case_of(), boxes=boxes, batch_size=1)).batch["masks"].dtype == torch.int32


def test_the_class_of_a_pixel_is_that_of_its_smallest_instance_and_any_class_elsewhere() -> None:
    case = case_of()
    batch = build(case).batch
    assert batch["sem_masks"][0, 4, 4] == 0
    assert batch["sem_masks"][0, 2, 4] == 1
    background = batch["sem_masks"][batch["masks"] == 0]
    assert set(background.unique().tolist()) == {0, 1, 2}


def test_polygons_replace_the_octagons() -> None:
    rings = ((8.0, 8.0, 24.0, 8.0, 24.0, 24.0, 8.0, 24.0),)
    case = dataclasses.replace(case_of(overlap_mask=False), extras={"polygons": (rings, (), rings)})
    masks = build(case).batch["masks"]
    assert masks.sum((1, 2)).tolist() == [16, 0, 16]


def test_the_true_masks_can_be_formed_from_exact_prototypes() -> None:
    case = case_of("exact", overlap_mask=False)
    inputs, scene = build(case), scene_of(case, smallest_on_top=False)
    prototypes, coefficients = inputs.preds["proto"][0], inputs.preds["mask_coefficient"]
    for image, anchor, box in zip(scene.image.tolist(), scene.anchor.tolist(), scene.box.tolist(), strict=True):
        logits = torch.einsum("p,pyx->yx", coefficients[image, :, anchor], prototypes[image])
        assert torch.equal(logits > 0, inputs.batch["masks"][box] > 0)


def test_the_default_grids_are_those_of_the_shipped_heads() -> None:
    case = case_of()
    assert [grid(case, name) for name in ("proto", "mask", "semantic")] == [(8, 16), (8, 16), (4, 8)]


def test_an_inline_case_carries_its_masks_predictions() -> None:
    case = case_of("random")
    found = task_of(case).predictions(case)
    text = inline_text(found["boxes"], found["scores"], **{name: found[name] for name in mask_shapes(case)})
    inline = dataclasses.replace(case, prediction=Prediction("inline", inline=text))
    assert Case.from_json(inline.to_json()) == inline
    for name, array in task_of(inline).predictions(inline).items():
        assert np.array_equal(array, found[name])


def test_targets_do_not_depend_on_the_dtype() -> None:
    narrow, wide = (build(case_of(), Setting(dtype)).batch for dtype in ("float32", "float64"))
    assert torch.equal(narrow["masks"], wide["masks"])
    assert torch.equal(narrow["sem_masks"].double(), wide["sem_masks"])
