"""A case: one batch of the loss, as a small frozen record that prints, shrinks, hashes and travels as JSON.

A case holds no tensors. :func:`oracle.cases.build.build` makes its predictions and targets, on any device and in any dtype.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinloss import LossSpec

PredictionKind = Literal["random", "untrained", "near", "exact", "saturated", "early", "middle", "late", "zeros", "inline"]
DtypeName = Literal["float64", "float32", "float16", "bfloat16"]

PAIRS = {"proto": ("proto", "semantic")}
"""Predictions that may come as a pair, with the names of its two tensors."""

_MOST_LOGITS = 1 << 31  # 8 GiB in float32.


class Inputs(NamedTuple):
    """Arguments of a criterion (spec section 1)."""

    preds: dict[str, Any]
    batch: dict[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """Dtypes and device in which a case is run.

    Attributes:
        dtype: dtype of the logits; targets are float32, or float64 with float64 logits.
        autocast: dtype of the autocast context, or ``None`` without one.
        device: a torch device string.
    """

    dtype: DtypeName = "float32"
    autocast: Literal["bfloat16", "float16"] | None = None
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Short name for tables, such as ``float32`` or ``float32+autocast(bfloat16)``."""
        return self.dtype + (f"+autocast({self.autocast})" if self.autocast else "")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The logits' dtype."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype


@dataclass(frozen=True)
class Box:
    """One ground-truth box: image index, class index, centre and size in pixels of the network's input."""

    image: int
    label: int
    cx: float
    cy: float
    w: float
    h: float


