"""ProbIoU against its definition, written here once more as the specification states it (oriented spec sections 6, 8 and 8a)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from twinloss.geometry.probiou import probiou

EPS = 1e-7
BEST = 1 - math.sqrt(1 - math.exp(-EPS) + EPS)
FLOAT32_UNIT = 2.0**-24


def variances(box: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Entries p, q, c of the covariance."""
    w, h, angle = box[..., 2], box[..., 3], box[..., 4]
    u, v, sin, cos = w**2 / 12 + floor, h**2 / 12 + floor, angle.sin(), angle.cos()
    return u * cos**2 + v * sin**2, u * sin**2 + v * cos**2, (u - v) * cos * sin


def as_stated(first: Tensor, second: Tensor, floor: float) -> Tensor:
    """The formulas of section 6, with the differences in which digits are lost."""
    (p1, q1, c1), (p2, q2, c2) = variances(first, floor), variances(second, floor)
    p, q, m = p1 + p2, q1 + q2, c1 + c2
    e = p * q - m**2
    dx, dy = first[..., 0] - second[..., 0], first[..., 1] - second[..., 1]
    root = ((p1 * q1 - c1**2).clamp(min=0) * (p2 * q2 - c2**2).clamp(min=0)).sqrt()
    beta = (p * dy**2 + q * dx**2) / (4 * (e + EPS)) - m * dx * dy / (2 * (e + EPS)) + 0.5 * (e / (4 * root + EPS) + EPS).log()
    return 1 - (1 - (-beta.clamp(EPS, 100)).exp() + EPS).sqrt()


