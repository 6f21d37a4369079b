"""Choices among equal values on a GPU: those of ``torch.topk``, and those of the reference's assigner beside the twin's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from benches.gpu.finding import GpuFinding, holds
from benches.gpu.steps import case_of, device, free
from benches.gpu.turns import or_reason
from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.contract.contender import Batch, Preds
from oracle.reference.criterion import ReferenceCriterion
from twinloss import Assignment, DetectionLoss, LossSpec

LENGTHS = (100, 1000, 8400, 33_600)
PICKED, LARGER, REPEATS, ROWS = 10, 3, 20, 16
Triples = set[tuple[int, int, int]]


def ties() -> Iterator[GpuFinding]:
    """Record what ``torch.topk`` picks among equals, and check that the twin picks as the reference does where it is asked to."""
    for length in LENGTHS:
        for larger in (0, LARGER):
            what = f"torch.topk of {length} values, {'all equal' if not larger else f'all 0 but {larger}'}"
            yield GpuFinding("ties", what, "measured", dtype="float32", detail=_choice(length, larger))
    for name, case in tied_cases().items():
        yield from or_reason(_same_assignment(name, case), "ties", name, "float32")
        free()


def _choice(length: int, larger: int) -> str:
    """Returns in words what is picked among the equal values of a row whose middle holds ``larger`` larger ones."""
    row = torch.zeros(length, device=device())
    row[length // 2 : length // 2 + larger] = 1 + torch.arange(larger, device=device(), dtype=row.dtype)
    first = _picks(row)
    equal = [index for index in first if not length // 2 <= index < length // 2 + larger]
    lowest = [index for index in range(length) if not length // 2 <= index < length // 2 + larger]
    where = "the lowest" if equal == lowest[: len(equal)] else "the highest" if equal == lowest[-len(equal) :] else "neither end"
    repeats = all(_picks(row) == first for _ in range(REPEATS - 1))
    batch = row.expand(ROWS, -1).contiguous().topk(PICKED).indices.sort().values.tolist()
    agree = sum(picked == first for picked in batch)
    host = _picks(row.cpu())
    return "; ".join(
        (
            f"picks {where}: {', '.join(map(str, equal))}",
            f"{REPEATS} repeats {'agree' if repeats else 'differ'}",
            f"in a batch {agree} of {ROWS} equal rows pick as the row alone" + ("" if agree == ROWS else f", the first {batch[0]}"),
            "the CPU picks the same" if host == first else f"the CPU picks {', '.join(map(str, host))}",
        )
    )


def _picks(row: Tensor) -> list[int]:
    return [int(index) for index in row.topk(PICKED).indices.sort().values.tolist()]


def tied_cases() -> dict[str, Case]:
    """Returns batches with many equal metrics, by name."""
    coco, crowded = case_of("coco"), case_of("boxes-300")
    exact = Prediction("exact")
    return {
        "coco, exact predictions": dataclasses.replace(coco, spec=dataclasses.replace(coco.spec, reg_max=1), prediction=exact),
        "boxes-300, exact predictions": dataclasses.replace(crowded, spec=dataclasses.replace(crowded.spec, reg_max=1), prediction=exact),
        "symmetric boxes, logits of 0": symmetric(),
    }


def symmetric(images: int = 4) -> Case:
    """Returns boxes centred between anchors; with logits of 0 anchors at equal distances have equal metrics, to the bit."""
    boxes = [
        Box(image, 0, 64.0 + 128 * column, 64.0 + 128 * row, 32.0 * (2 + image % 3), 32.0 * (2 + image % 3))
        for image in range(images)
        for row in range(2)
        for column in range(2)
    ]
    return Case(LossSpec(num_classes=2), (256, 256), images, tuple(boxes), Prediction("zeros"), workload="symmetric")


def _same_assignment(name: str, case: Case) -> Iterator[GpuFinding]:
    """Yields whether the twin holds the anchors that the reference's assigner holds."""
    preds, batch = build(case, Setting("float32", device=device()))
    theirs = _triples(ReferenceCriterion(case.spec).assign(preds, batch))
    ours = _held(case.spec, "reference", preds, batch)
    stable = _held(case.spec, "stable", preds, batch)
    what = 'ties="reference" holds the anchors that the reference holds'
    detail = f'{len(theirs)} held anchors; {len(ours ^ theirs)} differ, and {len(stable ^ theirs)} with ties="stable"'
    yield holds("ties", what, ours == theirs, name, "float32", detail)


def _held(spec: LossSpec, ties: str, preds: Preds, batch: Batch) -> Triples:
    return _triples(DetectionLoss(spec, backend="torch", ties=ties).assign(preds, batch))  # type: ignore[arg-type]


def _triples(assignment: Assignment) -> Triples:
    """Returns image, anchor and box of each anchor of positive weight."""
    kept = assignment.weight > 0
    columns = (column[kept].tolist() for column in (assignment.image, assignment.anchor, assignment.box))
    return set(zip(*columns, strict=True))
