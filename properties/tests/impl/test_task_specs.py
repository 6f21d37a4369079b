"""The definitions of the four tasks: what they name, what they refuse, and which loss takes which."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from twinloss import (
    DetectionLoss,
    EndToEndLoss,
    LossSpec,
    OrientedSpec,
    PoseLoss,
    PoseSpec,
    SegmentationLoss,
    SegmentationSpec,
)
from twinloss.assignment.registry import OVERLAPS
from twinloss.geometry.registry import GEOMETRIES
from twinloss.loss import LOSSES
from twinloss.terms.registry import TERMS

SPECS: dict[str, LossSpec] = {
    "detection": LossSpec(num_classes=3),
    "detection without distribution": LossSpec(num_classes=3, reg_max=1),
    "segmentation": SegmentationSpec(num_classes=3),
    "mask-aware segmentation": SegmentationSpec(num_classes=3, reg_max=1, mask_aware=True),
    "oriented boxes": OrientedSpec(num_classes=3),
    "pose": PoseSpec(num_classes=1),
    "pose by keypoints": PoseSpec(num_classes=1, reg_max=1, generation=2),
    "pose by keypoints, with a flow": PoseSpec(num_classes=1, generation=2, flow=True),
}
RESULTS: dict[str, dict[str, float]] = {  # logged names in the specifications' order, and gains
    "detection": {"box_loss": 7.5, "cls_loss": 0.5, "dfl_loss": 1.5},
    "detection without distribution": {"box_loss": 7.5, "cls_loss": 0.5, "l1_loss": 1.5},
    "segmentation": {"box_loss": 7.5, "seg_loss": 7.5, "cls_loss": 0.5, "dfl_loss": 1.5, "sem_loss": 7.5},
    "mask-aware segmentation": {"box_loss": 7.5, "seg_loss": 7.5, "cls_loss": 0.5, "l1_loss": 1.5, "sem_loss": 7.5},
    "oriented boxes": {"box_loss": 7.5, "cls_loss": 0.5, "dfl_loss": 1.5, "angle_loss": 1.0},
    "pose": {"box_loss": 7.5, "pose_loss": 12.0, "kobj_loss": 1.0, "cls_loss": 0.5, "dfl_loss": 1.5},
    "pose by keypoints": {"box_loss": 7.5, "pose_loss": 12.0, "kobj_loss": 1.0, "cls_loss": 0.5, "l1_loss": 1.5},
    "pose by keypoints, with a flow": {
        "box_loss": 7.5,
        "pose_loss": 12.0,
        "kobj_loss": 1.0,
        "cls_loss": 0.5,
        "dfl_loss": 1.5,
        "rle_loss": 1.0,
    },
}


@pytest.mark.parametrize("name", SPECS)
def test_terms_names_and_gains_follow_the_specification(name: str) -> None:
    spec = SPECS[name]
    assert dict(zip(spec.term_names, spec.term_gains, strict=True)) == RESULTS[name]
    assert list(spec.term_names) == list(RESULTS[name])
    assert len(spec.terms) == len(set(spec.terms)) == len(RESULTS[name])


@pytest.mark.parametrize("name", SPECS)
def test_what_a_definition_names_exists(name: str) -> None:
    spec = SPECS[name]
    assert spec.geometry in GEOMETRIES
    assert spec.overlap in OVERLAPS
    assert set(spec.terms) <= {"box", "cls", "dfl", *TERMS}
    assert LOSSES[spec.task].task is type(spec)


@pytest.mark.parametrize("name", SPECS)
def test_a_definition_is_a_value(name: str) -> None:
    spec = SPECS[name]
    _ = spec.terms, spec.term_names, spec.term_gains
    again = type(spec)(**dataclasses.asdict(spec))
    assert again == spec
    assert hash(again) == hash(spec)
    assert repr(again) == repr(spec)
    assert dataclasses.replace(spec, topk=3) != spec


def test_each_loss_takes_its_own_definition() -> None:
    with pytest.raises(ValueError, match="spec is a PoseSpec, of the task 'pose'; SegmentationLoss takes a SegmentationSpec"):
        SegmentationLoss(PoseSpec(num_classes=1))
    with pytest.raises(ValueError, match="DetectionLoss takes a LossSpec"):
        DetectionLoss(SegmentationSpec(num_classes=1))


@pytest.mark.parametrize(("flow", "given"), [(True, None), (False, torch.zeros_like)])
def test_a_flow_where_the_definition_has_one(flow: bool, given: Any) -> None:
    with pytest.raises(ValueError, match=f"spec.flow is {flow} and flow is"):
        PoseLoss(PoseSpec(num_classes=1, generation=2, flow=flow), flow=given)


@pytest.mark.parametrize("task", ["segmentation", "oriented boxes", "pose"])
def test_only_detection_has_a_first_generation_of_end_to_end_heads(task: str) -> None:
    with pytest.raises(ValueError, match=f"which has no loss of the task '{SPECS[task].task}'; use 2"):
        EndToEndLoss(SPECS[task], generation=1)
    both = EndToEndLoss(SPECS[task])
    assert (both.one2many.spec.topk, both.one2one.spec.topk, both.one2one.spec.topk2) == (10, 7, 1)
    assert type(both.one2one) is LOSSES[SPECS[task].task]


OUT_OF_RANGE: list[tuple[str, str, Any]] = [
    *(("segmentation", field, value) for field in ("overlap_mask", "mask_aware") for value in ("yes", None, 2)),
    *(("oriented boxes", field, value) for field in ("angle_scale", "probiou_eps") for value in (0.0, -1.0, math.nan, "3")),
    *(("oriented boxes", "term_floor", value) for value in (-0.01, math.inf)),
    *(("oriented boxes", "gains", value) for value in ((7.5, 0.5, 1.5), (7.5, 0.5, 1.5, math.nan))),
    *(("pose", "gains", value) for value in ((7.5, 0.5, 1.5), (7.5, 0.5, 1.5, 12.0, 1.0))),
    *(("pose", "keypoint_shape", value) for value in ((17,), (17, 4), (0, 3), (17, 3, 1), 17, (2.5, 3))),
    *(("pose", "generation", value) for value in (0, 3, None)),
    *(("pose", "sigmas", value) for value in ((0.1,) * 16, (0.1,) * 16 + (0.0,), (0.1,) * 16 + (-1.0,), (math.nan,) * 17)),
    ("pose", "flow", True),  # the first generation has no likelihood term
]


@pytest.mark.parametrize(("name", "field", "value"), OUT_OF_RANGE)
def test_a_definition_out_of_range_is_named(name: str, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{type(SPECS[name]).__name__}\.{field}"):
        dataclasses.replace(SPECS[name], **{field: value})


def test_numbers_in_other_clothes() -> None:
    given: dict[str, Any] = {"keypoint_shape": [torch.tensor(2), 3.0], "sigmas": torch.tensor([0.5, 0.25]), "generation": 2.0}
    spec = PoseSpec(num_classes=1, **given)
    assert (spec.keypoint_shape, spec.sigmas, spec.generation) == ((2, 3), (0.5, 0.25), 2)
    assert type(spec.generation) is int
    whole: dict[str, Any] = {"overlap_mask": 0}
    assert SegmentationSpec(num_classes=1, **whole).overlap_mask is False


A, B, GRIDS = 84, 2, ((8, 8), (4, 4), (2, 2))


def log_density(points: Tensor) -> Tensor:
    return -points.square().sum(-1)


def inputs(spec: LossSpec) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Random predictions and five boxes on two images of 64 px, with what the task adds."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    boxes = normal(B, 4 * spec.reg_max, A) if spec.reg_max > 1 else (uniform(B, 4, A) * 3).requires_grad_()
    preds: dict[str, Any] = {"boxes": boxes, "scores": normal(B, spec.num_classes, A)}
    batch = {
        "batch_idx": torch.tensor([0.0, 1, 0, 1, 1]),
        "cls": torch.zeros(5, 1),
        "bboxes": torch.cat([uniform(5, 2) * 0.5 + 0.25, uniform(5, 2) * 0.5 + 0.1], 1),
    }
    if isinstance(spec, SegmentationSpec):
        preds |= {"mask_coefficient": normal(B, 6, A), "proto": (normal(B, 6, 16, 16), normal(B, spec.num_classes, 8, 8))}
        batch |= {"masks": (uniform(B, 16, 16) * 3).floor(), "sem_masks": torch.zeros(B, 16, 16)}
    if isinstance(spec, OrientedSpec):
        preds["angle"] = normal(B, 1, A)
        batch["bboxes"] = torch.cat([batch["bboxes"], uniform(5, 1)], 1)
    if isinstance(spec, PoseSpec):
        points, numbers = spec.keypoint_shape
        preds |= {"kpts": normal(B, points * numbers, A), "kpts_sigma": normal(B, 2 * points, A)}
        batch["keypoints"] = torch.cat([uniform(5, points, 2), (uniform(5, points, 1) * 3).floor()], 2)
    return preds | {"feats": [torch.empty(B, 1, *grid) for grid in GRIDS]}, batch


def answer(loss: Tensor, preds: dict[str, Any]) -> list[Tensor]:
    """The loss and the gradients of all predictions; those that it does not read are left out."""
    flat = [part for name, value in preds.items() if name != "feats" for part in (value if name == "proto" else [value])]
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(loss.sum(), flat, allow_unused=True)
    return [loss.detach(), *(gradient for gradient in gradients if gradient is not None)]


@pytest.mark.parametrize("name", SPECS)
def test_the_native_backend_agrees_with_torch(name: str) -> None:
    """Whatever the kernels compute of a task themselves, and whatever torch adds on their assignment."""
    spec = SPECS[name]
    preds, batch = inputs(spec)
    options = {"flow": log_density} if isinstance(spec, PoseSpec) and spec.flow else {}
    native, by_torch = (LOSSES[spec.task](spec, backend=backend, **options) for backend in ("native", "torch"))  # type: ignore[arg-type]
    held = by_torch.assign(preds, batch)
    assert len(held) > 5
    torch.testing.assert_close(native.assign(preds, batch).anchor, held.anchor)
    loss, items = native(preds, batch)
    assert list(items) == list(by_torch(preds, batch)[1]) == list(RESULTS[name])
    torch.testing.assert_close(torch.stack(list(items.values())) * B, loss.detach())
    expected = answer(by_torch(preds, batch)[0], preds)
    for found in (loss, native.loss_given(preds, batch, held)[0], by_torch.loss_given(preds, batch, held)[0]):
        for ours, theirs in zip(answer(found, preds), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))
