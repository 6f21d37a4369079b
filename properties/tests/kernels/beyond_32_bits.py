"""Logits of 2³¹ elements and more: elements beyond 32-bit indices are read and written at the right place.

On the host the memory is reserved, not committed: only pages that are touched exist. The interpreter runs only the first and the last
programs of a grid; a device runs all.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from oracle.cases.case import Setting
from oracle.cases.workloads.small_dense import small_dense
from properties.tests.kernels.helpers import answers, both
from twinloss import LossSpec, Pyramid, decode_boxes, make_anchors
from twinloss.backends.slots import Slots
from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import Gradients, KernelArguments, kernel_arguments
from twinloss.backends.triton.availability import interpreting
from twinloss.backends.triton.candidates_and_softplus import softplus_programs
from twinloss.backends.triton.decode import decode
from twinloss.backends.triton.dense_gradient import dense_gradient
from twinloss.backends.triton.held_terms_gradient import held_terms_gradient
from twinloss.backends.triton.pipeline import _make_scratch, class_weights, sum_softplus

NO_RESERVE = 0x4000  # MAP_NORESERVE on Linux; Python has no name for it.
EDGE = 4  # Programs at each end of a grid that the interpreter runs.
SPEC = LossSpec(num_classes=64, reg_max=16, strides=(8,))
PYRAMID = Pyramid(((8, 8),), (8,))
PER_IMAGE = 64 * 64  # Logits of either kind.
IMAGES = 2**31 // PER_IMAGE + 3
LAST = IMAGES - 1


def vast(shape: tuple[int, ...], device: str) -> Tensor:
    """Zeros in float16, of which a host commits only the pages that are written."""
    count = 1
    for length in shape:
        count *= length
    if device != "cpu":
        return torch.zeros(shape, dtype=torch.float16, device=device)
    memory = mmap.mmap(-1, 2 * count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
    return torch.frombuffer(memory, dtype=torch.float16).view(shape)


@contextmanager
def ends_of_grids() -> Iterator[None]:
    """Let the interpreter run only both ends of a long grid and its middle, where one kind of program ends and another begins."""
    if not interpreting():
        yield
        return
    from triton.runtime import interpreter

    def ends(*bounds: int) -> Any:
        if len(bounds) > 1 or bounds[0] < 100_000:
            return range(*bounds)
        last, middle = bounds[0], bounds[0] // 2
        return (*range(EDGE), *range(middle - EDGE, middle + EDGE), *range(last - EDGE, last))

    interpreter.range = ends
    try:
        yield
    finally:
        del interpreter.range


@pytest.fixture(scope="module")
def far(device: str) -> KernelArguments:
    """A batch whose last image alone holds values, beyond 2³¹ elements of box and of class logits."""
    if torch.device(device).type == "cuda" and torch.cuda.mem_get_info()[0] < 24e9:
        pytest.skip("logits and gradients of 2³¹ elements each want 24 GB of memory")
    boxes, scores = (vast((IMAGES, 64, 64), device) for _ in range(2))
    generator = torch.Generator().manual_seed(3)
    for logits in (boxes, scores):
        logits[LAST] = torch.randn(64, 64, generator=generator).to(device, torch.float16)
    rows = {
        "batch_idx": torch.full((1,), float(LAST), device=device),
        "cls": torch.full((1, 1), 63.0, device=device),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.3]], device=device),
    }
    return kernel_arguments(boxes, scores, rows, SPEC, PYRAMID)


@pytest.fixture
def near(far: KernelArguments) -> KernelArguments:
    """The last image alone."""
    return replace(far, boxes=far.boxes[LAST:].clone(), scores=far.scores[LAST:].clone(), batch_idx=torch.zeros_like(far.batch_idx))


def test_the_boxes_of_the_last_image(far: KernelArguments, near: KernelArguments) -> None:
    scratch = _make_scratch(far)
    with ends_of_grids():
        decode(far, scratch)
    centres, strides = make_anchors(PYRAMID.grids, PYRAMID.strides, device=far.boxes.device)
    expected = decode_boxes(near.boxes.float(), centres, SPEC.reg_max)[0] * strides[:, None]
    found = scratch.predicted.view(4, IMAGES, -1)[:, LAST].T
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-4)


def test_the_softplus_of_the_last_image(far: KernelArguments) -> None:
    partial = torch.empty(softplus_programs(far), device=far.scores.device)
    per_image = PER_IMAGE // tiles.SOFTPLUS.size
    assert len(partial) == per_image * IMAGES
    with ends_of_grids():
        sum_softplus(far, class_weights(None, far.scores.device), partial)
    expected = torch.nn.functional.softplus(far.scores[LAST].double()).sum()
    torch.testing.assert_close(partial[-per_image:].double().sum(), expected, rtol=1e-6, atol=0)


def _gradients(arguments: KernelArguments) -> Gradients:
    if arguments.images == 1:
        return Gradients(torch.ones_like(arguments.boxes), torch.ones_like(arguments.scores), {})
    device = str(arguments.boxes.device)
    made = Gradients(vast(tuple(arguments.boxes.shape), device), vast(tuple(arguments.scores.shape), device), {})
    for gradient in (made.boxes, made.scores):
        gradient[LAST] = 1
    return made


def _backward(arguments: KernelArguments, run: Callable[..., None], *between: Any) -> tuple[Tensor, Tensor]:
    """Gradients of the last image after a kernel, with the same normaliser for every image."""
    device = arguments.boxes.device
    # S = B, so that the gradient does not depend on how many images there are.
    items = torch.tensor([0.0, 0.0, 0.0, arguments.images], device=device)
    gradients = _gradients(arguments)
    with ends_of_grids():
        run(arguments, *between, torch.ones(3, device=device), items, class_weights(None, device), gradients)
    return gradients.boxes[-1], gradients.scores[-1]


def test_the_dense_gradient_of_the_last_image(far: KernelArguments, near: KernelArguments) -> None:
    assert tiles.DENSE_GRADIENT.size == PER_IMAGE  # so that class logits end, and box logits begin, in the middle of the grid
    boxes, scores = _backward(far, dense_gradient)
    assert not boxes.any()
    assert torch.equal(scores, _backward(near, dense_gradient)[1])


def test_the_held_anchors_of_the_last_image(far: KernelArguments, near: KernelArguments) -> None:
    device = far.boxes.device
    anchor = torch.tensor([63, 0, 27], dtype=torch.int32, device=device)
    slots = Slots(anchor, torch.zeros_like(anchor), torch.tensor([0.5, 0.25, 0.75], device=device))
    found, expected = _backward(far, held_terms_gradient, slots), _backward(near, held_terms_gradient, slots)
    assert (found[0][:, anchor.long()] != 1).any()
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_images_that_lie_far_apart(device: str) -> None:
    kernels, _, preds, batch = both(small_dense(4, seed=40, images=2, size=(32, 32), strides=(8, 16)), Setting("float16", device=device))
    apart = dict(preds)
    for name in ("boxes", "scores"):
        logits = preds[name].detach()
        _, channels, anchors = logits.shape
        gap = 2**31 + 4096
        apart[name] = vast((gap + channels * anchors,), device).as_strided(logits.shape, (gap, anchors, 1))
        apart[name].copy_(logits)
    for ours, theirs in zip(answers(kernels, apart, batch), answers(kernels, preds, batch), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