def pairs(count: int, aspect: float, apart: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Predictions and boxes (count, 5), float32 numbers in float64; sides up to ``aspect`` : 1, predictions off by ``apart`` of them."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw, dtype=torch.float64)

    long = (4 * uniform(count)).exp()
    short = long / aspect ** uniform(count)
    swapped = uniform(count) < 0.5
    w, h = torch.where(swapped, short, long), torch.where(swapped, long, short)
    truth = torch.stack([10 * uniform(count), 10 * uniform(count), w, h, 8 * uniform(count) - 4], dim=-1)
    off = torch.stack([short, short, short, short, short / long], dim=-1) * apart
    predicted = truth + off * torch.randn(count, 5, generator=draw, dtype=torch.float64)
    return predicted.float().double(), truth.float().double()


def kappa(box: Tensor, floor: float) -> Tensor:
    u, v = box[..., 2] ** 2 / 12 + floor, box[..., 3] ** 2 / 12 + floor
    return torch.maximum(u / v, v / u)


def gradient(box: Tensor, other: Tensor, floor: float) -> Tensor:
    box = box.clone().requires_grad_()
    return torch.autograd.grad(probiou(box, other, floor).sum(), box)[0]


shapes = pytest.mark.parametrize("aspect", [1.0, 20.0, 1000.0])
distances = pytest.mark.parametrize("apart", [1e-3, 0.03, 1.0, 30.0])
floors = pytest.mark.parametrize("floor", [0.0, 0.01])


@shapes
@distances
@floors
def test_the_definition_in_float64(aspect: float, apart: float, floor: float) -> None:
    predicted, truth = pairs(1500, aspect, apart)
    stated, unit = as_stated(predicted, truth, floor), 2.0**-53
    # The stated form's own loss of digits, as section 8a bounds it.
    worst = torch.maximum(kappa(predicted, floor), kappa(truth, floor))
    lost = 3 * (unit * worst / (2 * (1 - stated)) + unit) + 1e-13
    assert ((probiou(predicted, truth, floor) - stated).abs() <= 10 * lost).all()


@shapes
@distances
@floors
def test_float32_keeps_its_digits_for_every_shape(aspect: float, apart: float, floor: float) -> None:
    predicted, truth = pairs(1500, aspect, apart)
    exact = probiou(predicted, truth, floor)
    error = (probiou(predicted.float(), truth.float(), floor).double() - exact).abs()
    theirs = (as_stated(predicted.float(), truth.float(), floor).double() - exact).abs().nan_to_num(math.inf)
    # Rounding of a centre beside a short side is the numbers' own; 4 units of the largest overlap are the least error of any program.
    assert error.max() < 2e-6
    assert (error <= theirs + 4 * FLOAT32_UNIT + 1e-6 * (aspect == 1000.0)).all()
    assert error.mean() <= theirs.mean()


@shapes
@distances
def test_gradient_in_float32_has_its_digits(aspect: float, apart: float) -> None:
    predicted, truth = pairs(1500, aspect, apart)
    exact = gradient(predicted, truth, 0.01)
    found = gradient(predicted.float(), truth.float(), 0.01).double()
    norm, error = exact.norm(dim=-1), (found - exact).norm(dim=-1)
    decided = (norm > 0) == (found.norm(dim=-1) > 0)  # not within rounding of a clamp
    assert decided.float().mean() > 0.99
    assert (error <= 1e-3 * norm + 1e-38)[decided].all()  # below that float32 has subnormal numbers
    assert (error <= 3e-5 * norm + 1e-38)[decided].float().mean() > 0.9


def test_gradient_is_that_of_finite_differences() -> None:
    predicted, truth = pairs(24, 30.0, 0.5)
    odd = torch.tensor([[0.3, -0.2, 0.0, 4.0, 0.4], [0.3, -0.2, -3.0, 4.0, 2.0], [1.0, 2.0, -2.0, -5.0, 300.0], [0.5, 0.0, 0.0, 0.0, 1.0]])
    predicted, truth = torch.cat([predicted, odd.double()]), torch.cat([truth, torch.tensor([[0.0, 0, 3, 5, 0.1]]).double().expand(4, 5)])
    torch.autograd.gradcheck(lambda a, b: probiou(a, b, 0.01), (predicted.requires_grad_(), truth.requires_grad_()), eps=1e-7, atol=1e-5)


def test_gradient_is_that_of_the_stated_form() -> None:
    predicted, truth = pairs(1500, 4.0, 0.3)
    leaf = predicted.clone().requires_grad_()
    stated = torch.autograd.grad(as_stated(leaf, truth, 0.01).sum(), leaf)[0]
    torch.testing.assert_close(gradient(predicted, truth, 0.01), stated, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [0.0, -4.0, 1e-30, 1e5])
@floors
def test_finite_for_any_side(side: float, floor: float, dtype: torch.dtype) -> None:
    truth = torch.tensor([[10.0, 10.0, 6.0, 3.0, 0.5]], dtype=dtype).repeat(3, 1)
    predicted = torch.tensor([[11.0, 9.0, side, 3.0, 0.2], [11.0, 9.0, side, side, 0.2], [10.0, 10.0, 6.0, side, 0.5]], dtype=dtype)
    assert probiou(predicted, truth, floor).isfinite().all()
    assert gradient(predicted, truth, floor).isfinite().all()


def test_largest_and_smallest_value() -> None:
    box = torch.tensor([3.0, 4.0, 7.0, 2.0, 0.3], dtype=torch.float64)
    assert float(probiou(box, box)) == pytest.approx(BEST, abs=1e-12)
    far = box + torch.tensor([1e4, 0, 0, 0, 0], dtype=torch.float64)
    assert float(probiou(far, box)) == pytest.approx(1 - math.sqrt(1 + EPS), abs=1e-12)
    for other in (box, far):
        assert (gradient(other, box, 0.01) == 0).all()


@pytest.mark.parametrize(("share", "slope"), [(1e-4, 0.0), (1.8e-4, 0.0), (2e-4, 0.65), (5e-4, 1.04), (5e-2, 1.22)])
def test_gradient_beside_a_perfect_prediction(share: float, slope: float) -> None:
    # Section 8's figures for a square w, off by δ along x: the derivative of the loss times w.
    truth = torch.tensor([0.0, 0.0, 8.0, 8.0, 0.0], dtype=torch.float64)
    predicted = truth + torch.tensor([8 * share, 0, 0, 0, 0], dtype=torch.float64)
    assert float(-8 * gradient(predicted, truth, 0.0)[0]) == pytest.approx(slope, abs=0.02)


@pytest.mark.parametrize("rounded", [torch.float32, torch.float64])
def test_writings_of_the_same_rectangle(rounded: torch.dtype) -> None:
    predicted, truth = (boxes.to(rounded) for boxes in pairs(2000, 10.0, 0.3))
    overlap, tolerance = probiou(predicted, truth), 3e-6 if rounded == torch.float32 else 1e-10
    x, y, w, h, angle = truth.unbind(-1)
    for other in (
        (x, y, w, h, angle + math.pi),
        (x, y, h, w, angle + math.pi / 2),
        (x, y, h, w, angle - math.pi / 2),
        (x, y, -w, h, angle),
    ):
        torch.testing.assert_close(probiou(predicted, torch.stack(other, -1)), overlap, rtol=0, atol=tolerance)
    torch.testing.assert_close(probiou(truth, predicted), overlap, rtol=0, atol=tolerance)


@pytest.mark.parametrize("ulps", [-1, 0, 1])
def test_the_angle_of_a_square_does_not_matter(ulps: int) -> None:
    side = torch.tensor(13.7)
    other = torch.nextafter(side, side + ulps) if ulps else side
    square = torch.tensor([5.0, 6.0, float(side), float(other), 0.0])
    angles = torch.linspace(-3, 3, 61)
    turned = torch.cat([square[:4].expand(61, 4), angles[:, None]], dim=1)
    assert (probiou(turned, square.expand(61, 5)) - BEST).abs().max() < 2e-7
    beside = torch.tensor([6.0, 7.5, 11.0, 4.0, 0.7])
    overlaps = probiou(turned, beside.expand(61, 5))
    assert overlaps.max() - overlaps.min() < 5e-7
    assert gradient(turned, beside.expand(61, 5), 0.01)[:, 4].abs().max() < 1e-6  # the offset of the centre stays where it is


def test_large_angles_keep_their_digits() -> None:
    predicted, truth = pairs(2000, 20.0, 0.1)
    turns = torch.tensor([0.0, 0.0, 0.0, 0.0, 1e4])
    predicted32 = predicted.float() + turns
    exact = probiou(predicted32.double(), truth)
    torch.testing.assert_close(probiou(predicted32, truth.float()).double(), exact, rtol=0, atol=2e-6)
