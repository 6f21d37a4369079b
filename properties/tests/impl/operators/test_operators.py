"""The operators by themselves: torch's own checks of each, on every task and backend of the host, and what they return."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

from properties.tests.impl.operators.scenes import SPECS, Scene, scene
from twinloss import LossSpec
from twinloss.operators import step as operators
from twinloss.operators.definition import text_of

BACKENDS = ("native", "torch")
kinds = pytest.mark.parametrize("kind", SPECS)
backends = pytest.mark.parametrize("backend", BACKENDS)
# torch's checks look at the gradients of tensors that are no leaves.
looks_at_all = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def arguments(given: Scene, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """What a loss calls ``twinloss::step`` with."""
    seen: list[tuple[Any, ...]] = []

    def noted(*inputs: Any) -> Any:
        seen.append(inputs)
        return operators._step(*inputs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.ops.twinloss, "step", noted)
        given.loss.traced(given.preds, given.batch)
    (found,) = seen
    return found


def asking(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same with predictions that ask for gradients."""
    return [tensor.detach().clone().requires_grad_() for tensor in inputs[0]], *inputs[1:]


@kinds
@backends
@looks_at_all
def test_step_is_a_sound_operator(kind: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opcheck(torch.ops.twinloss.step.default, asking(arguments(scene(kind, backend=backend), monkeypatch)))


@kinds
@backends
def test_step_gradients_is_a_sound_operator(kind: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = arguments(scene(kind, backend=backend), monkeypatch)
    loss, _, *slots, pairs = torch.ops.twinloss.step(*inputs)
    wanted = [place % 2 == 0 for place in range(len(inputs[0]))]
    opcheck(torch.ops.twinloss.step_gradients.default, (torch.randn_like(loss), pairs, *slots, *inputs, wanted))


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("kind", ["detect", "pose, flow"])
@looks_at_all
def test_few_rows(rows: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opcheck(torch.ops.twinloss.step.default, asking(arguments(scene(kind, rows), monkeypatch)))


@kinds
def test_slots_hold_the_assignment(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = scene(kind)
    _, _, anchor, box, weight, count, _ = torch.ops.twinloss.step(*arguments(given, monkeypatch))
    held = given.loss.assign(given.preds, given.batch)
    filled = int(count)
    assert (filled, len(anchor)) == (len(held), 6 * given.loss.spec.topk)
    assert torch.equal(anchor[:filled].long(), held.anchor)
    assert torch.equal(box[:filled].long(), held.box)
    assert torch.equal(weight[:filled], held.weight)
    assert (anchor[filled:] == -1).all()
    assert (box[filled:] == -1).all()
    assert not weight[filled:].any()


@kinds
def test_gradients_that_are_not_wanted_are_empty(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = arguments(scene(kind), monkeypatch)
    loss, _, *slots, pairs = torch.ops.twinloss.step(*inputs)
    incoming = [torch.zeros_like(each) for each in pairs]
    every = torch.ops.twinloss.step_gradients(torch.ones_like(loss), incoming, *slots, *inputs, [True] * len(inputs[0]))
    first = torch.ops.twinloss.step_gradients(torch.ones_like(loss), incoming, *slots, *inputs, [True] + [False] * (len(inputs[0]) - 1))
    none = torch.ops.twinloss.step_gradients(torch.ones_like(loss), incoming, *slots, *inputs, [False] * len(inputs[0]))
    assert [gradient.shape for gradient in every] == [leaf.shape for leaf in inputs[0]]
    assert torch.equal(first[0], every[0])
    assert [gradient.numel() for gradient in (*first[1:], *none)] == [0] * (2 * len(inputs[0]) - 1)


@pytest.mark.parametrize("kind", ["detect", "segment"])
def test_a_dispatch_mode_around_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Below a mode torch has put autograd's recording off, which the operator's own backward pass needs.
    inputs = arguments(scene(kind, backend="torch"), monkeypatch)

    def gradients() -> list[Tensor]:
        given = asking(inputs)
        loss, *_ = torch.ops.twinloss.step(*given)
        return list(torch.autograd.grad(loss.sum(), given[0]))

    expected = gradients()
    with FlopCounterMode(display=False):
        assert all(map(torch.equal, gradients(), expected))


def test_the_operator_in_eager_mode_has_the_bits_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    given = scene("detect")
    inputs = asking(arguments(given, monkeypatch))
    loss, items, *_ = torch.ops.twinloss.step(*inputs)
    found = torch.autograd.grad(loss.sum(), inputs[0])
    answer = given.answer()
    assert torch.equal(loss, answer.loss)
    assert torch.equal(items, torch.stack(list(answer.items.values())))
    assert all(map(torch.equal, found, map(answer.gradients.__getitem__, ("boxes.0", "scores.0"))))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_input_that_is_missing_is_named(device: str) -> None:
    boxes, scores = torch.zeros(1, 64, 4, device=device), torch.zeros(1, 3, 4, device=device)
    rows = [torch.zeros(2, device=device), torch.zeros(2, 4, device=device)]
    told = f"stable overlap None 1 torch|{text_of(LossSpec(num_classes=3, strides=(8,)))}"
    with pytest.raises(ValueError, match="batch has no 'cls'; it has 'batch_idx', 'bboxes'"):
        torch.ops.twinloss.step([boxes, scores], rows, None, [2, 2], "boxes scores batch_idx bboxes", told)


def test_operators_are_not_captured_in_cuda_graphs() -> None:
    tag = getattr(torch.Tag, "cudagraph_unsafe", None)
    if tag is None:
        pytest.skip("this torch has no such tag")
    assert all(tag in getattr(torch.ops.twinloss, name).default.tags for name in ("step", "step_gradients"))
