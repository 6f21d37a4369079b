"""Batches of a training run, saved as cases of the suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oracle.cases.case import Box, Case, Prediction
from oracle.cases.logits import inline_text
from oracle.contract.run import leaves_of
from oracle.tools.parsing import read_text
from twinloss import LossSpec

FOLDER = Path("reports", "out", "train", "cases")
IMAGES = 2  # Images kept of a batch, so that a file has a few hundred kilobytes.
WORKLOAD = "training"

Ring = tuple[float, ...]


def case_of(preds: Mapping[str, Any], batch: Mapping[str, Tensor], spec: LossSpec, *tags: str) -> Case:
    """Returns the first images of a batch as a case with the same predictions, bit for bit."""
    rows, columns = preds["feats"][0].shape[-2:]
    height, width = rows * spec.strides[0], columns * spec.strides[0]
    images = min(IMAGES, len(preds["boxes"]))
    leaves = {name: leaf[:images].detach().float().cpu().numpy() for name, leaf in leaves_of(preds).items()}
    kept = batch["batch_idx"].reshape(-1) < images
    image, label = (batch[name].reshape(-1)[kept].tolist() for name in ("batch_idx", "cls"))
    shares = batch["bboxes"][kept, :4].double() * torch.tensor([width, height, width, height], dtype=torch.float64)
    extras = _extras(batch, kept, (height, width)) if kept.any() else {}
    return Case(
        spec=spec,
        image_size=(height, width),
        batch_size=images,
        boxes=tuple(Box(int(at), int(c), *xywh) for at, c, xywh in zip(image, label, shares.tolist(), strict=True)),
        prediction=Prediction(kind="inline", inline=inline_text(**leaves)),
        workload=WORKLOAD,
        tags=tags,
        extras=extras,
        options=_options(leaves, batch) if "proto" in leaves else {},
    )


def _extras(batch: Mapping[str, Tensor], kept: Tensor, size: tuple[int, int]) -> dict[str, tuple[Any, ...]]:
    """Returns the columns of ground truth that the batch has beside its boxes."""
    height, width = size
    if "masks" in batch:
        return {"polygons": tuple(_polygons(batch, kept, size))}
    if "keypoints" in batch:
        points = batch["keypoints"][kept].double()
        points[..., :2] *= torch.tensor([width, height], dtype=torch.float64)
        return {"keypoints": tuple(map(tuple, points.flatten(1).tolist()))}
    return {"angle": tuple(batch["bboxes"][kept, 4].tolist())} if batch["bboxes"].shape[1] == 5 else {}


def _polygons(batch: Mapping[str, Tensor], kept: Tensor, size: tuple[int, int]) -> Iterator[tuple[Ring, ...]]:
    """Yields for each box the pixels at which an index map shows it, a rectangle for each run of pixels in a row: exactly that mask."""
    maps, seen = batch["masks"], dict[int, int]()
    down, across = size[0] / maps.shape[1], size[1] / maps.shape[2]
    for image in batch["batch_idx"].reshape(-1)[kept].long().tolist():
        seen[image] = index = seen.get(image, 0) + 1
        shown = torch.nn.functional.pad((maps[image] == index).to(torch.int8), (1, 1))
        steps = shown.diff(dim=1)
        starts, ends = ((steps == step).nonzero().tolist() for step in (1, -1))
        yield tuple(
            (first * across, row * down, end * across, row * down, end * across, (row + 1) * down, first * across, (row + 1) * down)
            for (row, first), (_, end) in zip(starts, ends, strict=True)
        )


def _options(leaves: Mapping[str, Any], batch: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns the sizes of a segmentation head's predictions and of the masks."""
    grids = {"proto": leaves["proto"].shape, "mask": batch["masks"].shape}
    options = {"prototypes": leaves["proto"].shape[1], "semantic": int("semantic" in leaves)}
    grids |= {"semantic": leaves["semantic"].shape} if "semantic" in leaves else {}
    for name, shape in grids.items():
        options |= {f"{name}_height": shape[-2], f"{name}_width": shape[-1]}
    return {name: float(value) for name, value in options.items()}


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
