"""The keypoint terms against loops over plain numbers, finite differences, and the limits of section 10 of the pose specification."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from properties.tests.impl.terms.keypoint_loops import Quadratic, Scene, scene
from twinloss.terms import keypoints
from twinloss.terms.keypoints import (
    Generation,
    decode_keypoints,
    deviations,
    doubled_variances,
    keypoint_differences,
    likelihood_term,
    likelihood_weights,
    location_term,
    visibility_term,
    visible,
)

GENERATIONS = pytest.mark.parametrize("generation", [1, 2])
NAMES = ("location", "visibility", "likelihood")


def one_keypoint(raw: list[float], *, seen: bool = True, side: float = 64.0) -> Scene:
    """One held anchor at (2.5, 2.5) on stride 8 with its target at the centre, in the second generation."""
    row = torch.tensor([[raw]], dtype=torch.float64)
    centre = torch.tensor([[2.5, 2.5]], dtype=torch.float64)
    stride, sides = torch.tensor([8.0], dtype=torch.float64), torch.full((1, 2), side, dtype=torch.float64)
    return Scene(row, (centre * 8)[:, None], torch.tensor([[seen]]), centre, stride, sides, 2, (1, 3))


def gradients(case: Scene, flow: Quadratic) -> Iterator[tuple[str, float, Tensor, Tensor]]:
    """Name and value of each term, and its gradients by the predictions and by the flow's numbers."""
    raw = case.raw.clone().requires_grad_()
    for name, term in zip(NAMES, case.terms(raw, flow), strict=True):
        to_raw, to_flow = torch.autograd.grad(term, (raw, flow.numbers), retain_graph=True, allow_unused=True, materialize_grads=True)
        yield name, float(term.detach()), to_raw, to_flow


@GENERATIONS
@pytest.mark.parametrize("keypoints", [1, 5, 17, 21])
@pytest.mark.parametrize("seen", [0.0, 0.6, 1.0])
def test_values_are_those_of_loops(generation: Generation, keypoints: int, seen: float) -> None:
    case, flow = scene(keypoints, generation, held=4, seed=keypoints, seen=seen), Quadratic()
    found = [float(term.detach()) for term in case.terms(case.raw, flow)]
    assert found == pytest.approx(case.by_loops(case.raw.tolist(), flow), rel=1e-12, abs=1e-15)


