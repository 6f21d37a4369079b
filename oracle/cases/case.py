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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinloss import LossSpec

PredictionKind = Literal["random", "untrained", "near", "exact", "saturated", "early", "middle", "late", "zeros", "inline"]
DtypeName = Literal["float64", "float32", "float16", "bfloat16"]

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
    """One batch: definition, image size in pixels (height, width), images, boxes in order of arrival, and predictions."""

    spec: LossSpec
    image_size: tuple[int, int]
    batch_size: int
    boxes: tuple[Box, ...] = ()
    prediction: Prediction = field(default_factory=Prediction)
    workload: str = "generated"
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
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
            parse_json(text, _schema())
            record = json.loads(text)  # Not the parsed values: whole numbers stay whole, so that the digest stays the same.
            spec: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.pop("spec").items()}
            record |= {name: tuple(record[name]) for name in ("image_size", "tags") if name in record}
            boxes = tuple(Box(i, c, *map(float, xywh)) for i, c, *xywh in record.pop("boxes", ()))
            case = cls(spec=LossSpec(**spec), boxes=boxes, prediction=Prediction(**record.pop("prediction", {})), **record)
            _check_buildable(case)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"this is not a case of this version of the suite: {error}") from error
        return case

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the hash of the content without workload and tags: the case's name in files and reports."""
        content = dataclasses.replace(self, workload="", tags=()).to_json()
        return hashlib.sha256(content.encode()).hexdigest()[:12]


@functools.cache
def _schema() -> type:
    """Returns the type of the JSON that :meth:`Case.to_json` writes."""
    from oracle.tools.parsing import strict_type

    row = tuple[int, int, float, float, float, float]
    return strict_type(Case, spec=strict_type(LossSpec), prediction=strict_type(Prediction), boxes=list[row])


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
        inline_logits(case)


def inline_logits(case: Case) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the logits that an inline case carries, as float32.

    Raises:
        ValueError: the text is no base64, or the logits have another shape than the case implies.
    """
    text = case.prediction.inline or {}
    arrays = []
    for name, shape in zip(("boxes", "scores"), case.logit_shapes, strict=True):
        array = np.frombuffer(base64.b64decode(text.get(name, "")), dtype="<f4")
        if array.size != math.prod(shape):
            raise ValueError(f"inline {name} hold {array.size} numbers; this case has {shape}, {math.prod(shape)} numbers")
        arrays.append(array.reshape(shape).astype(np.float32))
    return arrays[0], arrays[1]
