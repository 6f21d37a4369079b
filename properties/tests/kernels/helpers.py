"""Inputs of the kernels, and comparisons of their results."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from twinloss import Assignment, DetectionLoss, LossSpec
from twinloss.backends.triton.availability import why_not

Answer = tuple[Tensor, Tensor, Tensor]
DTYPES = ("float32", "float16", "bfloat16")


def answers(
    criterion: DetectionLoss, preds: dict[str, Any], batch: dict[str, Tensor], weights: tuple[float, ...] = (1.0, 0.5, 2.0)
) -> Answer:
    """The loss, and the gradients of box and class logits of a weighted sum of its terms."""
    preds = preds | {name: preds[name].detach().requires_grad_() for name in ("boxes", "scores")}
    loss, _ = criterion(preds, batch)
    loss.backward(torch.tensor(weights, device=loss.device))
    return loss.detach(), preds["boxes"].grad, preds["scores"].grad


def both(case: Case, setting: Setting, **options: Any) -> tuple[DetectionLoss, DetectionLoss, dict[str, Any], dict[str, Tensor]]:
    """The kernels' criterion, torch's, and the case's inputs."""
    preds, batch = build(case, setting)
    make = [DetectionLoss(case.spec, backend=backend, **options) for backend in ("triton", "torch")]
    return make[0], make[1], preds, batch


def same_holders(found: Assignment, expected: Assignment) -> bool:
    """Whether two assignments hold the same anchors for the same boxes."""
    return all(torch.equal(getattr(found, name), getattr(expected, name)) for name in ("image", "anchor", "box"))


def assert_near(found: Tensor, expected: Tensor, relative: float, name: str) -> None:
    """Assert that no element differs by more than a share of the largest."""
    scale = expected.abs().max().double().item() if expected.numel() else 0.0
    worst = (found.double() - expected.double()).abs().max().item() if expected.numel() else 0.0
    assert worst <= relative * scale, f"{name} is off by {worst:.3g} where the largest is {scale:.3g}"


def on_host() -> bool:
    """Whether the kernels run on tensors of the host: in Triton's interpreter, or on another substitute for a GPU."""
    return why_not(torch.zeros(0), LossSpec(num_classes=1), "stable") is None
