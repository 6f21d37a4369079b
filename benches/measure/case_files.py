"""A case's arrays as files, written once and read by every process that measures them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from twinloss import LossSpec

if TYPE_CHECKING:
    from oracle.cases.case import Case


class LoadedCase(NamedTuple):
    """Arguments of a criterion: predictions, whose logits are leaves, and the batch."""

    preds: dict[str, Any]
    batch: dict[str, Tensor]


def save(case: Case, folder: Path) -> Path:
    """Write the case's logits (float32), targets and definition into a new folder below ``folder``; returns the new folder."""
    from oracle.cases.logits import logits  # Imported by the writer only: the gate's readers run with another revision of the twin.

    case_folder = folder / case.digest
    if not (case_folder / "case.json").exists():
        case_folder.mkdir(parents=True, exist_ok=True)
        boxes, scores = logits(case)
        height, width = case.image_size
        rows = np.array([(b.image, b.label, b.cx / width, b.cy / height, b.w / width, b.h / height) for b in case.boxes])
        for name, array in (("boxes", boxes), ("scores", scores), ("rows", rows.reshape(-1, 6).astype(np.float32))):
            np.save(case_folder / f"{name}.npy", array)
        text = json.dumps({"spec": dataclasses.asdict(case.spec), "grids": case.grids})
        (case_folder / "case.json").write_text(text, "utf-8")
    return case_folder


def load_spec(case_folder: Path) -> LossSpec:
    """Returns the definition; fields that this revision of ``LossSpec`` lacks are dropped where they are ``None``.

    Raises:
        ValueError: the definition has a value in a field that this revision lacks.
    """
    fields = json.loads((case_folder / "case.json").read_text("utf-8"))["spec"]
    known = {field.name for field in dataclasses.fields(LossSpec)}
    unknown = {name: value for name, value in fields.items() if name not in known and value is not None}
    if unknown:
        raise ValueError(f"this revision's LossSpec has no {', '.join(unknown)}; compare with one that has")
    kept: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items() if name in known}
    return LossSpec(**kept)


def load(case_folder: Path, dtype: str, device: str) -> LoadedCase:
    """Returns the tensors of a case on a device, with logits of a dtype."""
    grids = json.loads((case_folder / "case.json").read_text("utf-8"))["grids"]
    logits_dtype = getattr(torch, dtype)
    boxes, scores = (_tensor(case_folder / f"{name}.npy", logits_dtype, device).requires_grad_() for name in ("boxes", "scores"))
    feats = [torch.zeros(len(boxes), 1, *grid, dtype=logits_dtype, device=device) for grid in grids]
    rows = _tensor(case_folder / "rows.npy", torch.float64 if logits_dtype == torch.float64 else torch.float32, device)
    batch = {"batch_idx": rows[:, 0].contiguous(), "cls": rows[:, 1:2].contiguous(), "bboxes": rows[:, 2:].contiguous()}
    return LoadedCase({"boxes": boxes, "scores": scores, "feats": feats}, batch)


def _tensor(file: Path, dtype: torch.dtype, device: str) -> Tensor:
    return torch.from_numpy(np.load(file)).to(device, dtype)
