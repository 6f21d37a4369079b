"""Batches of a training run, saved as cases of the suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oracle.cases.case import Box, Case, Prediction
from oracle.cases.logits import inline_text
from oracle.tools.parsing import read_text
from twinloss import LossSpec

FOLDER = Path("reports", "out", "train", "cases")
IMAGES = 2  # Images kept of a batch, so that a file has a few hundred kilobytes.
WORKLOAD = "training"


def case_of(preds: Mapping[str, Any], batch: Mapping[str, Tensor], spec: LossSpec, *tags: str) -> Case:
    """Returns the first images of a batch as a case with the same logits, bit for bit."""
    rows, columns = preds["feats"][0].shape[-2:]
    height, width = rows * spec.strides[0], columns * spec.strides[0]
    images = min(IMAGES, len(preds["boxes"]))
    logits = (preds[name][:images].detach().float().cpu().numpy() for name in ("boxes", "scores"))
    shares = batch["bboxes"].double() * torch.tensor([width, height, width, height], dtype=torch.float64)
    listed = zip(batch["batch_idx"].reshape(-1).tolist(), batch["cls"].reshape(-1).tolist(), shares.tolist(), strict=True)
    return Case(
        spec=spec,
        image_size=(height, width),
        batch_size=images,
        boxes=tuple(Box(int(image), int(label), *xywh) for image, label, xywh in listed if image < images),
        prediction=Prediction(kind="inline", inline=inline_text(*logits)),
        workload=WORKLOAD,
        tags=tags,
    )


def save(case: Case, folder: Path) -> Path:
    """Write a case to a file named by its digest, and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case.digest}.json"
    path.write_text(case.to_json() + "\n", encoding="utf-8")
    return path


def load_all(folder: Path = FOLDER) -> Iterator[Case]:
    """Yields the cases that the last ``nox -s train`` saved.

    Raises:
        ValueError: a file is not a case; the message names it.
    """
    for path in sorted(folder.glob("*.json")):
        try:
            case = Case.from_json(read_text(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}; remove it, or run nox -s train again") from error
        yield case
