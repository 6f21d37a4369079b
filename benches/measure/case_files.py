"""A case's arrays as files, written once and read by every process that measures them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from twinloss import LossSpec

if TYPE_CHECKING:
    from oracle.cases.case import Case

PREDICTION, TARGET = "prediction", "target"


class LoadedCase(NamedTuple):
    """Arguments of a criterion: predictions, which are leaves, and the batch."""

    preds: dict[str, Any]
    batch: dict[str, Tensor]

    def leaves(self) -> Iterator[Tensor]:
        """Yields the predictions that have a gradient."""
        return (leaf for _, leaf in leaves_of(self.preds))

    def renew(self, draw: Random) -> None:
        """Scales each prediction by a factor within 0.05 % of 1, so that no answer to earlier inputs is one to these."""
        with torch.no_grad():
            for leaf in self.leaves():
                leaf.mul_(1 + (draw.random() - 0.5) * 1e-3)


def leaves_of(preds: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yields the predictions by name, all but ``feats``; the second tensor of a pair has the first one's name and ``+``."""
    for name, value in preds.items():
        if isinstance(value, tuple):
            yield from zip((name, f"{name}+"), value, strict=True)
        elif name != "feats":
            yield name, value


def save(case: Case, folder: Path) -> Path:
    """Write the case's predictions (float32), targets and definition into a new folder below ``folder``; returns the new folder."""
    from oracle.cases.build import build  # Imported by the writer only: the gate's readers run with another revision of the twin.

    case_folder = folder / case.digest
    if not (case_folder / "case.json").exists():
        case_folder.mkdir(parents=True, exist_ok=True)
        preds, batch = build(case)
        for kind, tensors in ((PREDICTION, leaves_of(preds)), (TARGET, batch.items())):
            for name, tensor in tensors:
                np.save(case_folder / f"{kind} {name}.npy", tensor.detach().numpy())
        fields = {field.name: (getattr(case.spec, field.name), field.default) for field in dataclasses.fields(case.spec)}
        usual = [name for name, (value, default) in fields.items() if value == default]
        text = json.dumps({"task": case.spec.task, "spec": dataclasses.asdict(case.spec), "usual": usual, "grids": case.grids})
        (case_folder / "case.json").write_text(text, "utf-8")
    return case_folder


def files(case_folder: Path, kind: str) -> dict[str, Path]:
    """Returns the files of the predictions or of the targets by name."""
    return {path.stem.removeprefix(f"{kind} "): path for path in sorted(case_folder.glob(f"{kind} *.npy"))}


def load_spec(case_folder: Path) -> LossSpec:
    """Returns the definition; fields that this revision of the twin lacks are dropped where the writer's own have their default.

    A field's default is what the newest definition says, which a revision that lacks the field always computes.

    Raises:
        ValueError: this revision lacks the task, or a field that has another value than its default.
    """
    record = json.loads((case_folder / "case.json").read_text("utf-8"))
    own: tuple[type[LossSpec], ...] = (LossSpec, *LossSpec.__subclasses__())
    kinds = {getattr(kind, "task", "detect"): kind for kind in own}
    if record["task"] not in kinds:
        raise ValueError(f"this revision of the twin has no task {record['task']!r}; compare with one that has")
    kind, fields = kinds[record["task"]], record["spec"]
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(fields) - known - set(record["usual"])):
        raise ValueError(f"this revision's {kind.__name__} has no {', '.join(unknown)}; compare with one that has")
    kept: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items() if name in known}
    return kind(**kept)


def load(case_folder: Path, dtype: str, device: str) -> LoadedCase:
    """Returns the tensors of a case on a device, with predictions of a dtype; targets that are whole numbers keep theirs."""
    grids = json.loads((case_folder / "case.json").read_text("utf-8"))["grids"]
    prediction_dtype = getattr(torch, dtype)
    leaves = {name: _tensor(path, prediction_dtype, device).requires_grad_() for name, path in files(case_folder, PREDICTION).items()}
    preds = {name: (leaf, leaves[f"{name}+"]) if f"{name}+" in leaves else leaf for name, leaf in leaves.items() if not name.endswith("+")}
    feats = [torch.zeros(len(leaves["boxes"]), 1, *grid, dtype=prediction_dtype, device=device) for grid in grids]
    target_dtype = torch.float64 if prediction_dtype == torch.float64 else torch.float32
    batch = {name: _tensor(path, target_dtype, device) for name, path in files(case_folder, TARGET).items()}
    return LoadedCase({**preds, "feats": feats}, batch)


def _tensor(file: Path, dtype: torch.dtype, device: str) -> Tensor:
    tensor = torch.from_numpy(np.load(file))
    return tensor.to(device, dtype if tensor.is_floating_point() else None)
