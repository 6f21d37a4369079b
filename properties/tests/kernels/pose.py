"""The kernels of keypoints against the torch backend: the assigner of both generations, and the three terms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from properties.tests.impl.pose_loops import Batch, Flow, batch
from properties.tests.kernels.helpers import assert_near, same_holders
from twinloss import PoseLoss, PoseSpec
from twinloss.backends.triton import arguments as arguments_module
from twinloss.backends.triton import tiles

SECOND = PoseSpec(num_classes=2, reg_max=1, keypoint_shape=(4, 3), generation=2, flow=True)
SPECS = {
    "first": replace(SECOND, generation=1, flow=False, reg_max=4),
    "second": SECOND,
    "people": replace(SECOND, keypoint_shape=(17, 3)),
    "without a flow": replace(SECOND, flow=False, keypoint_shape=(3, 3)),
    "end to end, without visibility": replace(SECOND, keypoint_shape=(5, 2), topk=7, topk2=1),
    "second, by boxes": replace(SECOND, keypoint_aware=False),
    "other numbers": replace(SECOND, keypoint_shape=(1, 3), alpha=1.0, beta=2.3, sigmas=(0.3,), gains=(2.0, 1.0, 0.5, 4.0, 2.0, 3.0)),
}
LEAVES = ("boxes", "scores", "kpts", "kpts_sigma")


def drawn(spec: PoseSpec, device: str, dtype: torch.dtype = torch.float32, **options: Any) -> Batch:
    """A batch on the device."""
    found = batch(spec, **{"boxes": 4, "seed": 3} | options).to(dtype)
    preds = {key: value.detach().to(device) if isinstance(value, Tensor) else value for key, value in found.preds.items()}
    return Batch(spec, preds, {key: value.to(device) for key, value in found.targets.items()}, found.size)


def loss_of(spec: PoseSpec, backend: Any, device: str, **options: Any) -> tuple[PoseLoss, Flow]:
    """A criterion on a backend, and its flow."""
    flow = Flow().to(device)
    return PoseLoss(spec, backend=backend, flow=flow if spec.flow else None, **options), flow


def answer(spec: PoseSpec, backend: Any, given: Batch, device: str, **options: Any) -> dict[str, Tensor | None]:
    """The loss, and the gradients of a weighted sum of its terms by predictions and flow."""
    loss, flow = loss_of(spec, backend, device, **options)
    leaves = {key: given.preds[key].detach().requires_grad_() for key in LEAVES if given.preds.get(key) is not None}
    total, _ = loss(given.preds | leaves, given.targets)
    total.backward(torch.arange(1.0, len(total) + 1, device=device))
    return {"loss": total.detach()} | {key: leaf.grad for key, leaf in (leaves | dict(flow.named_parameters())).items()}


def assert_same(ours: dict[str, Tensor | None], theirs: dict[str, Tensor | None], relative: float, of_gradients: float = 0.0) -> None:
    """Assert that two answers have the same gradients, and near values."""
    for what, expected in theirs.items():
        found = ours[what]
        assert (found is None) == (expected is None), what
        if found is not None and expected is not None:
            assert found.dtype == expected.dtype
            assert_near(found, expected, relative if what == "loss" else max(relative, of_gradients), what)


@pytest.mark.parametrize("seen", [0.7, 0.1])
@pytest.mark.parametrize("name", SPECS)
def test_the_torch_backend_gives_the_same(name: str, seen: float, device: str) -> None:
    """With a tenth of the keypoints visible some boxes have none, and are assigned by boxes."""
    spec = SPECS[name]
    given = drawn(spec, device, seen=seen)
    found, expected = (loss_of(spec, backend, device)[0].assign(given.preds, given.targets) for backend in ("triton", "torch"))
    assert len(found) > 3
    assert same_holders(found, expected)
    assert_near(found.weight, expected.weight, 2e-5, "weight")
    assert_same(answer(spec, "triton", given, device), answer(spec, "torch", given, device), 2e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, device: str) -> None:
    given = drawn(SECOND, device, dtype)
    rounding = {torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    assert_same(answer(SECOND, "triton", given, device), answer(SECOND, "torch", given, device), 2e-5, rounding)


def with_boxes(device: str, sides: list[tuple[float, float]]) -> Batch:
    """A batch of one image of 256 px whose boxes have these centres' x and widths, in shares, and the height of the image."""
    spec = replace(SECOND, num_classes=1, keypoint_shape=(3, 3), flow=False)
    given = drawn(spec, device, boxes=len(sides), images=1, size=256)
    boxes = torch.tensor([[x, 0.5, w, 1.0] for x, w in sides], device=device)
    places = boxes[:, None, :2] + boxes[:, None, 2:] * torch.tensor([[-0.3, -0.3], [0.2, 0.0], [0.0, 0.4]], device=device)
    keypoints = torch.cat([places, torch.ones_like(places[..., :1])], -1)
    return Batch(spec, given.preds, given.targets | {"bboxes": boxes, "keypoints": keypoints}, 256)


