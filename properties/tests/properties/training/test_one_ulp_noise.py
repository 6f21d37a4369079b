"""Nudged logits differ by one unit in the last place."""

from __future__ import annotations

from typing import Any

import torch

from properties.training.one_ulp_noise import nudge_all


def test_nudges_are_one_unit_in_the_last_place() -> None:
    preds: dict[str, Any] = {"one2many": {"boxes": torch.linspace(-3, 3, 8), "scores": torch.zeros(4), "feats": []}}
    nudged = nudge_all(preds, torch.Generator().manual_seed(0))["one2many"]
    for name in ("boxes", "scores"):
        before = preds["one2many"][name]
        ulp = torch.nextafter(before.abs(), torch.tensor(torch.inf)) - before.abs()
        apart = (nudged[name] - before).abs()
        assert ((apart > 0) & (apart <= ulp)).all()