@dataclass(frozen=True)
class Prediction:
    """Recipe of the logits of a case; :mod:`oracle.cases.logits` describes the kinds.

    Attributes:
        kind: kind of the recipe.
        seed: seed of the pseudo-random part.
        spread: size of the pseudo-random part, in logits or cells, depending on the kind.
        inline: for kind ``"inline"`` only, the logits: base64 text of float32 bytes under ``boxes`` and ``scores``.
    """

    kind: PredictionKind = "random"
    seed: int = 0
    spread: float = 1.0
    inline: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Case:
    """One batch.

    Attributes:
        spec: the definition; its type says for which task.
        image_size: height and width in pixels.
        batch_size: number of images.
        boxes: ground truth in order of arrival.
        prediction: recipe of the predictions.
        workload: where the batch comes from.
        tags: what is special about it.
        extras: further columns of ground truth by name, with one entry per box, in pixels: what a task adds
            (:mod:`oracle.cases.tasks`); nested tuples of numbers.
        options: numbers of the batch that are no ground truth, by name: sizes of what a task predicts.
    """

    spec: LossSpec
    image_size: tuple[int, int]
    batch_size: int
    boxes: tuple[Box, ...] = ()
    prediction: Prediction = field(default_factory=Prediction)
    workload: str = "generated"
    tags: tuple[str, ...] = ()
    extras: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    options: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, column in self.extras.items():
            if len(column) != len(self.boxes):
                raise ValueError(f"extras[{name!r}] has {len(column)} entries for {len(self.boxes)} boxes; give one per box")
        finest = self.spec.strides[0]
        if self.image_size[0] % finest or self.image_size[1] % finest:
            raise ValueError(f"image_size {self.image_size} is not a multiple of the finest stride, {finest}; round both sides up")

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each level's grid, rounded up as by strided convolutions with padding."""
        height, width = self.image_size
        return tuple((-(-height // s), -(-width // s)) for s in self.spec.strides)

    @property
    def num_anchors(self) -> int:
        """Number of anchors A of all levels."""
        return sum(rows * columns for rows, columns in self.grids)

    @property
    def logit_shapes(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Shapes of the box logits (B, 4R, A) and the class logits (B, C, A)."""
        batch, anchors = self.batch_size, self.num_anchors
        return (batch, 4 * self.spec.reg_max, anchors), (batch, self.spec.num_classes, anchors)

    def to_json(self) -> str:
        """Returns the case as JSON, from which :meth:`from_json` makes an equal case."""
        record = dataclasses.asdict(self)
        # Floats even for boxes given in whole numbers, so that equal cases have equal digests.
        record["boxes"] = [[b.image, b.label, *map(float, (b.cx, b.cy, b.w, b.h))] for b in self.boxes]
        record["prediction"]["spread"] = float(self.prediction.spread)
        # Fields of other tasks are left out where they are empty, so that a detection case keeps its digest.
        for name in ("extras", "options"):
            if values := record.pop(name):
                record[name] = _nested(values, float, list)
        if self.spec.task != "detect":
            record["task"] = self.spec.task
        return json.dumps(record, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Case:
        """Reads a case from the JSON of :meth:`to_json`.

        Raises:
            ValueError: the text is not JSON, or a field is missing, unknown to this version, of another type or length, or holds a value
                from which no batch can be built; the message names the field.
        """
        from oracle.tools.parsing import parse_json  # needs msgspec, which a machine for measurements may lack

        try:
            kind = _spec_type(parse_json(text, _Task).task)
            parse_json(text, _schema(kind.task))
            record = json.loads(text)  # Not the parsed values: whole numbers stay whole, so that the digest stays the same.
            spec: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.pop("spec").items()}
            record |= {name: tuple(record[name]) for name in ("image_size", "tags") if name in record}
            record |= {name: _nested(record[name], float, tuple) for name in ("extras", "options") if name in record}
            record.pop("task", None)
            boxes = tuple(Box(i, c, *map(float, xywh)) for i, c, *xywh in record.pop("boxes", ()))
            case = cls(spec=kind(**spec), boxes=boxes, prediction=Prediction(**record.pop("prediction", {})), **record)
            _check_buildable(case)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"this is not a case of this version of the suite: {error}") from error
        return case

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the hash of the content without workload and tags: the case's name in files and reports."""
        content = dataclasses.replace(self, workload="", tags=()).to_json()
        return hashlib.sha256(content.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class _Task:
    """The one field of a case's JSON that says how to read the others."""

    task: str = "detect"


def _spec_type(task: str) -> type[LossSpec]:
    known: dict[str, type[LossSpec]] = {"detect": LossSpec} | {kind.task: kind for kind in LossSpec.__subclasses__()}
    if task not in known:
        raise ValueError(f"task is {task!r}; it must be one of {', '.join(map(repr, known))}")
    return known[task]


@functools.cache
def _schema(task: str) -> type:
    """Returns the type of the JSON that :meth:`Case.to_json` writes for a case of this task."""
    from oracle.tools.parsing import strict_type

    kind = _spec_type(task)
    row = tuple[int, int, float, float, float, float]
    types = {"spec": strict_type(kind), "prediction": strict_type(Prediction), "boxes": list[row]}
    further = {} if task == "detect" else {"task": (str, task)}
    return strict_type(Case, **types, extras=dict[str, list[Any]], options=dict[str, float], further=further)


def _nested(values: Any, number: Callable[[Any], Any], sequence: Callable[[Any], Any]) -> Any:
    """Returns nested mappings and sequences with other sequences and numbers."""
    if isinstance(values, Mapping):
        return {name: _nested(value, number, sequence) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return sequence(_nested(value, number, sequence) for value in values)
    return number(values)


def _check_buildable(case: Case) -> None:
    """Raises a ValueError if no batch can be built from the case."""
    images, (height, width) = case.batch_size, case.image_size
    if min(images, height, width) < 1:
        raise ValueError(f"batch_size is {images} and image_size {case.image_size}; each must be at least 1")
    numbers = images * case.num_anchors * (4 * case.spec.reg_max + case.spec.num_classes)
    if numbers > _MOST_LOGITS:
        raise ValueError(f"batch_size, image_size and spec make {numbers:,} logits; at most {_MOST_LOGITS:,} can be held")
    for index, box in enumerate(case.boxes):
        if not (0 <= box.image < images and 0 <= box.label < case.spec.num_classes):
            held = f"{images} images and {case.spec.num_classes} classes"
            raise ValueError(f"boxes[{index}] has image {box.image} and class {box.label}; the batch has {held}, counted from 0")
    if case.prediction.kind == "inline":
        inline_logits(case, {"boxes": case.logit_shapes[0], "scores": case.logit_shapes[1]})


def inline_logits(case: Case, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    """Returns the predictions that an inline case carries, by name, as float32.

    Raises:
        ValueError: the text is no base64, or the predictions have another shape than the case implies.
    """
    text = case.prediction.inline or {}
    arrays = {}
    for name, shape in shapes.items():
        array = np.frombuffer(base64.b64decode(text.get(name, "")), dtype="<f4")
        if array.size != math.prod(shape):
            raise ValueError(f"inline {name} hold {array.size} numbers; this case has {shape}, {math.prod(shape)} numbers")
        arrays[name] = array.reshape(shape).astype(np.float32)
    return arrays
