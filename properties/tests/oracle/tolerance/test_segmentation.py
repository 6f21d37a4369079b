"""Tolerances of the mask and semantic terms hold the reference's roundings, and little more."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, PredictionKind, Setting
from oracle.contract.run import Outcome, run_assign, run_given
from oracle.definition.criterion import Grid
from oracle.definition.segmentation import ExactSegmentation
from oracle.reference.segmentation import ReferenceSegmentation
from oracle.tolerance.held_anchors import Bounds
from oracle.tolerance.mask_crops import crops, truth_crops
from oracle.tolerance.mask_term import summation_of_products
from oracle.tolerance.precision import precision_of
from oracle.tolerance.segmentation import mask_term_tolerance, semantic_term_tolerance
from twinloss import Assignment, SegmentationSpec

SETTINGS = (
    Setting("float64"), Setting("float32"), Setting("float16"), Setting("bfloat16"), Setting("float32", autocast="bfloat16"),
)  # fmt: skip
KINDS: tuple[PredictionKind, ...] = ("random", "near", "saturated", "late", "zeros")
ROUNDOFF = 2.0**-24


def drawn(seed: int) -> Case:
    """A small batch with grids of several sizes; no border of a box lies on a pixel's edge."""
    r = random.Random(seed)
    spec = SegmentationSpec(num_classes=2, reg_max=r.choice((1, 4)), strides=(8, 16), overlap_mask=r.random() < 0.5)
    boxes = [Box(r.randrange(2), r.randrange(2), r.uniform(8, 56), r.uniform(8, 56), r.uniform(8, 40), r.uniform(8, 40)) for _ in range(4)]
    rows, columns = r.choice(((16, 16), (32, 32), (8, 8), (13, 19)))
    options = {"prototypes": r.choice((1.0, 4.0, 32.0)), "semantic": 1.0, "mask_height": float(rows), "mask_width": float(columns)}
    boxes.sort(key=lambda box: box.image)
    return Case(spec, (64, 64), 2, tuple(boxes), Prediction(r.choice(KINDS), seed), options=options)


def ratio(found: Tensor, expected: Tensor, bounds: Bounds) -> float:
    """The largest error ÷ tolerance of a gradient."""
    error = torch.maximum(expected + bounds.below - found, found - expected - bounds.above).clamp(min=0)
    return float((error / bounds.rounding).max())


def answers(case: Case, setting: Setting) -> tuple[Outcome, Outcome, dict[str, tuple[int, Tensor]], dict[str, Bounds]]:
    """The definition's outcome, the reference's, and the tolerances of terms and gradients, on the definition's assignment."""
    inputs, exact, precision = build(case, setting), ExactSegmentation(case.spec), precision_of(setting, "logits")
    held = run_assign(exact, inputs, setting)
    truth, found = (run_given(c, inputs, setting, held, terms=case.spec.terms) for c in (exact, ReferenceSegmentation(case.spec)))
    mask, semantic = (tolerance(exact, *inputs, held, precision) for tolerance in (mask_term_tolerance, semantic_term_tolerance))
    return truth, found, {"mask": (1, mask.term), "semantic": (4, semantic.term)}, {**mask.gradients, **semantic.gradients}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_reference_keeps_to_half_of_every_tolerance(setting: Setting) -> None:
    for seed in range(12):
        truth, found, terms, gradients = answers(drawn(seed), setting)
        for name, (index, tolerance) in terms.items():
            assert abs(truth.loss[index] - found.loss[index]) <= tolerance / 2, (seed, name)
        for name, bounds in gradients.items():
            assert ratio(found.gradients[name], truth.gradients[name], bounds) < 0.5, (seed, name)


