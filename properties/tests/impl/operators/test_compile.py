"""A loss inside of a traced graph: one graph without a break, the bits of eager mode, and no further graph for another batch.

Most tests trace and run what was traced (``aot_eager``); generating code takes a compiler, and is asked once.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from properties.tests.impl.operators.scenes import SPECS, Answer, Scene, end_to_end, scene
from twinloss import DetectionLoss, EndToEndLoss
from twinloss.operators import step as operators

kinds = pytest.mark.parametrize("kind", SPECS)
choices = pytest.mark.parametrize(("backend", "ties"), [("native", "stable"), ("torch", "stable"), ("torch", "reference")])
FLOW = ("inner", "outer")
"""Parameters of the flow, whose gradients are sums over other numbers of points."""


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """What one test has traced is nothing to the next."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def traced(function: Callable[..., Any], backend: str = "aot_eager", **options: Any) -> Callable[..., Any]:
    """A function in one graph; a break is an error."""
    compiled: Callable[..., Any] = torch.compile(function, fullgraph=True, backend=backend, **options)
    return compiled


class Graphs:
    """A compiler that counts its graphs, and runs them as they are."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, _: list[Tensor]) -> Any:
        self.count += 1
        return graph.forward


def assert_same_bits(found: Answer, expected: Answer) -> None:
    """All bits are the same, but those of the term that a flow computes and of its gradients: these to rounding."""
    pairs = {"loss": (found.loss, expected.loss), **{name: (found.items[name], item) for name, item in expected.items.items()}}
    with_flow = "rle_loss" in expected.items
    for name, gradient in expected.gradients.items():
        ours = found.gradients[name]
        if gradient is None:  # an operator gives zeros to what its answer does not depend on
            assert ours is None or not ours.any(), name
        else:
            assert ours is not None, name
            pairs[name] = ours, gradient
    rounded = {"loss", "rle_loss", *FLOW, *(name for name in pairs if "kpts" in name)} if with_flow else set()
    for name, (ours, theirs) in pairs.items():
        if name in rounded:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(ours, theirs), name


@kinds
@choices
def test_bits_of_eager_mode(kind: str, backend: str, ties: str) -> None:
    given = scene(kind, backend=backend, ties=ties)
    upstream = torch.arange(1.0, len(given.loss.spec.terms) + 1)
    assert_same_bits(given.answer(traced(given.loss.__call__), upstream), given.answer(upstream=upstream))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("detect", torch.float16), ("detect", torch.float64), *((kind, torch.bfloat16) for kind in ("detect", "segment", "pose, flow"))],
)
def test_bits_in_other_dtypes_and_inside_autocast(kind: str, dtype: torch.dtype) -> None:
    given = scene(kind, dtype=dtype)

    def inside(preds: Any, batch: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return given.loss(preds, batch)

    assert_same_bits(given.answer(traced(given.loss.__call__)), given.answer())
    assert_same_bits(given.answer(traced(inside)), given.answer(inside))


@pytest.mark.parametrize("kind", ["detect", "segment", "pose, flow"])
def test_another_number_of_boxes_needs_one_more_graph_at_most(kind: str) -> None:
    graphs, first = Graphs(), scene(kind, 6)
    compiled = traced(first.loss.__call__, graphs)  # type: ignore[arg-type]
    for rows in (6, 9, 4, 13, 30):
        given = scene(kind, rows)._replace(loss=first.loss)
        assert_same_bits(given.answer(compiled), given.answer())
    assert graphs.count <= 2


def test_no_box_and_one_box() -> None:
    graphs, loss = Graphs(), scene("detect").loss
    compiled = traced(loss.__call__, graphs)  # type: ignore[arg-type]
    for rows in (0, 1, 5, 7, 0, 1):
        given = scene("detect", rows)._replace(loss=loss)
        assert_same_bits(given.answer(compiled), given.answer())
    assert graphs.count <= 4  # torch itself takes 0 and 1 for constants


@pytest.mark.parametrize("kind", ["detect", "segment", "oriented", "pose, flow"])
def test_an_end_to_end_share_needs_no_further_graph(kind: str) -> None:
    graphs, given = Graphs(), end_to_end(kind)
    compiled = traced(given.loss.__call__, graphs)  # type: ignore[arg-type]
    for _ in range(6):
        assert_same_bits(given.answer(compiled), given.answer())
        given.loss.update()
    assert graphs.count == 1


def test_end_to_end_of_the_first_generation() -> None:
    given = end_to_end("detect")
    given = given._replace(loss=EndToEndLoss(SPECS["detect"], generation=1))
    assert_same_bits(given.answer(traced(given.loss.__call__)), given.answer())


def test_predictions_in_the_older_layout() -> None:
    given = scene("detect")
    grids = [level.shape[-2:] for level in given.preds["feats"]]
    flat = torch.cat([given.preds["boxes"], given.preds["scores"]], 1).split([rows * columns for rows, columns in grids], 2)
    maps = [level.unflatten(2, grid) for level, grid in zip(flat, grids, strict=True)]
    found, _ = traced(given.loss.__call__)(maps, given.batch)
    assert torch.equal(found, given.loss(maps, given.batch)[0])


@pytest.mark.parametrize("validate", [0, 1])
def test_validate_as_a_number(validate: Any) -> None:
    given = scene("detect")
    given = given._replace(loss=DetectionLoss(SPECS["detect"], validate=validate))
    assert_same_bits(given.answer(traced(given.loss.__call__)), given.answer())


def test_another_definition_is_another_graph() -> None:
    graphs, given = Graphs(), scene("detect")
    compiled = traced(given.loss.__call__, graphs)  # type: ignore[arg-type]
    for spec in (SPECS["detect"], SPECS["detect, second cut, class weights"], SPECS["detect"]):
        given.loss.spec = spec
        given = scene("detect" if spec.reg_max > 1 else "detect, second cut, class weights")._replace(loss=given.loss)
        assert_same_bits(given.answer(compiled), given.answer())
    assert graphs.count == 2


def test_a_model_and_its_loss_in_one_graph() -> None:
    given = scene("detect")
    head = nn.Conv1d(given.preds["boxes"].shape[1], given.preds["boxes"].shape[1], 1)

    def model_and_loss(preds: Any, batch: Any) -> Any:
        return given.loss({**preds, "boxes": head(preds["boxes"])}, batch)

    assert_same_bits(given.answer(traced(model_and_loss)), given.answer(model_and_loss))


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.filterwarnings("ignore:Skipping serialization of skipfiles_inline_module_allowlist")  # torch 2.6 of itself
def test_generated_code(mode: str) -> None:
    # "reduce-overhead" asks for CUDA graphs, which there are none of on the host; the tag that keeps the operators out of them is tested
    # with the operators.
    given = scene("detect")
    assert_same_bits(given.answer(traced(given.loss.__call__, "inductor", mode=mode)), given.answer())


class TestWrongInputs:
    """An error says what it says in eager mode."""

    @pytest.mark.parametrize("kind", ["detect", "segment"])
    def test_values_are_checked_when_the_graph_runs(self, kind: str) -> None:
        given = scene(kind)
        compiled = traced(given.loss.__call__)
        compiled(given.preds, given.batch)
        given.batch["cls"][2] = 7
        with pytest.raises(ValueError, match=r"batch\['cls'\] row 2 is 7.0; the class must be a whole number from 0 to 2"):
            compiled(given.preds, given.batch)

    def test_shapes_are_checked(self) -> None:
        given = scene("detect")
        with pytest.raises(ValueError, match=r"batch\['bboxes'\] has shape \(6, 3\); expected \(N, 4\)"):
            traced(given.loss.__call__)(given.preds, {**given.batch, "bboxes": given.batch["bboxes"][:, :3]})

    def test_targets_that_change_between_the_passes(self) -> None:
        given = scene("detect")
        boxes = given.preds["boxes"].clone().requires_grad_()
        loss, _ = traced(given.loss.__call__)({**given.preds, "boxes": boxes}, given.batch)
        given.batch["bboxes"].mul_(0.5)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.sum().backward()


class Step(nn.Module):
    """A loss as a module, which ``torch.export`` wants."""

    def __init__(self, given: Scene) -> None:
        super().__init__()
        self.criterion, self.flow = given.loss, given.flow

    def forward(self, preds: Any, batch: Any) -> Any:
        """The loss and its items."""
        return self.criterion(preds, batch)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", ["detect", "oriented"])
def test_an_exported_step_is_saved_and_serves_other_batches(kind: str, strict: bool) -> None:
    given, other = scene(kind), scene(kind, 9)
    rows = torch.export.Dim("rows", min=2, max=4096)
    shapes = {key: [None] * 3 if key == "feats" else None for key in given.preds}, {key: {0: rows} for key in given.batch}
    exported = torch.export.export(Step(given), (given.preds, given.batch), dynamic_shapes=shapes, strict=strict)
    torch.export.save(exported, kept := io.BytesIO())
    kept.seek(0)
    module = torch.export.load(kept).module()
    assert_same_bits(other.answer(module), other.answer())


def test_selective_checkpointing_keeps_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    given, calls = scene("detect"), list[str]()
    head = nn.Conv1d(given.preds["boxes"].shape[1], given.preds["boxes"].shape[1], 1)

    def policy(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
        kept = operator == torch.ops.twinloss.step.default
        calls.extend(["kept"] * kept)
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    def model_and_loss(preds: Any, batch: Any) -> Any:
        return given.loss({**preds, "boxes": head(preds["boxes"])}, batch)

    def checkpointed(preds: Any, batch: Any) -> Any:
        contexts = partial(create_selective_checkpoint_contexts, policy)
        return checkpoint(model_and_loss, preds, batch, use_reentrant=False, context_fn=contexts)

    expected, steps = given.answer(model_and_loss), list[str]()
    call = operators._call

    def noted(*inputs: Any, **options: Any) -> Any:
        steps.append("admitted")
        return call(*inputs, **options)

    monkeypatch.setattr(operators, "_call", noted)
    assert_same_bits(given.answer(traced(checkpointed)), expected)
    assert calls
    assert len(steps) == 2  # one for each pass: the step was not computed again
