"""Run where a wheel with kernels is installed, without a checkout of twinloss on the path: the kernels serve, and nothing is compiled."""

from __future__ import annotations

import os
from pathlib import Path

import torch

import twinloss
from twinloss import DetectionLoss, LossSpec

CHECKOUT = Path(__file__).resolve().parents[3]


def test_twinloss_is_the_installed_one() -> None:
    assert not Path(twinloss.__file__).is_relative_to(CHECKOUT / "impl")


def test_installed_kernels_serve() -> None:
    assert os.environ.get("TWINLOSS_BUILD", "0") == "0"
    kernels = twinloss.cpu_kernels()
    assert kernels.origin == "installed"
    assert kernels.path.is_relative_to(Path(twinloss.__file__).parent)


def test_a_step() -> None:
    spec, draw = LossSpec(num_classes=3, strides=(8, 16)), torch.Generator().manual_seed(0)
    anchors = 8 * 8 + 4 * 4
    logits = {
        "boxes": torch.randn(2, 64, anchors, generator=draw, requires_grad=True),
        "scores": torch.randn(2, 3, anchors, generator=draw, requires_grad=True),
    }
    preds = {**logits, "feats": [torch.zeros(2, 1, side, side) for side in (8, 4)]}
    batch = {
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.tensor([[1.0], [2.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.3, 0.4, 0.2, 0.2]]),
    }
    losses = [DetectionLoss(spec, backend=backend)(preds, batch)[0] for backend in ("native", "torch")]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    losses[0].sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in logits.values())