@pytest.mark.parametrize("tile", ["FEW_BOXES", "MANY_BOXES"])
@pytest.mark.parametrize("conflicts", ["overlap", "pickers"])
def test_levels_and_boxes_with_more_cells_than_a_tile(tile: str, conflicts: Any, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second box fits one level alone, of which it holds no centre: it keeps the candidates of the others."""
    monkeypatch.setattr(arguments_module, "candidates_tile", lambda *_: replace(getattr(tiles, tile), candidates=64))
    given = with_boxes(device, [(0.5, 0.9), (0.125, 14 / 256), (0.4, 0.5)])
    found, expected = (
        loss_of(given.spec, backend, device, conflicts=conflicts)[0].assign(given.preds, given.targets) for backend in ("triton", "torch")
    )
    assert set(found.box.tolist()) == {0, 1, 2}
    assert same_holders(found, expected)


def test_rows_that_do_not_count_change_no_bit(device: str) -> None:
    given = drawn(SECOND, device)
    bad = torch.tensor([[-1.0, 0.0, 0.5], [9.0, 0.0, 0.5], [0.0, 7.0, 0.5], [0.0, math.nan, 0.5]], device=device)
    rows = {
        "batch_idx": bad[:, 0],
        "cls": bad[:, 1:2],
        "bboxes": bad[:, 2:].expand(-1, 4),
        "keypoints": torch.full((4, 4, 3), 0.5, device=device),
    }
    more = Batch(
        SECOND, given.preds, {key: torch.cat([value.to(rows[key]), rows[key]]) for key, value in given.targets.items()}, given.size
    )
    fewer = Batch(SECOND, given.preds, {key: value.to(rows[key]) for key, value in given.targets.items()}, given.size)
    found, clean = (answer(SECOND, "triton", one, device, validate=False) for one in (more, fewer))
    assert torch.equal(found["loss"][:5], clean["loss"][:5])  # type: ignore[index]
    assert_near(found["loss"], clean["loss"], 1e-6, "loss")  # type: ignore[arg-type]  # the flow sees more slots
    for key in ("boxes", "scores"):
        assert torch.equal(found[key], clean[key])  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["kpts", "kpts_sigma"])
@pytest.mark.parametrize("number", [math.inf, -math.inf, 1e30])
def test_no_infinite_number_meets_the_flow(key: str, number: float, device: str) -> None:
    given = drawn(SECOND, device)
    held = loss_of(SECOND, "triton", device)[0].assign(given.preds, given.targets)
    given.preds[key] = given.preds[key].clone()
    given.preds[key][held.image, 0, held.anchor] = number
    seen: list[Tensor] = []
    loss, density = loss_of(SECOND, "triton", device)

    def watched(latents: Tensor) -> Tensor:
        seen.append(latents.detach())
        return density.forward(latents)

    loss.flow = watched
    assert loss(given.preds, given.targets)[0][:5].isfinite().all()
    assert seen
    assert all(latents.isfinite().all() and latents.abs().max() <= 100 for latents in seen)
    assert_same(answer(SECOND, "triton", given, device), answer(SECOND, "torch", given, device), 2e-5)


def test_nothing_held_leaves_zeros(device: str) -> None:
    given = drawn(SECOND, device)
    none = {key: value[:0] for key, value in given.targets.items()}
    found = answer(SECOND, "triton", Batch(SECOND, given.preds, none, given.size), device)
    assert found["loss"][[0, 1, 2, 4, 5]].tolist() == [0, 0, 0, 0, 0]  # type: ignore[index]
    for key in ("boxes", "kpts", "kpts_sigma", "inner", "outer"):
        assert found[key] is not None
        assert not found[key].any()  # type: ignore[union-attr]


def test_a_model_in_evaluation_gives_no_deviations(device: str) -> None:
    given = drawn(SECOND, device)
    given.preds["kpts_sigma"] = None
    assert_same(answer(SECOND, "triton", given, device), answer(SECOND, "torch", given, device), 2e-5)


def test_a_given_assignment(device: str) -> None:
    given = drawn(SECOND, device)
    held = loss_of(SECOND, "torch", device)[0].assign(given.preds, given.targets)
    held = replace(held, weight=torch.where(torch.arange(len(held), device=device) % 3 == 0, 0.0, held.weight))  # the zeros count, too
    found, expected = (
        loss_of(SECOND, backend, device)[0].loss_given(given.preds, given.targets, held)[0] for backend in ("triton", "torch")
    )
    assert_near(found, expected, 2e-5, "loss")


def test_a_nan_deviation_shows_as_on_torch(device: str) -> None:
    given = drawn(SECOND, device)
    held = loss_of(SECOND, "triton", device)[0].assign(given.preds, given.targets)
    given.preds["kpts_sigma"] = given.preds["kpts_sigma"].clone()
    given.preds["kpts_sigma"][held.image[0], 0, held.anchor[0]] = math.nan
    found, expected = (answer(SECOND, backend, given, device) for backend in ("triton", "torch"))
    for key in ("kpts", "kpts_sigma"):
        assert torch.equal(found[key].isnan(), expected[key].isnan())  # type: ignore[union-attr]
        assert found[key].isnan().any()  # type: ignore[union-attr]
