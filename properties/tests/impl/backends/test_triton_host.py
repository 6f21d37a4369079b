"""What the host does in a step of the Triton backend, seen without a GPU: it never looks at a value, and takes little memory.

Tensors on the meta device have shapes and no values: code that reads a value (``.item()``, ``bool()``, ``nonzero``, a boolean mask, a copy
to the host) gets an error. A step that runs on them therefore waits for no device and can be captured in a CUDA graph, and its launches and
allocations follow from shapes alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from twinloss import Assignment, DetectionLoss, LossSpec, SegmentationSpec
from twinloss.backends.triton import availability
from twinloss.loss import LOSSES

pytest.importorskip("triton", minversion="3.3", reason="there is no Triton that the kernels run with: the host part was not checked")

FREE = {"detach", "view", "_unsafe_view", "reshape", "unbind", "select", "slice", "as_strided", "alias", "expand", "permute", "transpose"}
FREE |= {"split_with_sizes"}
COCO = LossSpec(num_classes=80)
STEP = ["decode", "candidates_and_softplus", "merge", "resolve", "held_terms", "reduce_terms", "dense_gradient", "held_terms_gradient"]
MASKS = SegmentationSpec(num_classes=80)
AWARE = dataclasses.replace(MASKS, mask_aware=True)
COMPARED = ["preselect", "true_mask_sizes", "mask_overlap"]
ADDED = ["held_crops", "mask_term", "class_map", "semantic_sums", "reduce_mask_terms"]
GRADIENTS = ["mask_coefficients_gradient", "mask_prototypes_gradient", "semantic_gradient"]
OF_SEGMENTATION: dict[str, tuple[SegmentationSpec, int, list[str]]] = {
    "few boxes": (MASKS, 100, [*STEP[:6], *ADDED]),
    "many boxes": (MASKS, 4967, [*STEP[:6], *ADDED]),
    "instance masks": (dataclasses.replace(MASKS, overlap_mask=False), 4967, [*STEP[:6], *ADDED]),
    "mask-aware": (AWARE, 4967, [STEP[0], *COMPARED, *STEP[1:6], *ADDED]),
    "mask-aware, end to end": (
        dataclasses.replace(AWARE, reg_max=1, topk=7, topk2=1),
        100,
        [STEP[0], *COMPARED, *STEP[1:4], "second_topk", *STEP[4:6], *ADDED],
    ),
}


@dataclasses.dataclass
class Host(TorchDispatchMode):
    """Records what a step asks of the framework: operations that launch something, and bytes allocated."""

    working: list[str] = dataclasses.field(default_factory=list)
    allocated: int = 0

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name.startswith("empty"):
            self.allocated += answer.nbytes
        elif name not in FREE:
            self.working.append(name)
            self.allocated += answer.nbytes if isinstance(answer, Tensor) else 0
        return answer


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that were launched, none of which ran; the meta device passes for a GPU."""
    from triton.runtime.jit import JITFunction

    names: list[str] = []
    monkeypatch.setattr(JITFunction, "run", lambda self, *_, **__: names.append(self.fn.__name__.removesuffix("_kernel")))
    monkeypatch.setattr(availability, "_why_not_device", lambda _: None)
    return names


