"""Times of whole training steps of a real model: the share of the loss bounds what a faster loss can gain."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benches.measure.case_files import LoadedCase, load, load_spec
from benches.measure.timing import collected_before
from benches.plan.contenders import BenchContender, make_criterion

T = TypeVar("T")
Spent = dict[str, int]


def training_steps(name: str, case_folder: Path, labels: list[str], steps: int) -> list[dict[str, Spent]]:
    """Returns the nanoseconds of whole training steps, after one step of warm-up.

    Each step maps ``model`` to its times (forward, backward, optimiser) and each contender to the times of its loss (forward, backward).
    All contenders are called on the same output of the model, so that the model runs once a step.

    Args:
        name: the reference's model, such as ``yolov8n.yaml``.
        place: folder of the batch whose ground truth is used.
        labels: labels of the contenders.
        steps: number of steps.
    """
    from oracle.reference.criterion import detection_model

    spec = load_spec(case_folder)
    inputs = load(case_folder, "float32", "cpu")
    height, width = (spec.strides[0] * side for side in inputs.preds["feats"][0].shape[-2:])
    step = _Step(
        model=detection_model(name, spec.num_classes),
        pictures=torch.rand(len(inputs.preds["boxes"]), 3, height, width),
        batch=inputs.batch,
        criteria={label: make_criterion(BenchContender.parse(label), spec, "cpu") for label in labels},
    )
    return [step.run() for _ in range(steps + 1)][1:]


class _Step:
    def __init__(self, model: nn.Module, pictures: Tensor, batch: dict[str, Tensor], criteria: dict[str, Any]) -> None:
        self.model, self.pictures, self.batch, self.criteria = model, pictures, batch, criteria
        self.optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def run(self) -> dict[str, Spent]:
        self.optimiser.zero_grad(set_to_none=True)
        with collected_before():
            forward, outputs = _timed(lambda: self.model(self.pictures))
            losses = {label: _loss(criterion, outputs, self.batch) for label, criterion in self.criteria.items()}
            _, gradients = next(iter(losses.values()))
            backward, _ = _timed(lambda: torch.autograd.backward([outputs["boxes"], outputs["scores"]], gradients))
            update, _ = _timed(self.optimiser.step)
        model = {"forward": forward, "backward": backward, "optimiser": update}
        return {"model": model} | {label: spent for label, (spent, _) in losses.items()}


def _loss(criterion: Any, outputs: dict[str, Any], batch: dict[str, Tensor]) -> tuple[Spent, list[Tensor]]:
    """Returns the times of the loss, forward and backward, and the gradients of the model's output."""
    leaves = {name: outputs[name].detach().requires_grad_() for name in ("boxes", "scores")}
    inputs = LoadedCase(leaves | {"feats": outputs["feats"]}, batch)
    forward, (loss, _) = _timed(lambda: criterion(*inputs))
    backward, _ = _timed(lambda: loss.sum().backward())
    return {"forward": forward, "backward": backward}, [leaf.grad for leaf in leaves.values() if leaf.grad is not None]


def _timed(call: Callable[[], T]) -> tuple[int, T]:
    start = time.perf_counter_ns()
    answer = call()
    return time.perf_counter_ns() - start, answer
