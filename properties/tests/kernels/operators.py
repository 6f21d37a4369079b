"""The kernels behind the operator that torch knows: its schema, its slots, and the bits of eager mode in a traced graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.library import opcheck

from properties.tests.impl.operators.scenes import Scene, scene
from properties.tests.impl.operators.test_compile import assert_same_bits, traced
from properties.tests.impl.operators.test_operators import arguments, asking

kinds = pytest.mark.parametrize("kind", ["detect", "segment"])  # each takes a minute in Triton's interpreter


def on(device: str, kind: str, rows: int = 2) -> Scene:
    """A scene on the kernels."""
    given = scene(kind, rows, backend="triton")
    return Scene(given.loss, moved(given.preds, device), moved(given.batch, device))


def moved(value: Any, device: str) -> Any:
    """Containers with their tensors on a device."""
    if isinstance(value, dict):
        return {key: moved(each, device) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(moved(each, device) for each in value)
    return value.to(device)


@kinds
def test_bits_of_eager_mode(kind: str, device: str) -> None:
    torch.compiler.reset()
    given = on(device, kind)
    upstream = torch.arange(1.0, len(given.loss.spec.terms) + 1, device=device)
    assert_same_bits(given.answer(traced(given.loss.__call__), upstream), given.answer(upstream=upstream))


@kinds
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_sound_operators(kind: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = arguments(on(device, kind), monkeypatch)
    opcheck(torch.ops.twinloss.step.default, asking(inputs), test_utils=("test_schema", "test_faketensor"))
    loss, _, *slots, pairs = torch.ops.twinloss.step(*inputs)
    asked = torch.ones_like(loss), pairs, *slots, *inputs, [True] * len(inputs[0])
    opcheck(torch.ops.twinloss.step_gradients.default, asked, test_utils=("test_schema", "test_faketensor"))


def test_slots_are_those_of_the_kernels(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = on(device, "detect")
    _, _, anchor, box, weight, count, _ = torch.ops.twinloss.step(*arguments(given, monkeypatch))
    held = given.loss.assign(given.preds, given.batch)
    filled = (box >= 0) & (weight > 0)
    assert int(count) == len(anchor) == 2 * given.loss.spec.topk
    assert int(filled.sum()) == len(held)
    assert sorted(zip(box[filled].tolist(), anchor[filled].tolist(), strict=True)) == sorted(
        zip(held.box.tolist(), held.anchor.tolist(), strict=True)
    )
