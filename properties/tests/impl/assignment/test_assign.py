"""The twin is sparse by construction: no tensor has the size (boxes x anchors), and none of the size of the scores but their gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Inputs, Prediction
from twinloss import DetectionLoss, LossSpec
from twinloss.assignment.assign import PAIRS_AT_ONCE
from twinloss.backends.registry import BackendName

CROWD = 300
IMAGES = 2
BACKENDS = pytest.mark.parametrize("backend", ["torch", "native"])


class Sizes(TorchDispatchMode):
    """Bytes of every storage that an operation makes; a view or a tensor written in place makes none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.made.append(tensor.untyped_storage().nbytes())
        return result


def crowded(side: float) -> tuple[LossSpec, Inputs]:
    """300 boxes of a side in pixels in each of 2 images of 320 px: (B, M, A) is 10 times the scores."""
    spec = LossSpec(num_classes=30)
    boxes = tuple(
        Box(image, number % 30, 20 + 280 * ((number * 37) % 100) / 100, 20 + 280 * ((number * 61) % 97) / 97, side, side)
        for image in range(IMAGES)
        for number in range(CROWD)
    )
    return spec, build(Case(spec, (320, 320), IMAGES, boxes, Prediction("near")))


def sizes_of_a_step(criterion: DetectionLoss, inputs: Inputs) -> list[int]:
    """Bytes of every storage made in forward and backward."""
    with Sizes() as sizes:
        loss, _ = criterion(*inputs)
        loss.sum().backward()
    made: list[int] = sizes.made
    return made


@BACKENDS
def test_no_tensor_of_boxes_by_anchors(backend: BackendName) -> None:
    spec, inputs = crowded(side=24)
    made = sizes_of_a_step(DetectionLoss(spec, backend=backend), inputs)
    anchors = inputs.preds["boxes"].shape[-1]
    assert max(made) < IMAGES * CROWD * anchors  # bytes: one of booleans would show


@BACKENDS
def test_scores_have_no_dense_targets(backend: BackendName) -> None:
    spec, inputs = crowded(side=8)
    size = inputs.preds["scores"].nbytes
    assert [made for made in sizes_of_a_step(DetectionLoss(spec, backend=backend), inputs) if size * 0.9 < made < size * 1.1] == [size]


@pytest.mark.parametrize("pairs_at_once", [10_000, 40_000])
def test_scratch_is_bounded_and_changes_no_decision(pairs_at_once: int) -> None:
    spec, inputs = crowded(side=150)
    whole, sliced = (DetectionLoss(spec, backend="torch", pairs_at_once=most) for most in (PAIRS_AT_ONCE, pairs_at_once))
    pairs = len(whole.metrics(*inputs).row)
    assert pairs > 5 * pairs_at_once  # else nothing is sliced
    one, other = whole.assign(*inputs), sliced.assign(*inputs)
    for name in ("image", "anchor", "box"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    # A sigmoid and a power at the end of a tensor are rounded otherwise than before it, and a slice has another end.
    torch.testing.assert_close(one.weight, other.weight, rtol=2e-6, atol=0)
    streaming = 3 * inputs.preds["scores"].nbytes  # one block's scratch
    gathered = len(one) * 4 * spec.reg_max * 4
    assert max(sizes_of_a_step(sliced, inputs)) <= max(streaming, gathered, inputs.preds["boxes"].nbytes, 8 * 8 * pairs_at_once)
    assert max(sizes_of_a_step(whole, inputs)) > 8 * pairs
