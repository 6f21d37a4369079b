"""The drop-in inside of a compiled graph: the numbers of the moment, verification and counts as outside, in one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from properties.tests.impl.operators.test_compile import Graphs
from properties.tests.impl.test_hook import END_TO_END, PLAIN
from properties.tests.impl.test_hook import example as detection_example
from properties.tests.impl.test_hook_tasks import example, model_of
from properties.tests.properties.training.no_network import offline
from twinloss import hook
from twinloss.trainer import traced

training = pytest.importorskip("oracle.reference.training")

# The flow's own layers and padded sums round otherwise.
TASKS = {"yolov8n-seg.yaml": 0.0, "yolov8n-obb.yaml": 0.0, "yolov8n-pose.yaml": 0.0, "yolo26n-pose.yaml": 1e-5}


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """A trainer's own surroundings, with no way out to a network, and nothing traced before."""
    with training.training_process(), offline():
        torch.set_num_threads(1)
        torch.compiler.reset()
        yield
        torch.compiler.reset()


def model(name: Any = PLAIN) -> Any:
    """A model with arguments of its own."""
    found = training.yolo(name).model
    found.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=5)
    return found.train()


class Asked:
    """A model with the drop-in, asked once, and its predictions for a batch."""

    def __init__(self, held: Any, batch: dict[str, Tensor], **options: Any) -> None:
        self.model, self.batch, self.hook, self.graphs = held, batch, hook.install(held, **options), Graphs()
        held.loss(batch)
        self.preds = held.predict(batch["img"])
        self.criterion = held.criterion
        self.compiled: Callable[..., Any] = torch.compile(self.criterion.__call__, fullgraph=True, backend=self.graphs)

    def both(self) -> tuple[Tensor, Tensor]:
        """The loss inside of the graph, and outside."""
        return self.compiled(self.preds, self.batch)[0], self.criterion(self.preds, self.batch)[0]


@pytest.mark.parametrize("name", [PLAIN, END_TO_END], ids=["plain", "end to end"])
def test_gains_that_a_callback_changes_need_no_other_graph(name: Any) -> None:
    asked = Asked(model(name), detection_example())
    part = getattr(asked.criterion, "one2many", asked.criterion)
    seen = []
    for gain in (7.5, 3.0, 1.25):
        part.hyp.box = gain
        found, expected = asked.both()
        assert torch.equal(found, expected)
        seen.append(found.detach())
    assert asked.graphs.count == 1
    assert len({float(loss[0]) for loss in seen}) == 3


def test_the_share_of_an_end_to_end_schedule() -> None:
    asked = Asked(model(END_TO_END), detection_example())
    for _ in range(3):
        assert torch.equal(*asked.both())
        asked.criterion.update()
    assert asked.graphs.count == 1


@pytest.mark.parametrize("name", TASKS)
def test_every_task(name: str) -> None:
    asked = Asked(model_of(name), example(name))
    found, expected = asked.both()
    torch.testing.assert_close(found, expected, rtol=TASKS[name], atol=TASKS[name])
    assert asked.graphs.count == 1


def test_calls_are_counted() -> None:
    asked = Asked(model(), detection_example())
    before = asked.hook.training_calls, asked.hook.validation_calls
    asked.compiled(asked.preds, asked.batch)
    with torch.no_grad():
        asked.compiled(asked.preds, asked.batch)
    assert (asked.hook.training_calls - before[0], asked.hook.validation_calls - before[1]) == (1, 1)


def test_a_changed_number_is_verified_inside() -> None:
    asked = Asked(model(), detection_example())
    asked.compiled(asked.preds, asked.batch)
    verified = asked.hook.verifications
    asked.criterion.hyp.cls = 2.0
    asked.compiled(asked.preds, asked.batch)
    assert asked.hook.verifications == verified + 1


def test_a_criterion_that_is_no_longer_the_release_s_is_refused_inside() -> None:
    asked = Asked(model(), detection_example())
    asked.compiled(asked.preds, asked.batch)
    asked.criterion.bce.pos_weight = torch.tensor(2.0)
    with pytest.raises(TypeError, match="its bce has pos_weight"):
        asked.compiled(asked.preds, asked.batch)


def test_a_definition_of_another_structure_is_refused_and_then_traced_anew() -> None:
    asked = Asked(model(), detection_example())
    asked.compiled(asked.preds, asked.batch)
    asked.criterion.assigner.topk = 4
    with pytest.raises(RuntimeError, match=r"call torch.compiler.reset\(\)"):
        asked.compiled(asked.preds, asked.batch)
    torch.compiler.reset()
    assert torch.equal(*asked.both())


def test_a_model_with_its_loss_is_one_graph() -> None:
    asked = Asked(model(), detection_example())
    expected, _ = asked.model.loss(asked.batch)
    compiled: Any = torch.compile(asked.model, fullgraph=True, backend="aot_eager")
    loss, items = compiled(asked.batch)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), expected.detach(), rtol=1e-4, atol=1e-4)
    assert all(parameter.grad is not None for parameter in asked.model.parameters() if parameter.requires_grad)
    assert len(items) == 3


def test_follow_is_a_sound_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, seen = Asked(model(), detection_example()), list[tuple[Any, ...]]()

    def noted(*inputs: Any) -> Any:
        seen.append(inputs)
        return traced._follow(*inputs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.ops.twinloss, "follow", noted)
        traced.evaluate(asked.criterion, asked.preds, asked.batch)
    opcheck(torch.ops.twinloss.follow.default, seen[0])


def test_a_criterion_that_is_gone_is_named() -> None:
    nobody = torch.tensor(-1)
    with pytest.raises(RuntimeError, match="no longer there"):
        torch.ops.twinloss.follow(nobody, [], [], "{}", "", "", 1, True)
