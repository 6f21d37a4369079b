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

from twinloss import Assignment, DetectionLoss, LossSpec
from twinloss.backends.triton import availability

pytest.importorskip("triton", minversion="3.3", reason="there is no Triton that the kernels run with: the host part was not checked")

FREE = {"detach", "view", "_unsafe_view", "reshape", "unbind", "select", "slice", "as_strided", "alias", "expand", "permute", "transpose"}
FREE |= {"split_with_sizes"}
COCO = LossSpec(num_classes=80)
STEP = ["decode", "candidates_and_softplus", "resolve", "held_terms", "reduce_terms", "dense_gradient", "held_terms_gradient"]


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
    return preds, {"batch_idx": empty(rows), "cls": empty(rows, 1), "bboxes": empty(rows, 4)}


def _step(spec: LossSpec, images: int, rows: int, call: Callable[..., Any] = DetectionLoss.__call__, backend: Any = "triton") -> Host:
    preds, batch = _inputs(spec, images, rows)
    criterion = DetectionLoss(spec, backend=backend)
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
    "few boxes": (COCO, 100, DetectionLoss.__call__, [*STEP[:2], "merge", *STEP[2:]]),
    "many boxes": (COCO, 4967, DetectionLoss.__call__, STEP),
    "no boxes": (COCO, 0, DetectionLoss.__call__, ["candidates_and_softplus", "reduce_terms", "dense_gradient"]),
    "end to end": (
        dataclasses.replace(COCO, reg_max=1, topk=7, topk2=1),
        100,
        DetectionLoss.__call__,
        [*STEP[:2], "merge", "resolve", "second_topk", *STEP[3:]],
    ),
    "class weights": (dataclasses.replace(COCO, class_weights=(1.0,) * 80), 4967, DetectionLoss.__call__, STEP),
    "given assignment": (COCO, 100, _given, ["candidates_and_softplus", *STEP[3:]]),
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


@pytest.mark.parametrize("rows", [0, 100])
def test_nothing_is_launched_anew_for_what_a_step_has_launched_before(rows: int, launched: list[str]) -> None:
    first, second = _step(COCO, 2, rows), _step(COCO, 2, rows)
    assert launched[: len(launched) // 2] == launched[len(launched) // 2 :]
    assert first.working == second.working
    assert first.allocated == second.allocated


def test_a_call_that_looks_at_values_is_noticed(launched: list[str]) -> None:
    with pytest.raises((NotImplementedError, RuntimeError), match="nonzero"):
        _step(COCO, 2, 100, DetectionLoss.assign)  # the length of its list is data
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
