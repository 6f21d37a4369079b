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
from oracle.cases.tasks import task_of
from oracle.ladder.inside.messages import Arrays, Message
from oracle.ladder.tasks import FLOW, TASKS, flow_of, spec_fields
from oracle.tools.options import DETECT
from twinloss import LossSpec, decode_boxes, make_anchors

PRECISE: tuple[str, ...] = ("float32", "float64")
SMALL = LossSpec(num_classes=3)
STAGES = ("ground truth", "decoding", "assignment")
HEADS = ("one2many", "one2one")
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
        task: task of the loss that is asked.
    """

    name: str
    kind: str
    entry_point: str
    dtype: str
    case: Case | None
    message: Message
    task: str = DETECT

    @property
    def weight(self) -> tuple[int, int, int]:
        """Numbers of boxes, images and anchors, by which cases are ordered."""
        return (len(self.case.boxes), self.case.batch_size, self.case.num_anchors) if self.case else (0, 0, 0)


def prediction_arrays(case: Case) -> Arrays:
    """Returns the predictions of a case, exactly, as float64 arrays; the semantic logits, which come with the prototypes, by their name."""
    return {name: array.astype(np.float64) for name, array in task_of(case).predictions(case).items()}


def batch_arrays(case: Case) -> Arrays:
    """Returns predictions and targets of a case, exactly: as float64 arrays, index maps and masks as integers."""
    _, batch = build(case, Setting("float64"))
    flow = {} if flow_of(case.spec) is None else {"flow": FLOW}
    return prediction_arrays(case) | {name: tensor.numpy() for name, tensor in batch.items()} | flow


def questions(case_kinds: tuple[CaseKind, ...]) -> Iterator[Question]:
    """Yields every question of every kind, the whole loss first."""
    for case_kind in case_kinds:
        for number, case in enumerate(case_kind.cases):
            for dtype in case_kind.dtypes:
                for entry_point in (case_kind.entry_point, *case_kind.stages):
                    yield question(case_kind, case, number, entry_point, dtype)


def question(case_kind: CaseKind, case: Case, number: int, entry_point: str, dtype: str) -> Question:
    """Returns one question about a case."""
    fields = case_fields(case) | {"entry_point": entry_point, "dtype": dtype, **case_kind.fields}
    arithmetic = f"{dtype}+autocast({case_kind.fields['autocast']})" if case_kind.fields.get("autocast") else dtype
    make = {"two heads": head_arrays, "loss": batch_arrays}.get(entry_point, stage_arrays)
    arrays = {name: array for name, array in make(case).items() if entry_point not in NEEDS or name in NEEDS[entry_point]}
    if entry_point == "two heads":
        fields["predictions"] = [f"{head} {name}" for head in HEADS for name in fields["predictions"]]
    return Question(
        f"{prefix(case.spec)}{case_kind.name}/{number}/{entry_point}/{arithmetic}",
        case_kind.name,
        entry_point,
        arithmetic,
        case,
        Message(fields, arrays),
        case.spec.task,
    )


def prefix(spec: LossSpec) -> str:
    """Returns what the names of a task's questions begin with; those of detection, which came first, begin with nothing."""
    return "" if spec.task == DETECT else f"{spec.task}: "


def case_fields(case: Case) -> dict[str, Any]:
    """Returns the fields of questions about a case."""
    preds = list(prediction_arrays(case))
    fields = {
        "spec": spec_fields(case.spec),
        "grids": case.grids,
        "batch_size": case.batch_size,
        "predictions": preds,
        "targets": [name for name in batch_arrays(case) if name not in (*preds, "flow")],
    }
    # What a question to detection is asked in float64 was settled before there were other tasks; their releases read the image's size too.
    return fields | ({} if case.spec.task == DETECT else {"float_is_double": True, "image_size": case.image_size})


def interface_question(case: Case) -> Question:
    """Returns the question how the loss of a case's definition is called."""
    fields = case_fields(case) | {"entry_point": "interface", "dtype": "float32", "assigner": TASKS[case.spec.task].assigner}
    kind = "interface" if case.spec.task == DETECT else f"interface of {fields['spec']['criterion']}"
    name = f"{prefix(case.spec)}{kind}/0/interface/float32"
    return Question(name, kind, "interface", "float32", None, Message(fields, batch_arrays(case)), case.spec.task)


def head_arrays(case: Case) -> Arrays:
    """Returns a batch with predictions of two heads; those of the second have another seed."""
    other = dataclasses.replace(case, prediction=dataclasses.replace(case.prediction, seed=case.prediction.seed + 1000))
    heads = dict(zip(HEADS, (prediction_arrays(case), prediction_arrays(other)), strict=True))
    predictions = {f"{head} {name}": array for head, own in heads.items() for name, array in own.items()}
    return {name: array for name, array in batch_arrays(case).items() if name not in heads[HEADS[0]]} | predictions


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
