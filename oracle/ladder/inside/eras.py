"""The API of the reference by era: where the loss is, which predictions it accepts, what it returns; found by calling releases.

============== ================================================== ==================== =========================
era            where the loss is found                            predictions          result
============== ================================================== ==================== =========================
``yolo.v8``    ``ultralytics.yolo.v8.detect.train:Loss``          list of level maps   scalar, (3,) items
``yolo.utils`` ``ultralytics.yolo.utils.loss:v8DetectionLoss``    list of level maps   scalar, (3,) items
``utils``      ``ultralytics.utils.loss:v8DetectionLoss``         list, then mapping   scalar, then (3,); items (3,), then mapping
============== ================================================== ==================== =========================

Within an era the layout of predictions is found by trying, so that a release between two known ones needs no entry. This file runs in the
process of a release: it imports numpy, torch and the release only.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

LAYOUTS = ("mapping", "maps")


class NotOfferedError(Exception):
    """The release has no such entry point, option or layout; the message names it."""


@dataclass(frozen=True)
class Era:
    """The modules in which some releases keep the loss (``module:class``) and its helpers (``package``)."""

    name: str
    loss: str
    package: str

    def find(self, module: str, name: str) -> Any:
        """Returns an attribute of a module of the release, such as ``find("tal", "make_anchors")``.

        Raises:
            NotOfferedError: there is no such attribute.
        """
        try:
            return getattr(importlib.import_module(f"{self.package}.{module}"), name)
        except (ModuleNotFoundError, AttributeError) as error:
            raise NotOfferedError(f"no {module}.{name}") from error

    def criterion(self) -> Any:
        """Returns the class of the whole loss."""
        module, name = self.loss.split(":")
        return getattr(importlib.import_module(module), name)


ERAS = (
    Era("utils", "ultralytics.utils.loss:v8DetectionLoss", "ultralytics.utils"),
    Era("yolo.utils", "ultralytics.yolo.utils.loss:v8DetectionLoss", "ultralytics.yolo.utils"),
    Era("yolo.v8", "ultralytics.yolo.v8.detect.train:Loss", "ultralytics.yolo.utils"),
)


def find_era() -> Era:
    """Returns the era of the release on the path.

    Raises:
        NotOfferedError: the loss is in none of the known modules.
    """
    era = next((era for era in ERAS if has_loss(era)), None)
    if era is None:
        raise NotOfferedError(f"the loss is in none of {', '.join(era.loss for era in ERAS)}")
    return era


def has_loss(era: Era) -> bool:
    """Whether the release on the path has its loss in this era's module."""
    try:
        era.criterion()
    except AttributeError:
        return False
    except ModuleNotFoundError as error:
        if str(error.name).split(".", maxsplit=1)[0] != "ultralytics":
            raise  # a missing dependency, not a missing module of the release
        return False
    return True


@dataclass
class AttributeRecorder:
    """An object with given attributes that records the names of all attributes that are read, including missing ones."""

    name_: str
    given_: Mapping[str, Any]
    read_: set[str]

    def __getattr__(self, attribute: str) -> Any:
        self.read_.add(f"{self.name_}.{attribute}")
        if attribute in self.given_:
            return self.given_[attribute]
        raise AttributeError(f"the stand-in for {self.name_} has no {attribute!r}")


@dataclass
class Model:
    """Replaces the reference's model: it has the attributes that a criterion reads of one, and no others."""

    spec: Mapping[str, Any]
    dtype: torch.dtype
    epochs: int = 10
    attributes_read: set[str] = field(default_factory=set)

    def build(self) -> AttributeRecorder:
        """Returns the object to pass to a criterion's constructor."""
        spec = self.spec
        parameter = torch.nn.Parameter(torch.zeros(1, dtype=self.dtype))
        box, cls, dfl = spec["gains"]
        head = {
            "stride": torch.tensor(spec["strides"], dtype=self.dtype),
            "nc": spec["num_classes"],
            "reg_max": spec["reg_max"],
            "no": spec["num_classes"] + 4 * spec["reg_max"],
        }
        args = {"box": box, "cls": cls, "dfl": dfl, "epochs": self.epochs}
        given: dict[str, Any] = {
            "parameters": lambda: iter([parameter]),
            "model": [AttributeRecorder("model[-1]", head, self.attributes_read)],
            "args": AttributeRecorder("model.args", args, self.attributes_read),
        }
        if spec["class_weights"] is not None:
            given["class_weights"] = torch.tensor(spec["class_weights"], dtype=self.dtype)
        return AttributeRecorder("model", given, self.attributes_read)


def make_criterion(kind: Any, spec: Mapping[str, Any], model: AttributeRecorder) -> Any:
    """Returns a criterion of a class of the release; ``topk`` and ``topk2`` are passed only where they differ from its defaults.

    Raises:
        NotOfferedError: the constructor has no such option.
    """
    wanted = {"tal_topk": (spec["topk"], 10), "tal_topk2": (spec["topk2"], None)}
    given = {name: value for name, (value, default) in wanted.items() if value != default}
    missing = [name for name in given if name not in inspect.signature(kind).parameters]
    if missing:
        raise NotOfferedError(f"no option {', '.join(missing)}")
    return kind(model, **given)


def arrange(layout: str, boxes: Tensor, scores: Tensor, grids: list[tuple[int, int]]) -> Any:
    """Returns logits (B, 4R, A) and (B, C, A) in a release's layout: one mapping, or a map (B, 4R + C, H, W) per level."""
    both = torch.cat([boxes, scores], 1)
    levels = both.split([rows * columns for rows, columns in grids], dim=2)
    maps = [level.reshape(*both.shape[:2], *grid) for level, grid in zip(levels, grids, strict=True)]
    if layout == "maps":
        return maps
    return {"boxes": boxes, "scores": scores, "feats": [level.detach() for level in maps]}


def item_vector(items: Any) -> Tensor:
    """Returns logged items as a (3,) tensor, from a tensor or a mapping in the order box, classification, distribution."""
    values = list(items.values()) if isinstance(items, Mapping) else items
    return torch.stack([torch.as_tensor(value).detach().reshape(()) for value in values])


def accepted_layout(criterion: Any, spec: Mapping[str, Any]) -> str:
    """Returns the layout that a criterion accepts, found by calling it with one image and one box.

    Raises:
        NotOfferedError: it accepts no known layout; the message names the exception of each attempt.
    """
    strides, bins, classes = spec["strides"], spec["reg_max"], spec["num_classes"]
    grids = [(4 * strides[-1] // stride,) * 2 for stride in strides]
    columns = sum(rows * width for rows, width in grids)
    batch = {"batch_idx": torch.zeros(1), "cls": torch.zeros(1, 1), "bboxes": torch.full((1, 4), 0.5)}
    met = []
    for layout in LAYOUTS:
        logits = torch.zeros(1, 4 * bins, columns), torch.zeros(1, classes, columns)
        try:
            criterion(arrange(layout, *logits, grids), {name: value.to(logits[0].dtype) for name, value in batch.items()})
        except Exception as error:  # any exception means that the layout is not accepted
            met.append(f"{layout}: {type(error).__name__}")
        else:
            return layout
    raise NotOfferedError(f"no known layout of predictions is accepted ({'; '.join(met)})")
