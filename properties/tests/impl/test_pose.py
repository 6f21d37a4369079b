"""The pose loss of both generations: against loops in float64, on both backends of the host, and on inputs at the limits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from properties.tests.impl.assignment.test_assign import Sizes
from properties.tests.impl.pose_loops import Batch, Flow, Loops, batch
from twinloss import Assignment, EndToEndLoss, LossSpec, PoseLoss, PoseSpec
from twinloss.backends.registry import BackendName

BACKENDS = pytest.mark.parametrize("backend", ["torch", "native"])
SHAPES = [(1, 2), (5, 3), (17, 3), (21, 3), (4, 2)]
FIRST = PoseSpec(num_classes=2, keypoint_shape=(5, 3))
SECOND = PoseSpec(num_classes=2, reg_max=1, keypoint_shape=(5, 3), generation=2, flow=True)


def loss_of(spec: PoseSpec, flow: Flow | None = None, **options: Any) -> PoseLoss:
    return PoseLoss(spec, flow=(flow or Flow()) if spec.flow else None, **options)


def as_dict(held: Assignment) -> dict[tuple[int, int], tuple[int, float]]:
    columns = zip(held.image.tolist(), held.anchor.tolist(), held.box.tolist(), held.weight.tolist(), strict=True)
    return {(image, anchor): (row, weight) for image, anchor, row, weight in columns}


def gradients(total: Tensor, given: Batch, flow: Flow) -> dict[str, Tensor]:
    """By name, of every leaf and every parameter of the flow; none may be missing, which raises an error."""
    named = {**given.leaves(), **(dict(flow.named_parameters()) if given.spec.flow else {})}
    return dict(zip(named, torch.autograd.grad(total, tuple(named.values())), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spec", [FIRST, SECOND, replace(SECOND, topk=7, topk2=1, reg_max=4, flow=False)])
@pytest.mark.parametrize("flags", [2, 3])
def test_assignment_and_terms_are_those_of_loops(spec: PoseSpec, shape: tuple[int, int], flags: int) -> None:
    spec, flow = replace(spec, keypoint_shape=shape), Flow().double()
    given = batch(spec, seed=shape[0] + flags, noise=0.1 * flags, flags=flags).to(torch.float64)
    loops, loss = Loops(given, flow if spec.flow else None), loss_of(spec, flow, backend="torch")
    expected, held = loops.assign(), as_dict(loss.assign(given.preds, given.targets))
    assert {place: row for place, (row, _) in held.items()} == {place: row for place, (row, _) in expected.items()}
    assert [weight for _, weight in held.values()] == pytest.approx([weight for _, weight in expected.values()], rel=1e-6)
    total, items = loss(given.preds, given.targets)
    keys = ("pose", "kobj", "likelihood") if spec.flow else ("pose", "kobj")
    gain_of, name_of = dict(zip(spec.terms, spec.term_gains, strict=True)), dict(zip(spec.terms, spec.term_names, strict=True))
    by_loops = [term * gain_of[key] for key, term in zip(keys, loops.keypoint_terms(expected), strict=False)]
    assert [float(items[name_of[key]]) for key in keys] == pytest.approx([float(term.detach()) for term in by_loops], rel=1e-6, abs=1e-12)
    wanted = torch.autograd.grad(sum(by_loops, torch.zeros(())) * len(given.preds["boxes"]), given.preds["kpts"], retain_graph=True)[0]
    torch.testing.assert_close(gradients(total.sum(), given, flow)["kpts"], wanted, rtol=1e-5, atol=1e-8)


def test_gradients_of_deviations_and_flow_are_those_of_loops() -> None:
    flow = Flow().double()
    given = batch(SECOND, seed=11, noise=0.5).to(torch.float64)
    loops, loss = Loops(given, flow), loss_of(SECOND, flow, backend="torch")
    likelihood = loops.keypoint_terms(loops.assign())[2]
    assert likelihood > 0, "it must not be silenced"
    wanted = torch.autograd.grad(likelihood * len(given.preds["boxes"]), (given.preds["kpts_sigma"], *flow.parameters()))
    found = gradients(loss(given.preds, given.targets)[0].sum(), given, flow)
    for ours, theirs in zip((found["kpts_sigma"], found["inner"], found["outer"]), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("spec", [FIRST, SECOND, replace(SECOND, topk2=1), replace(SECOND, sigmas=(0.01, 0.02, 0.03, 0.01, 0.02))])
@pytest.mark.parametrize("noise", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("conflicts", ["overlap", "pickers"])
def test_held_anchors_depend_on_neither_dtype_nor_backend(spec: PoseSpec, noise: float, conflicts: Any) -> None:
    given = batch(spec, boxes=9, seed=3, noise=noise)
    exact = as_dict(loss_of(spec, backend="torch", conflicts=conflicts).assign(given.to(torch.float64).preds, given.targets))
    for backend in ("torch", "native"):
        held = as_dict(loss_of(spec, backend=backend, conflicts=conflicts).assign(given.preds, given.targets))
        assert {place: row for place, (row, _) in held.items()} == {place: row for place, (row, _) in exact.items()}
        assert [weight for _, weight in held.values()] == pytest.approx([weight for _, weight in exact.values()], rel=1e-3, abs=1e-30)


def test_similarities_that_underflow_are_ranked() -> None:
    spec = replace(SECOND, sigmas=(0.003,) * 5, flow=False)
    given = batch(spec, boxes=3, images=1, seed=2, noise=5.0, seen=1.0)
    held = loss_of(spec, backend="torch").assign(given.preds, given.targets)
    assert len(held) > 0, "in float32, and even in float64, every metric would be 0"
    assert held.weight.abs().sum() == 0
    assert len(loss_of(spec, backend="native").assign(given.preds, given.targets)) == len(held)
    total, _ = loss_of(spec)(given.preds, given.targets)
    assert total[1] > 0, "anchors of weight 0 count in the keypoint terms"


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("spec", [replace(FIRST, keypoint_shape=(17, 3)), replace(SECOND, keypoint_shape=(17, 3))])
def test_low_precision_is_near_the_same_numbers_in_double(spec: PoseSpec, dtype: torch.dtype, backend: BackendName) -> None:
    given, flow = batch(spec, seed=5).to(dtype), Flow()
    held = loss_of(spec, backend="torch").assign(given.preds, given.targets)
    total, _ = loss_of(spec, flow, backend=backend).loss_given(given.preds, given.targets, held)
    found = gradients(total.sum(), given, flow)
    double, wide = given.to(torch.float64), Flow().double()
    exact, _ = loss_of(spec, wide).loss_given(double.preds, double.targets, held)
    torch.testing.assert_close(total.to(torch.float64), exact, rtol=2e-6, atol=2e-6)
    allowance = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 2e-5}[dtype]
    for name, gradient in gradients(exact.sum(), double, wide).items():
        assert found[name].dtype == (torch.float32 if name in {"inner", "outer"} else dtype)
        torch.testing.assert_close(
            found[name].to(torch.float64), gradient, rtol=allowance, atol=1e-4 * float(gradient.abs().max()), msg=name
        )


@BACKENDS
@pytest.mark.parametrize("spec", [FIRST, SECOND])
def test_backends_agree(spec: PoseSpec, backend: BackendName) -> None:
    given, flow = batch(spec, boxes=8, seed=6), Flow()
    total, items = loss_of(spec, flow, backend=backend)(given.preds, given.targets)
    exact, _ = loss_of(spec, flow, backend="torch")(given.preds, given.targets)
    torch.testing.assert_close(total, exact, rtol=1e-5, atol=1e-6)
    assert tuple(items) == spec.term_names
    assert total.tolist() == pytest.approx([float(item) * len(given.preds["boxes"]) for item in items.values()])


@BACKENDS
@pytest.mark.parametrize("spec", [FIRST, SECOND])
@pytest.mark.parametrize("boxes", ["none", "outside"])
def test_nothing_held(spec: PoseSpec, backend: BackendName, boxes: str) -> None:
    given, flow = batch(spec, boxes=0 if boxes == "none" else 2, seed=1), Flow()
    if boxes == "outside":
        given.targets["bboxes"] = torch.tensor([[5.0, 5.0, 0.1, 0.1]] * 2)
    total, items = loss_of(spec, flow, backend=backend)(given.preds, given.targets)
    values = dict(zip(spec.terms, total.tolist(), strict=True))
    assert {key for key, value in values.items() if value} == {"cls"}
    assert all(math.isfinite(float(item)) for item in items.values())
    for name, gradient in gradients(total.sum(), given, flow).items():
        assert bool(gradient.any()) == (name == "scores"), name


def test_without_boxes_keypoints_may_be_missing_or_empty() -> None:
    given = batch(SECOND, boxes=0)
    expected = loss_of(SECOND)(given.preds, given.targets)[0]
    for keypoints in (None, torch.zeros(0, 5, 2), torch.zeros(0)):
        targets = {key: value for key, value in given.targets.items() if key != "keypoints"}
        assert torch.equal(loss_of(SECOND)(given.preds, targets if keypoints is None else {**targets, "keypoints": keypoints})[0], expected)


@BACKENDS
def test_boxes_without_a_visible_keypoint_are_assigned_by_their_corners(backend: BackendName) -> None:
    given, flow = batch(SECOND, seed=4, seen=0.0), Flow()
    total, _ = loss_of(SECOND, flow, backend=backend)(given.preds, given.targets)
    held = loss_of(SECOND, flow, backend=backend).assign(given.preds, given.targets)
    assert len(held) > 0
    assert total[1] == total[5] == 0
    found = gradients(total.sum(), given, flow)
    assert not found["kpts_sigma"].any()
    assert not found["inner"].any()
    spread = given.preds["kpts"].detach() + torch.randn(given.preds["kpts"].shape)
    again = loss_of(SECOND, flow, backend=backend).assign({**given.preds, "kpts": spread}, given.targets)
    assert as_dict(again) == as_dict(held)


@BACKENDS
def test_keypoints_and_not_boxes_decide_in_the_second_generation(backend: BackendName) -> None:
    spec = replace(SECOND, flow=False)
    given = batch(spec, seed=8, seen=1.0, noise=0.05)
    loss = loss_of(spec, backend=backend)
    moved = {**given.preds, "boxes": given.preds["boxes"].detach() + 3}
    assert as_dict(loss.assign(moved, given.targets)) == as_dict(loss.assign(given.preds, given.targets))


@BACKENDS
def test_another_default_device_changes_nothing(backend: BackendName) -> None:
    given, flow = batch(SECOND), Flow()
    criterion = loss_of(SECOND, flow, backend=backend)
    expected = gradients(criterion(given.preds, given.targets)[0].sum(), given, flow)
    with torch.device("meta"):
        found = gradients(criterion(given.preds, given.targets)[0].sum(), given, flow)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@BACKENDS
def test_of_equal_boxes_the_first_holds_all(backend: BackendName) -> None:
    spec = replace(SECOND, keypoint_shape=(17, 3), flow=False)
    given = batch(spec, boxes=1, images=1, seed=3, seen=1.0, noise=0.05)
    twice = {key: torch.cat([value] * 3) for key, value in given.targets.items()}
    assert set(loss_of(spec, backend=backend).assign(given.preds, twice).box.tolist()) == {0}


@BACKENDS
@pytest.mark.parametrize(
    ("side", "levels"), [(15.0, {8}), (33.0, {8, 16}), (97.0, {16, 32}), (95.0, {8, 16, 32}), (193.0, {32}), (31.0, {8})]
)
def test_boxes_hold_anchors_of_the_levels_that_they_fit(backend: BackendName, side: float, levels: set[int]) -> None:
    spec = PoseSpec(num_classes=1, reg_max=1, keypoint_shape=(1, 2), generation=2, topk=2000)
    given = batch(spec, boxes=0, images=1, size=256)
    box = torch.tensor([[0.5, 0.5, side / 256, side / 256]])
    targets = {"batch_idx": torch.zeros(1), "cls": torch.zeros(1), "bboxes": box, "keypoints": torch.full((1, 1, 2), 0.5)}
    loss = loss_of(spec, backend=backend)
    held = loss.assign(given.preds, targets)
    assert set(loss.anchors(given.preds)[1][held.anchor].tolist()) == levels


@BACKENDS
def test_a_box_that_fits_only_levels_without_candidates_keeps_all(backend: BackendName) -> None:
    # √(14 · 500) = 84 fits strides 8 to 32, but the box lies between the centres of stride 8 and 16 and is lengthened only to 16 px.
    spec = PoseSpec(num_classes=1, reg_max=1, keypoint_shape=(1, 2), generation=2, topk=2000)
    given = batch(spec, boxes=0, images=1, size=1024)
    box = torch.tensor([[0.5, 0.5, 14 / 1024, 720 / 1024]])
    targets = {"batch_idx": torch.zeros(1), "cls": torch.zeros(1), "bboxes": box, "keypoints": torch.full((1, 1, 2), 0.5)}
    loss = loss_of(spec, backend=backend)
    held = loss.assign(given.preds, targets)
    assert set(loss.anchors(given.preds)[1][held.anchor].tolist()) == {8}
    assert math.sqrt(14 * 720) > 12 * 8


@pytest.mark.parametrize("spec", [FIRST, SECOND])
def test_reference_ties_hold_anchors_of_weight_0(spec: PoseSpec) -> None:
    given = batch(spec, boxes=6, seed=9, noise=8.0)
    stable, reference = (loss_of(spec, backend="torch", ties=ties).assign(given.preds, given.targets) for ties in ("stable", "reference"))
    assert (reference.weight == 0).any()
    assert spec.generation == 2 or (stable.weight > 0).all()
    with pytest.raises(ValueError, match="ties='reference'"):
        loss_of(spec, backend="native", ties="reference").assign(given.preds, given.targets)


@pytest.mark.parametrize("spec", [FIRST, SECOND])
def test_both_branches_train_the_same_flow(spec: PoseSpec) -> None:
    flow = Flow()
    many, one = batch(spec, seed=12), batch(spec, seed=13)
    both = EndToEndLoss(spec, flow=flow, epochs=10) if spec.flow else EndToEndLoss(spec, epochs=10)
    total, items = both({"one2many": many.preds, "one2one": one.preds}, many.targets)
    parts = [
        loss_of(replace(spec, topk=topk, topk2=topk2), flow)(preds, many.targets)
        for topk, topk2, preds in ((10, None, many.preds), (7, 1, one.preds))
    ]
    torch.testing.assert_close(total, 0.8 * parts[0][0] + 0.2 * parts[1][0])
    assert items == parts[1][1]
    if spec.flow:
        total.sum().backward()
        ours = [parameter.grad for parameter in flow.parameters()]
        apart = [torch.autograd.grad(part.sum(), tuple(flow.parameters()), retain_graph=True) for part, _ in parts]
        for found, first, second in zip(ours, *apart, strict=True):
            torch.testing.assert_close(found, 0.8 * first + 0.2 * second)


def test_without_deviations_there_is_no_likelihood() -> None:
    given, flow = batch(SECOND), Flow()
    for preds in ({**given.preds, "kpts_sigma": None}, {key: value for key, value in given.preds.items() if key != "kpts_sigma"}):
        total, items = loss_of(SECOND, flow)(preds, given.targets)
        assert total[5] == items["rle_loss"] == 0
        total.sum().backward()
        assert all(parameter.grad is None for parameter in flow.parameters())
    empty = batch(SECOND, boxes=0)
    loss_of(SECOND, flow)({**empty.preds, "kpts_sigma": None}, empty.targets)[0].sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in flow.parameters())


def test_a_model_without_flow_needs_no_gradient_of_deviations() -> None:
    spec = replace(SECOND, flow=False)
    given = batch(SECOND)
    loss_of(spec)(given.preds, given.targets)[0].sum().backward()
    assert given.preds["kpts_sigma"].grad is None


def test_older_layout_is_a_pair_of_maps_and_keypoints() -> None:
    given = batch(FIRST, seed=2)
    columns = torch.cat([given.preds["boxes"], given.preds["scores"]], dim=1)
    grids = [tuple(level.shape[-2:]) for level in given.preds["feats"]]
    parts = columns.split([rows * width for rows, width in grids], dim=-1)
    maps = [part.reshape(len(columns), -1, *grid) for part, grid in zip(parts, grids, strict=True)]
    loss = loss_of(FIRST)
    torch.testing.assert_close(loss((maps, given.preds["kpts"]), given.targets)[0], loss(given.preds, given.targets)[0])


def spoiled(change: str) -> dict[str, Any]:
    """Keypoints with something wrong."""
    good = batch(FIRST, seed=1, seen=1.0).targets["keypoints"]
    wrong = good.clone()
    if change == "nan":
        wrong[2, 3, 1] = torch.nan
    elif change == "infinite":
        wrong[2, 3, 0] = -torch.inf
    elif change == "negative visibility":
        wrong[1, 0, 2] = -1
    elif change == "nan visibility":
        wrong[1, 0, 2] = torch.nan
    else:
        wrong = {
            "one row": good[:1],
            "rows": good[:3],
            "flat": good.flatten(1),
            "points": good[:, :3],
            "four": good.repeat(1, 1, 2)[..., :4],
        }[change]
    return {"keypoints": wrong}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("nan", "row 2, keypoint 3 .* finite"),
        ("infinite", "row 2, keypoint 3 .* finite"),
        ("negative visibility", "row 1, keypoint 0 .* visibility"),
        ("nan visibility", "row 1, keypoint 0 .* visibility"),
        ("one row", "1 rows and batch\\['bboxes'\\] 5"),
        ("rows", "3 rows and batch\\['bboxes'\\] 5"),
        ("flat", "shape \\(5, 15\\); expected \\(5, 5, 2 or 3\\)"),
        ("points", "shape \\(5, 3, 3\\), and the definition 5 keypoints"),
        ("four", "shape \\(5, 5, 4\\)"),
    ],
)
@pytest.mark.parametrize("spec", [FIRST, SECOND])
def test_bad_keypoints_are_named(spec: PoseSpec, change: str, words: str) -> None:
    given = batch(spec, seed=1, seen=1.0)
    with pytest.raises(ValueError, match=words):
        loss_of(spec)(given.preds, {**given.targets, **spoiled(change)})


def test_missing_keypoints_are_named() -> None:
    given = batch(FIRST)
    with pytest.raises(ValueError, match="batch has no 'keypoints'"):
        loss_of(FIRST)(given.preds, {key: value for key, value in given.targets.items() if key != "keypoints"})


@pytest.mark.parametrize(("key", "channels"), [("kpts", 15), ("kpts_sigma", 10)])
def test_wrong_predictions_are_named(key: str, channels: int) -> None:
    given = batch(SECOND)
    for wrong in (given.preds[key][:, 1:], given.preds[key][..., 1:]):
        with pytest.raises(ValueError, match=rf"preds\['{key}'\] has shape .*; expected \(2, {channels}, 84\)"):
            loss_of(SECOND)({**given.preds, key: wrong}, given.targets)


@pytest.mark.parametrize("spec", [FIRST, SECOND])
def test_numbers_of_invisible_keypoints_are_not_read(spec: PoseSpec) -> None:
    given = batch(spec, seed=3, seen=0.5)
    expected = loss_of(spec)(given.preds, given.targets)[0]
    hidden = given.targets["keypoints"][..., 2] == 0
    for bad in (torch.nan, torch.inf):
        wrong = given.targets["keypoints"].clone()
        wrong[..., :2][hidden] = bad
        assert torch.equal(loss_of(spec)(given.preds, {**given.targets, "keypoints": wrong})[0], expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.bool])
def test_targets_of_any_real_dtype(dtype: torch.dtype) -> None:
    given = batch(FIRST, seed=3)
    rounded = given.targets["keypoints"].to(dtype)
    ours = loss_of(FIRST)(given.preds, {**given.targets, "keypoints": rounded})[0]
    assert torch.equal(ours, loss_of(FIRST)(given.preds, {**given.targets, "keypoints": rounded.to(torch.float32)})[0])


@pytest.mark.parametrize("flags", [1.0, 2.0])
def test_hidden_and_visible_keypoints_are_alike(flags: float) -> None:
    given = batch(SECOND, seed=3)
    expected = loss_of(SECOND)(given.preds, given.targets)[0]
    other = given.targets["keypoints"].clone()
    other[..., 2] = torch.where(other[..., 2] > 0, flags, 0.0)
    assert torch.equal(loss_of(SECOND)(given.preds, {**given.targets, "keypoints": other})[0], expected)


@pytest.mark.parametrize("flag", [0.5, 3.0, torch.inf])
def test_a_visibility_is_0_1_or_2(flag: float) -> None:
    given = batch(SECOND, seed=3)
    other = given.targets["keypoints"].clone()
    other[1, 0, 2] = flag
    with pytest.raises(ValueError, match=r"row 1, keypoint 0 .* visibility"):
        loss_of(SECOND)(given.preds, {**given.targets, "keypoints": other})


@BACKENDS
@pytest.mark.parametrize("infinity", [torch.inf, -torch.inf])
def test_infinite_predictions_are_as_their_limits(backend: BackendName, infinity: float) -> None:
    given, flow = batch(SECOND, seed=3, seen=1.0), Flow()
    loss = loss_of(SECOND, flow, backend=backend)
    held = loss.assign(given.preds, given.targets)
    kpts = given.preds["kpts"].detach().clone()
    kpts[held.image[0], 0, held.anchor[0]] = infinity
    preds = {**given.preds, "kpts": kpts.requires_grad_()}
    total, _ = loss.loss_given(preds, given.targets, held)
    assert total.isfinite().all()
    total.sum().backward()
    assert kpts.grad is not None
    assert kpts.grad.isfinite().all()
    assert kpts.grad[held.image[0], 0, held.anchor[0]] == 0
    again = as_dict(loss.assign(preds, given.targets))
    assert all(math.isfinite(weight) for _, weight in again.values())


def with_nan(key: str, loss: PoseLoss, given: Batch) -> tuple[dict[str, Any], tuple[Tensor, int, Tensor]]:
    """Predictions with a NaN in the first channel of ``key`` at the first held anchor, and where it is."""
    held = loss.assign(given.preds, given.targets)
    place = held.image[0], 0, held.anchor[0]
    spoiled = given.preds[key].detach().clone()
    spoiled[place] = torch.nan
    return {**given.preds, key: spoiled}, place


@BACKENDS
def test_a_nan_prediction_shows(backend: BackendName) -> None:
    given = batch(SECOND, seed=3, seen=1.0)
    loss = loss_of(SECOND, backend=backend)
    preds, _ = with_nan("kpts", loss, given)
    total, _ = loss(preds, given.targets)
    assert total.isnan()[[0, 1, 3, 4, 5]].all()


@BACKENDS
def test_a_nan_deviation_shows_in_every_gradient_that_depends_on_it(backend: BackendName) -> None:
    given = batch(SECOND, seed=3, seen=1.0)
    loss = loss_of(SECOND, backend=backend)
    preds, place = with_nan("kpts_sigma", loss, given)
    leaves = {key: preds[key].detach().requires_grad_() for key in ("kpts", "kpts_sigma")}
    total, _ = loss({**preds, **leaves}, given.targets)
    of_points, of_deviations = torch.autograd.grad(total[-1], (leaves["kpts"], leaves["kpts_sigma"]))
    assert of_points[place].isnan()
    assert of_deviations[place].isnan()


def test_a_keypoint_predicted_exactly_has_the_gradient_of_the_flow_alone() -> None:
    """|u| has its kink at 0, where torch takes 0 for its derivative, and so does the native kernel."""
    given = batch(SECOND, seed=3, seen=1.0)
    keypoints = given.targets["keypoints"].clone()
    keypoints[..., :2] = (keypoints[..., :2] * 64).round() / 64  # whole pixels
    targets, found = {**given.targets, "keypoints": keypoints}, []
    for backend in ("torch", "native"):
        loss = loss_of(SECOND, backend=backend)
        held = loss.assign(given.preds, targets)
        centres, strides = loss.anchors(given.preds)
        image, anchor, row = held.image[0], held.anchor[0], held.box[0]
        kpts = given.preds["kpts"].detach().clone()
        kpts[image, 0, anchor] = keypoints[row, 0, 0] * 64 / strides[anchor] - centres[anchor, 0]
        total, _ = loss.loss_given({**given.preds, "kpts": kpts.requires_grad_()}, targets, held)
        found.append(torch.autograd.grad(total[-1], kpts)[0][image, :, anchor])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-7)


def test_a_definition_that_wants_another_flow_cannot_be_set() -> None:
    with_flow, without = loss_of(SECOND), loss_of(replace(SECOND, flow=False))
    for loss, other in ((with_flow, replace(SECOND, flow=False)), (without, SECOND)):
        with pytest.raises(ValueError, match=r"give a flow where, and only where, spec\.flow is True"):
            loss.spec = other
    with pytest.raises(ValueError, match=r"spec is a LossSpec, of the task 'detect'; PoseLoss takes a PoseSpec"):
        without.spec = LossSpec(num_classes=2)
    without.spec = replace(SECOND, flow=False, topk=3)
    assert without.spec.topk == 3


def test_a_batch_changed_between_the_passes_changes_nothing() -> None:
    given, flow = batch(SECOND, seed=3), Flow()
    expected = gradients(loss_of(SECOND, flow)(given.preds, given.targets)[0].sum(), given, flow)
    total = loss_of(SECOND, flow)(given.preds, given.targets)[0].sum()
    for target in given.targets.values():
        target.fill_(0)
    for name, gradient in gradients(total, given, flow).items():
        assert torch.equal(gradient, expected[name]), name


def test_kernels_leave_scattered_keypoints_to_torch() -> None:
    given = batch(SECOND, seed=3)
    scattered = {**given.preds, "kpts": given.preds["kpts"].detach().transpose(1, 2).contiguous().transpose(1, 2)}
    with pytest.raises(ValueError, match="neighbouring anchors of kpts lie 15 elements apart"):
        loss_of(SECOND, backend="native")(scattered, given.targets)
    torch.testing.assert_close(loss_of(SECOND)(scattered, given.targets)[0], loss_of(SECOND)(given.preds, given.targets)[0])


@BACKENDS
@pytest.mark.parametrize("spec", [replace(FIRST, reg_max=1), SECOND])
def test_gradients_of_predictions_are_written_once(spec: PoseSpec, backend: BackendName) -> None:
    given, flow = batch(spec, boxes=4, size=320, noise=0.1), Flow()
    loss = loss_of(spec, flow, backend=backend)
    total = loss(given.preds, given.targets)[0].sum()
    with Sizes() as sizes:
        total.backward()
    large = [made for made in sizes.made if made >= 4 * given.preds["kpts_sigma" if spec.flow else "kpts"].numel()]
    assert len(large) == (2 if spec.flow else 1), "of kpts and kpts_sigma, each"


@BACKENDS
def test_little_is_kept_between_the_passes(backend: BackendName) -> None:
    given = batch(FIRST, boxes=4, size=320)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if all(tensor.data_ptr() != leaf.data_ptr() for leaf in given.leaves().values()):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    loss = loss_of(FIRST, backend=backend)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total, _ = loss(given.preds, given.targets)
    held = len(loss.assign(given.preds, given.targets))
    assert total.requires_grad
    assert sum(kept.values()) <= held * (64 * 8 + 15 * 16 + 200)  # of the boxes, of the keypoints, and indices
