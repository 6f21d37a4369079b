"""Builds the tensors of a case, with the same bits on every machine: pseudo-random numbers come from :mod:`oracle.cases.noise`."""

from __future__ import annotations

import torch

from oracle.cases.case import Case, Inputs, Setting
from oracle.cases.logits import logits


def build(case: Case, setting: Setting = Setting()) -> Inputs:
    """Returns predictions and targets of a case as a criterion takes them; the logits are leaves that require a gradient."""
    boxes, scores = logits(case)
    dtype, device = setting.torch_dtype, setting.device
    target_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    preds = {
        "boxes": torch.from_numpy(boxes).to(device, dtype).requires_grad_(),
        "scores": torch.from_numpy(scores).to(device, dtype).requires_grad_(),
        "feats": [torch.zeros(case.batch_size, 1, *grid, dtype=dtype, device=device) for grid in case.grids],
    }
    rows = torch.tensor([(b.image, b.label, b.cx, b.cy, b.w, b.h) for b in case.boxes], dtype=torch.float64).reshape(-1, 6)
    height, width = case.image_size
    # Rounded to float32 in every setting, so that all dtypes get the same boxes.
    xywh = (rows[:, 2:] / torch.tensor([width, height, width, height], dtype=torch.float64)).float()
    batch = {
        "batch_idx": rows[:, 0].to(device, target_dtype),
        "cls": rows[:, 1:2].to(device, target_dtype),
        "bboxes": xywh.to(device, target_dtype),
    }
    return Inputs(preds, batch)