def test_a_thousandth_is_beyond_the_tolerance_of_float32() -> None:
    for seed in range(6):
        truth, _, terms, gradients = answers(drawn(seed), Setting("float32"))
        for name, (index, tolerance) in terms.items():
            assert tolerance < 1e-3 * abs(truth.loss[index]) or truth.loss[index] < 1e-4, (seed, name)
        for name, bounds in gradients.items():
            largest = truth.gradients[name].abs().max()
            assert bounds.rounding.max() < 1e-3 * largest or largest < 1e-6, (seed, name)


def test_a_border_within_rounding_of_a_whole_number_is_open() -> None:
    corners = torch.tensor([[1.0, 0.5, 3.0 + 1e-7, 2.5]], dtype=torch.float64)
    found = crops(corners, torch.full((1, 4), 1e-6, dtype=torch.float64), (4, 5))
    assert found.inside[0, 1].tolist() == [False, True, True, True, False]
    assert found.certain[0, 1].tolist() == [False, False, True, False, False]
    assert found.possible[0, 1].tolist() == [False, True, True, True, False]


def test_a_border_that_no_order_of_operations_rounds_is_decided() -> None:
    """A box of multiples of 4 px on 64 px is; on 352 px the quotient is rounded, and 232 px ends at 58.000004 pixels [9]."""
    for width, decided in ((64, True), (352, False)):
        grid = Grid(torch.zeros(0, 2), torch.zeros(0), 64, width)
        corners = torch.tensor([[0.0, 0.0, 232.0 if width == 352 else 40.0, 8.0]])
        found = truth_crops(corners, torch.zeros(1, 4, dtype=torch.float64), grid, (16, width // 4), ROUNDOFF)
        assert torch.equal(found.certain, found.possible) == decided


def test_without_held_anchors_nothing_is_tolerated_but_underflow() -> None:
    case = drawn(0)
    inputs, exact = build(case, Setting("float32")), ExactSegmentation(case.spec)
    held = run_assign(exact, inputs, Setting("float32"))
    nothing = type(held)(held.image[:0], held.anchor[:0], held.box[:0], held.weight[:0])
    precision = precision_of(Setting("float32"), "float32")
    for tolerance in (mask_term_tolerance, semantic_term_tolerance):
        found = tolerance(exact, *inputs, nothing, precision)
        assert found.term == 0
        assert all(float(bounds.rounding.max()) <= 10 * torch.finfo(torch.float32).tiny for bounds in found.gradients.values())


def test_a_narrow_box_has_a_wide_tolerance() -> None:
    """The area is a difference of rounded corners: at 48 px a width of 0.001 px is known to a hundredth."""
    relative = []
    for width in (0.001, 10.0):
        spec = SegmentationSpec(num_classes=1, reg_max=4, strides=(8,), overlap_mask=False)
        case = Case(spec, (64, 64), 1, (Box(0, 0, 48.0004, 30.7, width, 20.0),), Prediction("random", 1), options={"prototypes": 2.0})
        inputs, exact = build(case, Setting("float32")), ExactSegmentation(spec)
        first = torch.zeros(1, dtype=torch.int64)
        held = Assignment(image=first, anchor=first, box=first, weight=torch.ones(1))
        found = mask_term_tolerance(exact, *inputs, held, precision_of(Setting("float32"), "float32"))
        relative.append(float(found.term / run_given(exact, inputs, Setting("float32"), held, terms=spec.terms).loss[1]))
    assert 0.01 < relative[0] < 0.5
    assert relative[1] < 1e-4


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 32), (13, 4), (13, 32)], ids=str)
@pytest.mark.parametrize("count", [512, 2048, 8192, 53_248])
def test_products_that_are_equal_round_in_one_direction(count: int, shape: tuple[int, int]) -> None:
    for value in (0.1, 0.121, 0.15):
        rows, columns = torch.full((shape[0], count), value), torch.full((count, shape[1]), 0.73)
        exact = rows.double() @ columns.double()
        units = ((rows @ columns).double() - exact).abs() / exact / 2**-24
        assert float(units.max()) <= summation_of_products(count)