@GENERATIONS
@pytest.mark.parametrize("keypoints", [1, 5])
def test_gradients_are_the_slopes_of_loops(generation: Generation, keypoints: int) -> None:
    case, flow = scene(keypoints, generation, seed=7), Quadratic()
    step = 1e-6
    assert case.by_loops(case.raw.tolist(), flow)[2] > 0, "the likelihood must not be silenced"
    for number, (name, _, to_raw, to_flow) in enumerate(gradients(case, flow)):
        for place in torch.ones_like(case.raw).nonzero().tolist():
            ends = []
            for sign in (1, -1):
                moved = case.raw.clone()
                moved[tuple(place)] += sign * step
                ends.append(case.by_loops(moved.tolist(), flow)[number])
            assert float(to_raw[tuple(place)]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-8), (name, place)
        for place in range(3):
            ends = []
            for sign in (1, -1):
                moved_flow = Quadratic()
                moved_flow.numbers.data[place] += sign * step
                ends.append(case.by_loops(case.raw.tolist(), moved_flow)[number])
            assert float(to_flow[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-8), (name, place)


@GENERATIONS
def test_decoding_is_that_of_the_terms(generation: Generation) -> None:
    case = scene(5, generation, held=2)
    kpts = case.raw[..., :3].reshape(1, 2, 15).transpose(1, 2).contiguous()  # one image with two anchors
    decoded = decode_keypoints(kpts, case.centres, (5, 3), generation)[0]
    difference = keypoint_differences(case.raw[..., :2], case.target, case.centres, case.strides, generation)
    torch.testing.assert_close(decoded[..., :2], difference + case.target / case.strides[:, None, None], rtol=1e-13, atol=1e-13)
    assert torch.equal(decoded[..., 2], case.raw[..., 2])


def test_exact_predictions_cost_nothing_and_silence_the_likelihood() -> None:
    case = one_keypoint([0.0, 0.0, 40.0, -3.0, -3.0])
    for name, value, to_raw, to_flow in gradients(case, Quadratic()):
        assert value == pytest.approx(0, abs=1e-15), name
        assert to_raw[..., :2].abs().sum() == 0, name
        if name == "likelihood":
            assert to_raw.abs().sum() == 0
            assert to_flow.abs().sum() == 0


def test_likelihood_of_exactly_zero_passes_its_gradient() -> None:
    case = one_keypoint([0.0, 0.0, 0.0, 1.0, 1.0])
    level = float(2 * (2 * deviations(torch.tensor(1.0, dtype=torch.float64), 0).log() + math.log(2)))
    offset = torch.tensor(level / 2, dtype=torch.float64, requires_grad=True)
    _, _, term = case.terms(case.raw.requires_grad_(), lambda latent: latent[:, 0] * 0 + offset)
    term.backward()
    assert float(term.detach()) == 0
    assert offset.grad == -2
    assert case.raw.grad is not None
    assert case.raw.grad[0, 0, 3] != 0


@pytest.mark.parametrize("raw", [-torch.inf, torch.inf, torch.nan])
@pytest.mark.parametrize("component", range(5))
def test_what_belongs_to_an_invisible_keypoint_is_not_read(raw: float, component: int) -> None:
    case = scene(3, 2, held=2, seed=3, seen=0.0)
    case.visible[0] = torch.tensor([True, False, True])
    expected = [(value, to_raw, to_flow) for _, value, to_raw, to_flow in gradients(case, Quadratic())]
    case.raw[0, 1, component] = raw
    for (name, value, to_raw, to_flow), (before, raw_before, flow_before) in zip(gradients(case, Quadratic()), expected, strict=True):
        if component == 2 and name == "visibility":  # its logit is: 0 when right, infinite when wrong, NaN for NaN
            assert value == torch.inf if raw == torch.inf else value < before if raw == -torch.inf else math.isnan(value)
            assert math.isnan(raw) or to_raw.isfinite().all()
        else:
            assert value == before, name
            assert torch.equal(to_raw, raw_before), name
            assert torch.equal(to_flow, flow_before), name


@pytest.mark.parametrize("infinity", [torch.inf, -torch.inf])
def test_an_infinite_coordinate_costs_one_and_does_not_pull(infinity: float) -> None:
    case = scene(4, 1, held=1, seed=5, seen=1.0)
    case.raw[0, 2, 0] = infinity
    without = replace(case, visible=torch.tensor([[True, True, False, True]]))
    others = {name: (value, to_raw) for name, value, to_raw, _ in gradients(without, Quadratic())}
    for name, value, to_raw, _ in gradients(case, Quadratic()):
        assert to_raw.isfinite().all(), name
        if name == "location":
            assert value == pytest.approx((others[name][0] * 3 + 1) / 4)
        if name == "likelihood":  # the pair is left out
            assert value == others[name][0]
            assert torch.equal(to_raw, others[name][1])


def test_a_nan_shows_in_what_reads_it() -> None:
    case = scene(4, 2, held=2, seed=5, seen=1.0)
    for component, shown in ((0, {"location", "likelihood"}), (2, {"visibility"}), (4, {"likelihood"})):
        spoiled = replace(case, raw=case.raw.clone())
        spoiled.raw[1, 1, component] = torch.nan
        assert {name for name, value, *_ in gradients(spoiled, Quadratic()) if math.isnan(value)} == shown


def test_clamped_latents_pull_on_the_deviation_and_the_flow_alone() -> None:
    case, flow = one_keypoint([30.0, -30.0, 0.0, -6.0, -6.0]), Quadratic()  # u = ±30 / 0.0025
    _, value, to_raw, to_flow = list(gradients(case, flow))[2]
    assert value > 0
    assert to_raw[..., :2].abs().sum() == 0
    deviation = float(deviations(torch.tensor(-6.0, dtype=torch.float64), 0))
    assert to_raw[0, 0, 3:].tolist() == pytest.approx([2 * (1 - deviation)] * 2)
    assert to_flow[0] == -2 * 100**2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_deviations_have_the_floor_of_their_dtype(dtype: torch.dtype) -> None:
    raw = torch.tensor([-torch.inf, -1000.0, 0.0, torch.inf], dtype=dtype, requires_grad=True)
    share = deviations(raw, torch.finfo(dtype).tiny)
    assert share.tolist() == [torch.finfo(dtype).tiny, torch.finfo(dtype).tiny, 0.5, 1.0]
    share.log().sum().backward()
    assert raw.grad is not None
    assert raw.grad.tolist() == [0, 0, 0.5, 0]


@pytest.mark.parametrize("infinity", [torch.inf, -torch.inf])
def test_infinite_deviations_leave_all_finite(infinity: float) -> None:
    case = one_keypoint([0.5, -0.25, 0.0, infinity, infinity])
    _, value, to_raw, to_flow = list(gradients(case, Quadratic()))[2]
    assert math.isfinite(value)
    assert to_raw.isfinite().all()
    assert to_flow.isfinite().all()
    assert to_raw[0, 0, 3:].abs().sum() == 0


@pytest.mark.parametrize(
    ("logit", "seen", "expected"), [(torch.inf, True, 0), (-torch.inf, True, torch.inf), (torch.inf, False, torch.inf)]
)
def test_infinite_logits_have_the_limits_of_cross_entropy(logit: float, seen: bool, expected: float) -> None:
    case = one_keypoint([0.0, 0.0, logit, 0.0, 0.0], seen=seen)
    _, value, to_raw, _ = list(gradients(case, Quadratic()))[1]
    assert value == expected
    assert to_raw[0, 0, 2] == {0: 0, torch.inf: math.copysign(1, logit)}[expected]


@pytest.mark.parametrize(("held", "seen"), [(0, 1.0), (3, 0.0)])
def test_gradients_are_zero_and_not_missing_where_nothing_counts(held: int, seen: float) -> None:
    case, flow = scene(5, 2, held=held, seen=seen), Quadratic()
    raw = case.raw.clone().requires_grad_()
    location, visibility, likelihood = case.terms(raw, flow)
    assert float(location.detach()) == float(likelihood.detach()) == 0
    for found in torch.autograd.grad(location + likelihood, (raw, flow.numbers)):
        assert found.abs().sum() == 0
    assert held or float(visibility.detach()) == 0


def test_the_flow_is_given_the_pairs_that_count_alone() -> None:
    case, given = scene(5, 2, held=3, seed=2), []

    def flow(latent: Tensor) -> Tensor:
        given.append(latent)
        return latent.sum(-1) * 0

    case.raw[case.visible.nonzero()[0, 0], case.visible.nonzero()[0, 1], 1] = torch.inf
    case.terms(case.raw, flow, torch.float32)
    assert [latent.shape for latent in given] == [(int(case.visible.sum()) - 1, 2)]
    assert given[0].dtype == torch.float32


@pytest.mark.parametrize("seen", [0.0, 0.5])
def test_where_the_host_does_not_wait_the_flow_is_given_zeros_for_the_others(monkeypatch: pytest.MonkeyPatch, seen: float) -> None:
    case, flow, given = scene(5, 2, held=3, seed=2, seen=seen), Quadratic(), []
    case.raw[0, ~case.visible[0]] = torch.nan
    expected = list(gradients(case, flow))[2]

    def recorded(latent: Tensor) -> Tensor:
        given.append(latent)
        density: Tensor = flow(latent)
        return density

    monkeypatch.setattr(keypoints, "_waits_for_nothing", lambda _: False)
    assert float(case.terms(case.raw, recorded)[2].detach()) == pytest.approx(expected[1], rel=1e-12)
    assert len(given[0]) == case.visible.numel()
    assert not given[0][~case.visible.view(-1)].any()
    for ours, theirs in zip(list(gradients(case, flow))[2][2:], expected[2:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_a_flow_of_another_shape_is_named() -> None:
    case = scene(5, 2, held=3, seed=2, seen=1.0)
    with pytest.raises(ValueError, match=r"given points \(15, 2\) and returned \(15, 1\)"):
        case.terms(case.raw, lambda latent: latent[:, :1])


def test_zero_areas_cost_one_unless_exact() -> None:
    assert float(one_keypoint([1e-3, 0.0, 0.0, 0.0, 0.0], side=0.0).terms(torch.zeros(1, 1, 5), Quadratic())[0]) == 0
    off = one_keypoint([1e-3, 0.0, 0.0, 0.0, 0.0], side=0.0)
    assert float(off.terms(off.raw, Quadratic())[0]) == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_as_its_numbers_in_double(dtype: torch.dtype) -> None:
    case, flow = scene(17, 2, held=6, seed=4), Quadratic()
    low, high = case.raw.to(dtype).requires_grad_(), case.raw.to(dtype).to(torch.float64).requires_grad_()
    for name, of_low, of_high in zip(NAMES, case.terms(low, flow, torch.float32), case.terms(high, flow), strict=True):
        torch.testing.assert_close(of_low, of_high, rtol=1e-6, atol=0, msg=name)
        (to_low,), (to_high,) = (torch.autograd.grad(term, raw, retain_graph=True) for term, raw in ((of_low, low), (of_high, high)))
        assert to_low.dtype == dtype
        allowance = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 1e-5}[dtype]
        torch.testing.assert_close(to_low.to(torch.float64), to_high, rtol=allowance, atol=1e-6, msg=name)


def test_visibility_is_all_that_is_not_zero() -> None:
    keypoints = torch.tensor([[[0.1, 0.2, 0.0], [0.1, 0.2, 1.0], [0.1, 0.2, 2.0], [0.1, 0.2, 0.5]]])
    assert visible(keypoints).tolist() == [[False, True, True, True]]
    assert visible(keypoints[..., :2]).all()


def test_constants_of_coco_come_with_its_shape_alone() -> None:
    device = torch.device("cpu")
    coco = doubled_variances((17, 3), None, torch.float64, device)
    assert coco[[0, 16]].tolist() == pytest.approx([2 * 0.052**2, 2 * 0.178**2], rel=1e-6)
    assert set(doubled_variances((17, 2), None, torch.float64, device).tolist()) == {2 * (2 / 17) ** 2}
    assert doubled_variances((2, 3), (0.1, 0.2), torch.float64, device).tolist() == pytest.approx([0.08, 0.32], rel=1e-6)
    assert likelihood_weights((17, 3), device)[[5, 7, 9, 11]].tolist() == pytest.approx([1, 1.2, 1.5, 1])
    assert likelihood_weights((17, 2), device).tolist() == [1] * 17


def test_terms_keep_what_their_gradients_need_and_no_more() -> None:
    case = scene(17, 1, held=50, seen=1.0)
    raw = case.raw.to(torch.float32).requires_grad_()
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        difference = keypoint_differences(raw[..., :2], case.target, case.centres, case.strides, 1)
        location = location_term(difference, case.visible, case.sides.prod(-1), case.doubled)
        visibility = visibility_term(raw[..., 2], case.visible)
    assert (location + visibility).requires_grad
    assert sum(kept.values()) <= 50 * 17 * (2 * 8 + 3 * 8)  # a slope for each coordinate, and three numbers for each logit


def test_a_likelihood_without_weights_is_zero() -> None:
    case = scene(3, 2, seen=1.0)
    difference = keypoint_differences(case.raw[..., :2], case.target, case.centres, case.strides, 2)
    nothing = torch.zeros(3, dtype=torch.float64)
    assert likelihood_term(difference, case.raw[..., 3:], case.visible, nothing, Quadratic(), torch.float64, 0) == 0
