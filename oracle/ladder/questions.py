"""The questions that every release is asked: an entry point of the release, and the arrays of a batch for it.

A question is made from a :class:`~oracle.cases.case.Case`, and can be printed, saved and shrunk like every case of the suite. The
whole loss is asked in float32 and in float64: where only the float32 answers of two releases differ, the arithmetic changed and not the
definition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, PredictionKind, Setting
from oracle.ladder.inside.messages import Arrays, Message
from twinloss import LossSpec, decode_boxes, make_anchors

PRECISE: tuple[str, ...] = ("float32", "float64")
SMALL = LossSpec(num_classes=3)
STAGES = ("ground truth", "decoding", "assignment")
NEEDS: Mapping[str, tuple[str, ...]] = {
    "anchors": ("strides",),
    "ground truth": ("rows", "scale"),
    "decoding": ("boxes", "points"),
    "assignment": ("probabilities", "corners", "centres", "labels", "truth", "valid"),
}


@dataclass(frozen=True)
class CaseKind:
    """A kind of case: its batches, and the entry points and dtypes of its questions.

    Attributes:
        name: name of the kind in tables.
        cases: batches, smallest first.
        dtypes: dtypes of the logits.
        stages: entry points besides the whole loss.
        fields: further fields of each question, such as ``autocast``.
        entry_point: entry point of the whole loss, with one head or two.
    """

    name: str
    cases: tuple[Case, ...]
    dtypes: tuple[str, ...] = PRECISE
    stages: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    entry_point: str = "loss"


@dataclass(frozen=True)
class Question:
    """One question to a release.

    Attributes:
        name: unique name; it changes only when the question does.
        kind: name of the kind of case.
        entry_point: entry point of the release.
        dtype: dtype of the logits, with autocast.
        case: source of the arrays, or ``None`` for stages with arrays of their own.
        message: the message to the process of the release.
    """

    name: str
    kind: str
    entry_point: str
    dtype: str
    case: Case | None
    message: Message

    @property
    def weight(self) -> tuple[int, int, int]:
        """Numbers of boxes, images and anchors, by which cases are ordered."""
        return (len(self.case.boxes), self.case.batch_size, self.case.num_anchors) if self.case else (0, 0, 0)


def spec_fields(spec: LossSpec) -> dict[str, Any]:
    """Returns the fields of a definition for which releases have options."""
    names = ("num_classes", "reg_max", "strides", "gains", "topk", "topk2", "class_weights")
    return {name: getattr(spec, name) for name in names}


def batch_arrays(case: Case) -> Arrays:
    """Returns logits and targets of a case, exactly, as float64 arrays."""
    preds, batch = build(case, Setting("float64"))
    tensors = {"boxes": preds["boxes"], "scores": preds["scores"], **batch}
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def questions(case_kinds: tuple[CaseKind, ...]) -> Iterator[Question]:
    """Yields every question of every kind, the whole loss first."""
    for case_kind in case_kinds:
        for number, case in enumerate(case_kind.cases):
            for dtype in case_kind.dtypes:
                for entry_point in (case_kind.entry_point, *case_kind.stages):
                    yield question(case_kind, case, number, entry_point, dtype)


def question(case_kind: CaseKind, case: Case, number: int, entry_point: str, dtype: str) -> Question:
    """Returns one question about a case."""
    fields = {
        "entry_point": entry_point,
        "dtype": dtype,
        "spec": spec_fields(case.spec),
        "grids": case.grids,
        "batch_size": case.batch_size,
        **case_kind.fields,
    }
    arithmetic = f"{dtype}+autocast({case_kind.fields['autocast']})" if case_kind.fields.get("autocast") else dtype
    make = {"two heads": head_arrays, "loss": batch_arrays}.get(entry_point, stage_arrays)
    arrays = {name: array for name, array in make(case).items() if entry_point not in NEEDS or name in NEEDS[entry_point]}
    return Question(
        f"{case_kind.name}/{number}/{entry_point}/{arithmetic}", case_kind.name, entry_point, arithmetic, case, Message(fields, arrays)
    )


def head_arrays(case: Case) -> Arrays:
    """Returns a batch with logits of two heads; those of the second have another seed."""
    arrays = batch_arrays(case)
    other = dataclasses.replace(case, prediction=dataclasses.replace(case.prediction, seed=case.prediction.seed + 1000))
    second = batch_arrays(other)
    logits = {f"{head} {name}": each[name] for head, each in (("one2many", arrays), ("one2one", second)) for name in ("boxes", "scores")}
    return {name: arrays[name] for name in ("batch_idx", "cls", "bboxes")} | logits


def stage_arrays(case: Case) -> Arrays:
    """Returns inputs of all stages, prepared by the twin's stages, so that a change in one stage of a release shows in that stage only."""
    arrays = batch_arrays(case)
    centres, strides = make_anchors(case.grids, case.spec.strides, dtype=torch.float64)
    corners = decode_boxes(torch.from_numpy(arrays["boxes"]), centres, case.spec.reg_max) * strides[:, None]
    rows = np.concatenate([arrays["batch_idx"][:, None], arrays["cls"], arrays["bboxes"]], axis=1)
    scale = np.array([case.image_size[1], case.image_size[0]] * 2, dtype=np.float64)
    return {
        "boxes": arrays["boxes"],
        "rows": rows,
        "scale": scale,
        "strides": np.array(case.spec.strides, dtype=np.float64),
        "probabilities": 1 / (1 + np.exp(-arrays["scores"].transpose(0, 2, 1))),
        "corners": corners.numpy(),
        "centres": (centres * strides[:, None]).numpy(),
        **padded(rows, scale, case.batch_size),
    } | {"points": centres.numpy()}


