"""Functions that the kernels share, each in a kernel of its own: against float64 and against autograd."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from twinloss import ciou as torch_ciou
from twinloss.backends.triton.arithmetic import (
    arctangent,
    decay,
    index_of,
    log1p,
    log_beside_one,
    one_less_decay,
    ordered_bits,
    power,
    principal,
    ranked,
    sigmoid,
    sine_cosine,
)
from twinloss.backends.triton.bins import bin_logits, expectation, exponentials
from twinloss.backends.triton.overlap import ciou, ciou_gradient
from twinloss.backends.triton.softplus import logit_tile, softplus_sum

COUNT = 1024
ROUNDING = {"enable_fp_fusion": False}  # As every launch of the loss asks for.


@triton.jit
def _elementwise(x, y, FUNCTION: tl.constexpr, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.arange(0, COUNT)
    v = tl.load(x + i)
    if FUNCTION == "arctangent":
        r = arctangent(v)
    elif FUNCTION == "sigmoid":
        r = sigmoid(v)
    elif FUNCTION == "decay":
        r = decay(v)
    elif FUNCTION == "log1p":
        r = log1p(v)
    elif FUNCTION == "log beside one":
        r = log_beside_one(v)
    elif FUNCTION == "one less decay":
        r = one_less_decay(-v)
    elif FUNCTION == "sine":
        r, _ = sine_cosine(principal(v))
    elif FUNCTION == "cosine":
        _, r = sine_cosine(principal(v))
    elif FUNCTION == "sqrt":
        r = power(v, 0.5)
    elif FUNCTION == "sixth":
        r = power(v, 6.0)
    else:
        r = power(v, 2.7)
    tl.store(y + i, r)


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[float, float], float]] = {
    "arctangent": (torch.atan, (-14, 14), 3),
    "log1p": (torch.log1p, (-40, 5.6), 4),
    "log beside one": (torch.log1p, (-30, 20), 6),
    "one less decay": (lambda x: -torch.expm1(-x), (-30, 5), 4),
    "sqrt": (torch.sqrt, (-30, 0), 1),
    "sixth": (lambda x: x**6, (-12, 0), 3),
    "power": (lambda x: x**2.7, (-12, 0), 60),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_within_a_few_roundings(name: str, device: str) -> None:
    exact, (low, high), most = FUNCTIONS[name]
    x = torch.linspace(low, high, COUNT).exp().to(device)
    if name == "arctangent":
        x[::2] *= -1
    y = torch.empty_like(x)
    _elementwise[(1,)](x, y, name, COUNT, **ROUNDING)
    expected = exact(x.double())
    off = (y.double() - expected).abs() / (expected.abs() * 2**-24)
    assert off.max() <= 2 * most, f"{name} at {x[off.argmax()]:.9g} is off by {off.max() / 2:.1f} units in the last place"


@pytest.mark.parametrize(("most", "allowed"), [(8.0, 1.5e-7), (1e3, 1e-6), (1e5, 3e-6)])
@pytest.mark.parametrize("name", ["sine", "cosine"])
def test_sine_and_cosine_of_any_angle(name: str, most: float, allowed: float, device: str) -> None:
    x = torch.linspace(-most, most, COUNT).to(device)
    y = torch.empty_like(x)
    _elementwise[(1,)](x, y, name, COUNT, **ROUNDING)
    expected = x.double().sin() if name == "sine" else x.double().cos()
    assert (y.double() - expected).abs().max() <= allowed
    if most == 8:
        small = torch.linspace(1e-6, 0.1, COUNT).to(device)
        _elementwise[(1,)](small, y, "sine", COUNT, **ROUNDING)
        assert (y.double() / small.double().sin() - 1).abs().max() <= 2**-22


def test_arctangent_at_its_ends(device: str) -> None:
    x = torch.zeros(COUNT, device=device)
    x[:6] = torch.tensor([0.0, 1.0, -1.0, math.inf, -math.inf, math.nan])
    y = torch.empty_like(x)
    _elementwise[(1,)](x, y, "arctangent", COUNT, **ROUNDING)
    assert y[:5].tolist() == pytest.approx([0, math.pi / 4, -math.pi / 4, math.pi / 2, -math.pi / 2], rel=1e-6)
    assert y[5].isnan()


def test_decay_is_within_one_rounding_of_the_exponential(device: str) -> None:
    x = -torch.linspace(0, 9.3, COUNT).square().to(device)  # From 0 to -86.5, most of them small.
    y = torch.empty_like(x)
    _elementwise[(1,)](x, y, "decay", COUNT, **ROUNDING)
    off = (y.double() / x.double().exp() - 1).abs()
    assert off.max() <= 2**-23, f"at {x[off.argmax()]:.9g} it is off by {off.max() * 2**23:.2f} units in the last place"
    x[:6] = torch.tensor([-87.5, -200.0, -1e30, -math.inf, math.nan, -0.0])
    _elementwise[(1,)](x, y, "decay", COUNT, **ROUNDING)
    assert y[:6].tolist() == pytest.approx([0, 0, 0, 0, math.nan, 1], abs=0, nan_ok=True)


@triton.jit
def _shares(column, total, mean, anchors, R: tl.constexpr, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.arange(0, COUNT)
    parts, whole, _ = exponentials(bin_logits(column + i, i < COUNT, anchors, 0, R), R)
    tl.store(total + i, whole)
    tl.store(mean + i, expectation(parts, whole, R))


@pytest.mark.parametrize("bins", [2, 5, 16, 32])
def test_many_small_shares_beside_a_large_one_do_not_add_up_their_roundings(bins: int, device: str) -> None:
    logits = torch.rand(bins, COUNT, generator=torch.Generator().manual_seed(8)) * 0.5 - 12
    logits[0] += 12
    total, mean = (torch.empty(COUNT, device=device) for _ in range(2))
    _shares[(1,)](logits.to(device), total, mean, COUNT, bins, COUNT, **ROUNDING)
    exact = (logits - logits.amax(0)).double().exp()
    for found, expected in (
        (total, exact.sum(0)),
        (mean, (exact * torch.arange(bins)[:, None]).sum(0) / exact.sum(0)),
    ):
        off = (found.cpu().double() / expected - 1).abs().max()
        assert off <= 4 * 2**-23, f"off by {off * 2**23:.1f} units in the last place"


@triton.jit
def _order(x, index, key, back, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.arange(0, COUNT)
    k = ranked(ordered_bits(tl.load(x + i)), tl.load(index + i))
    tl.store(key + i, k)
    tl.store(back + i, index_of(k))


def test_keys_order_by_value_then_by_the_lower_index_and_nan_is_above_all(device: str) -> None:
    x = torch.rand(COUNT, device=device).round(decimals=1)
    x[:4] = torch.tensor([math.nan, -math.nan, math.inf, 0.0])
    index = torch.randperm(COUNT, device=device).to(torch.int32)
    index[-1] = 2**31 - 1
    key, back = torch.empty(COUNT, dtype=torch.int64, device=device), torch.empty_like(index)
    _order[(1,)](x, index, key, back, COUNT, **ROUNDING)
    order = sorted(range(COUNT), key=lambda i: (math.inf if x[i].isnan() else 0, float(x[i].nan_to_num()), -int(index[i])))
    assert key.argsort().tolist() == order
    assert torch.equal(back, index)
    assert key.min() >= 0


@triton.jit
def _ciou(a, b, value, gradient, eps, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.arange(0, COUNT)
    first = (tl.load(a + 4 * i), tl.load(a + 4 * i + 1), tl.load(a + 4 * i + 2), tl.load(a + 4 * i + 3))
    second = (tl.load(b + 4 * i), tl.load(b + 4 * i + 1), tl.load(b + 4 * i + 2), tl.load(b + 4 * i + 3))
    tl.store(value + i, ciou(first, second, eps))
    x1, y1, x2, y2 = ciou_gradient(first, second, eps)
    tl.store(gradient + 4 * i, x1)
    tl.store(gradient + 4 * i + 1, y1)
    tl.store(gradient + 4 * i + 2, x2)
    tl.store(gradient + 4 * i + 3, y2)


def _boxes(kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    # Whole coordinates make sides coincide, and boxes touch, as often as not.
    step = {"random": 1e-3, "coinciding": 4.0}[kind]
    low = (torch.rand(2, COUNT, 2, generator=generator) * 12 / step).round() * step
    size = (torch.rand(2, COUNT, 2, generator=generator) * 8 / step).round() * step + step
    first, second = torch.cat([low, low + size], dim=-1).unbind()
    second[: COUNT // 8] = first[: COUNT // 8]
    return first.contiguous(), second.contiguous()


@pytest.mark.parametrize("kind", ["random", "coinciding"])
def test_ciou_and_its_gradient_are_those_of_autograd(kind: str, device: str) -> None:
    first, second = (boxes.to(device) for boxes in _boxes(kind))
    value, gradient = torch.empty(COUNT, device=device), torch.empty(COUNT, 4, device=device)
    _ciou[(1,)](first, second, value, gradient, 1e-7, COUNT, **ROUNDING)
    leaf = first.double().requires_grad_()
    expected = torch_ciou(leaf, second.double())
    expected.sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(value.double(), expected.detach(), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(gradient.double(), leaf.grad, rtol=1e-4, atol=1e-5)


@triton.jit(do_not_specialize=["tile"])  # In the loss it follows from the program, and is no constant.
def _tile(places, tile, block, image_stride, anchors, classes, BLOCKS: tl.constexpr, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    source, target, remaining, label = logit_tile(tile, block, image_stride, anchors, classes, BLOCKS, TILE)
    tl.store(places, source)
    tl.store(places + 1, target)
    tl.store(places + 2, remaining)
    tl.store(places + 3, label)


@pytest.mark.parametrize(("anchors", "classes", "gap"), [(8400, 80, 0), (8400, 365, 64 * 8400), (21, 3, 7), (1, 1, 0)])
def test_tiles_of_logits_lie_where_they_should_beyond_32_bits_too(anchors: int, classes: int, gap: int, device: str) -> None:
    stride, size = classes * anchors + gap, 4096
    block = {"image": classes * anchors, "class": anchors}
    for tile in (0, 1, 2, 900_001):
        for blocks in ("batch", "image", "class"):
            length = block.get(blocks, 2**33 + 5)
            index, start = (0, tile * size) if blocks == "batch" else (tile // -(-length // size), tile % -(-length // size) * size)
            image, label = (index, 0) if blocks == "image" else divmod(index, classes)
            source = start if blocks == "batch" else image * stride + label * anchors + start
            places = torch.empty(4, dtype=torch.int64, device=device)
            _tile[(1,)](places, tile, length, stride, anchors, classes, blocks, size, **ROUNDING)
            assert places.tolist() == [source, index * length + start, length - start, label]


@triton.jit
def _softplus(x, y, block, anchors, BLOCKS: tl.constexpr, GROUP: tl.constexpr, w, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    tile = tl.program_id(0)
    tl.store(y + tile, softplus_sum(tile, x, block, 3 * anchors, anchors, 3, w, BLOCKS, GROUP, TILE))


@pytest.mark.parametrize("centre", [0.0, -12.0, -80.0, 20.0])
@pytest.mark.parametrize(("dtype", "group"), [(torch.float32, 4), (torch.float16, 8), (torch.bfloat16, 8)])
@pytest.mark.parametrize("weighted", [False, True])
def test_softplus_keeps_what_confident_logits_add(centre: float, dtype: torch.dtype, group: int, weighted: bool, device: str) -> None:
    anchors = 683  # two images of three classes; the last tile of each block is not full
    x = (torch.randn(6, anchors, generator=torch.Generator().manual_seed(1)) * 3 + centre).to(dtype)
    w = torch.tensor([1.0, 0.25, 3.0])
    block = anchors if weighted else x.numel()
    programs = 6 if weighted else -(-block // COUNT)
    y = torch.empty(programs, device=device)
    _softplus[(programs,)](x.to(device), y, block, anchors, "class" if weighted else "batch", group, w.to(device), COUNT, **ROUNDING)
    terms = torch.logaddexp(x.double(), torch.zeros((), dtype=torch.float64)) * (w.double().repeat(2)[:, None] if weighted else 1)
    expected = torch.stack([part.sum() for part in (terms if weighted else terms.flatten().split(COUNT))])
    torch.testing.assert_close(y.cpu().double(), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize(("value", "expected"), [(-math.inf, 0.0), (math.inf, math.inf), (math.nan, math.nan)])
def test_softplus_of_what_is_no_number(value: float, expected: float, device: str) -> None:
    x = torch.full((COUNT,), -math.inf, device=device)
    x[77] = value
    y = torch.empty(1, device=device)
    _softplus[(1,)](x, y, COUNT, COUNT, "batch", 4, x, COUNT, **ROUNDING)
    assert y.item() == pytest.approx(expected, nan_ok=True)
