"""Builds the tensors of a case, with the same bits on every machine: pseudo-random numbers come from :mod:`oracle.cases.noise`."""

from __future__ import annotations

from typing import Any

import torch

from oracle.cases.case import PAIRS, Case, Inputs, Setting
from oracle.cases.tasks import task_of


def build(case: Case, setting: Setting = Setting()) -> Inputs:
    """Returns predictions and targets of a case as a criterion takes them; the predictions are leaves that require a gradient."""
    dtype, device, task = setting.torch_dtype, setting.device, task_of(case)
    target_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = {name: torch.from_numpy(array).to(device, dtype).requires_grad_() for name, array in task.predictions(case).items()}
    feats = [torch.zeros(case.batch_size, 1, *grid, dtype=dtype, device=device) for grid in case.grids]
    rows = torch.tensor([(b.image, b.label) for b in case.boxes], dtype=torch.float64).reshape(-1, 2)
    batch = {"batch_idx": rows[:, 0].to(device, target_dtype), "cls": rows[:, 1:].to(device, target_dtype)}
    batch |= {name: target.to(device) for name, target in task.targets(case, target_dtype).items()}
    return Inputs({**_paired(leaves), "feats": feats}, batch)


def _paired(leaves: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Returns the predictions as a criterion takes them: two tensors that come as a pair under one name."""
    seconds = {second for _, second in PAIRS.values()}
    pairs = {first: (leaves[first], leaves[second]) for first, second in PAIRS.values() if second in leaves}
    return {name: pairs.get(name, leaf) for name, leaf in leaves.items() if name not in seconds}