def padded(rows: NDArray[Any], scale: NDArray[Any], batch_size: int) -> Arrays:
    """Returns ground truth padded to the fullest image (spec section 3): labels (B, M, 1), pixel corners (B, M, 4), validity (B, M, 1)."""
    counts = np.bincount(rows[:, 0].astype(np.int64), minlength=batch_size)
    most = int(counts.max(initial=0))
    labels, corners = np.zeros((batch_size, most, 1)), np.zeros((batch_size, most, 4))
    for image in range(batch_size):
        own = rows[rows[:, 0] == image]
        centre_size = own[:, 2:] * scale
        half = centre_size[:, 2:] / 2
        labels[image, : len(own), 0] = own[:, 1]
        corners[image, : len(own)] = np.concatenate([centre_size[:, :2] - half, centre_size[:, :2] + half], axis=1)
    return {"labels": labels, "truth": corners, "valid": (corners.sum(-1, keepdims=True) > 0).astype(np.float64)}


def scene(
    seed: int,
    *,
    images: int = 2,
    boxes: int = 4,
    sides: tuple[float, ...] | tuple[float, float] = (12.0, 70.0),
    spec: LossSpec = SMALL,
    size: tuple[int, int] = (96, 96),
    kind: PredictionKind = "early",
    spread: float = 1.0,
    exact_sides: bool = False,
) -> Case:
    """Returns a batch of boxes at random places; sides in pixels are drawn between two bounds, or with ``exact_sides`` from the list."""
    draw = Random(seed)
    height, width = size

    def side(limit: int) -> float:
        return min(draw.choice(sides) if exact_sides else draw.uniform(sides[0], sides[-1]), limit)

    made = []
    for index in range(images * boxes):
        w, h = side(width), side(height)
        place = draw.uniform(w / 2, width - w / 2), draw.uniform(h / 2, height - h / 2)
        made.append(Box(index // boxes, draw.randrange(spec.num_classes), *place, w, h))
    return Case(spec, size, images, tuple(made), Prediction(kind, seed, spread), workload="ladder")