def _inputs(spec: LossSpec, images: int, rows: int, side: int = 640) -> tuple[dict[str, Any], dict[str, Tensor]]:
    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    grids = [(side // stride, side // stride) for stride in spec.strides]
    anchors = sum(height * width for height, width in grids)
    boxes, scores = (empty(images, channels, anchors, dtype=torch.float16) for channels in (4 * spec.reg_max, spec.num_classes))
    feats = [empty(images, 1, *grid) for grid in grids]
    preds = {"boxes": boxes.requires_grad_(), "scores": scores.requires_grad_(), "feats": feats}
    batch = {"batch_idx": empty(rows), "cls": empty(rows, 1), "bboxes": empty(rows, 4)}
    if isinstance(spec, SegmentationSpec):
        coefficients, prototypes, semantic = (
            empty(images, *shape, dtype=torch.float16).requires_grad_()
            for shape in ((32, anchors), (32, side // 4, side // 4), (spec.num_classes, side // 8, side // 8))
        )
        preds |= {"mask_coefficient": coefficients, "proto": (prototypes, semantic)}
        batch["masks"] = empty(images if spec.overlap_mask else rows, side // 4, side // 4, dtype=torch.uint8)
        batch["sem_masks"] = empty(images, side // 4, side // 4)
    return preds, batch


def _call(criterion: DetectionLoss, preds: Any, batch: Any) -> Any:
    return criterion(preds, batch)


def _step(spec: LossSpec, images: int, rows: int, call: Callable[..., Any] = _call, backend: Any = "triton") -> Host:
    preds, batch = _inputs(spec, images, rows)
    criterion = LOSSES[spec.task](spec, backend=backend)
    host = Host()
    with host:
        loss, items = call(criterion, preds, batch)
        loss.sum().backward()
    assert all(item.shape == () for item in items.values())
    assert preds["boxes"].grad is not None
    assert preds["scores"].grad.dtype == torch.float16
    return host


def _given(criterion: DetectionLoss, preds: Any, batch: Any) -> Any:
    index = torch.empty(37, dtype=torch.int64, device="meta")
    return criterion.loss_given(preds, batch, Assignment(index, index, index, index.float()))


CALLS: dict[str, tuple[LossSpec, int, Any, list[str]]] = {
    "few boxes": (COCO, 100, DetectionLoss.__call__, STEP),
    "many boxes": (COCO, 4967, DetectionLoss.__call__, STEP),
    "no boxes": (COCO, 0, DetectionLoss.__call__, ["candidates_and_softplus", "reduce_terms", "dense_gradient"]),
    "end to end": (
        dataclasses.replace(COCO, reg_max=1, topk=7, topk2=1),
        100,
        DetectionLoss.__call__,
        [*STEP[:4], "second_topk", *STEP[4:]],
    ),
    "class weights": (dataclasses.replace(COCO, class_weights=(1.0,) * 80), 4967, DetectionLoss.__call__, STEP),
    "given assignment": (COCO, 100, _given, ["candidates_and_softplus", *STEP[4:]]),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_step_looks_at_no_value_and_launches_twelve_kernels_at_most(name: str, launched: list[str]) -> None:
    spec, rows, call, expected = CALLS[name]
    _step(spec, 1, rows, call)  # what is sent to a device once, such as class weights, is not of a step
    launched.clear()
    host = _step(spec, 16, rows, call)
    assert launched == expected
    copies = {"cat", "sum", "ones_like"}  # the targets' copy; the caller's sum and its gradient
    copies |= {"copy_", "_to_copy", "clamp"} if call is _given else set()  # a given assignment is copied
    assert set(host.working) <= copies, host.working
    if call is not _given:
        assert len(launched) + len(host.working) <= 12, host.working


@pytest.mark.parametrize("name", OF_SEGMENTATION)
def test_a_step_of_segmentation_looks_at_no_value_and_launches_as_many_kernels_for_any_batch(name: str, launched: list[str]) -> None:
    spec, rows, expected = OF_SEGMENTATION[name]
    for images in (4, 16):
        _step(spec, images, rows)  # what is sent to a device once for a number of images is not of a step
    launched.clear()
    host = _step(spec, 16, rows)
    assert launched[: len(expected)] == expected
    assert sorted(launched[len(expected) :]) == sorted([*STEP[6:], *GRADIENTS])  # autograd chooses the order
    copies = {"cat", "sum", "ones_like"}  # as in detection
    order = {"sort", "index_select", "searchsorted", "index", "arange", "sub", "index_put_"}  # of slots, and of rows in their images
    assert set(host.working) <= copies | order | {"stack", "zeros_like"}, host.working
    count = len(launched) + len(host.working)
    assert count <= 40, host.working
    launched.clear()
    assert len(_step(spec, 4, rows).working) + len(launched) == count


@pytest.mark.parametrize("rows", [0, 100])
def test_nothing_is_launched_anew_for_what_a_step_has_launched_before(rows: int, launched: list[str]) -> None:
    _step(COCO, 2, rows)  # the first of a process makes the class weights, which are kept
    launched.clear()
    first, second = _step(COCO, 2, rows), _step(COCO, 2, rows)
    assert launched[: len(launched) // 2] == launched[len(launched) // 2 :]
    assert first.working == second.working
    assert first.allocated == second.allocated


def test_a_call_that_looks_at_values_is_noticed(launched: list[str]) -> None:
    with pytest.raises((NotImplementedError, RuntimeError), match="nonzero"):
        _step(COCO, 2, 100, DetectionLoss.assign)  # the length of its list is data
    assert launched


def test_a_step_of_segmentation_keeps_what_is_proportional_to_anchors_and_boxes(launched: list[str]) -> None:
    few, many = (_step(MASKS, 16, rows) for rows in (118, 4800))
    gradients = 2 * 16 * (8400 * (64 + 80 + 32) + 160 * 160 * 32 + 80 * 80 * 80)
    assert gradients < few.allocated <= 1.25 * gradients
    assert many.allocated - few.allocated < (4800 - 118) * 10 * 200  # bytes a slot, with everything that is freed before
    assert launched


@pytest.mark.parametrize("rows", [118, 4800])
def test_a_step_allocates_little_beyond_its_gradients(rows: int, launched: list[str]) -> None:
    host = _step(COCO, 16, rows)
    gradients = 2 * 16 * 8400 * (64 + 80)
    # Everything together, whenever it is freed: no peak can be higher.
    assert gradients < host.allocated <= 1.25 * gradients
    assert launched


def test_the_crowded_batch_of_128_stays_below_a_gigabyte(launched: list[str]) -> None:
    host = _step(LossSpec(num_classes=60), 128, 128 * 4967)
    assert host.allocated < 1e9, f"{host.allocated / 1e9:.2f} GB"
    assert launched
