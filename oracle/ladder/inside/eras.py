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

from .stand_ins import AttributeRecorder

LAYOUTS = ("mapping", "maps")
DETECTION = "v8DetectionLoss"


class NotOfferedError(Exception):
    """The release has no such entry point, option or layout; the message names it."""


@dataclass(frozen=True)
class Era:
    """The modules in which some releases keep the loss (``module:class``) and its helpers (``package``).

    Losses of other tasks than detection are in the module ``loss`` of the package, unless ``losses`` says where, by their later names.
    """

    name: str
    loss: str
    package: str
    losses: Mapping[str, str] = field(default_factory=dict, hash=False)

    def find(self, module: str, name: str) -> Any:
        """Returns an attribute of a module of the release, such as ``find("tal", "make_anchors")``.

        Raises:
            NotOfferedError: there is no such attribute.
        """
        try:
            return getattr(importlib.import_module(f"{self.package}.{module}"), name)
        except (ModuleNotFoundError, AttributeError) as error:
            raise NotOfferedError(f"no {module}.{name}") from error

    def criterion(self, name: str = DETECTION) -> Any:
        """Returns the class of the whole loss; that of another task than detection by its name.

        Raises:
            NotOfferedError: there is no such class.
        """
        places = {DETECTION: self.loss, **self.losses}
        if name not in places:
            return self.find("loss", name)
        module, own = places[name].split(":")
        return getattr(importlib.import_module(module), own)


ERAS = (
    Era("utils", "ultralytics.utils.loss:v8DetectionLoss", "ultralytics.utils"),
    Era("yolo.utils", "ultralytics.yolo.utils.loss:v8DetectionLoss", "ultralytics.yolo.utils"),
    Era(
        "yolo.v8",
        "ultralytics.yolo.v8.detect.train:Loss",
        "ultralytics.yolo.utils",
        {"v8SegmentationLoss": "ultralytics.yolo.v8.segment.train:SegLoss", "v8PoseLoss": "ultralytics.yolo.v8.pose.train:PoseLoss"},
    ),
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


def make_criterion(kind: Any, spec: Mapping[str, Any], model: AttributeRecorder) -> Any:
    """Returns a criterion of a class of the release; ``topk`` and ``topk2`` are passed only where they differ from its defaults.

    The oldest segmentation losses take the encoding of masks as an argument; later ones read it from the model.

    Raises:
        NotOfferedError: the constructor has no such option.
    """
    wanted = {"tal_topk": (spec["topk"], 10), "tal_topk2": (spec["topk2"], None)}
    given = {name: value for name, (value, default) in wanted.items() if value != default}
    offered = inspect.signature(kind).parameters
    missing = [name for name in given if name not in offered]
    if missing:
        raise NotOfferedError(f"no option {', '.join(missing)}")
    return kind(model, **given, **({"overlap": spec["args"]["overlap_mask"]} if "overlap" in offered else {}))


def arrange(layout: str, predictions: Mapping[str, Tensor], grids: list[tuple[int, int]]) -> Any:
    """Returns predictions in a release's layout: one mapping, or a map (B, 4R + C, H, W) per level, with the task's own beside them.

    Raises:
        NotOfferedError: the layout has no place for one of them.
    """
    both = torch.cat([predictions["boxes"], predictions["scores"]], 1)
    levels = both.split([rows * columns for rows, columns in grids], dim=2)
    maps = [level.reshape(*both.shape[:2], *grid) for level, grid in zip(levels, grids, strict=True)]
    if layout == "mapping":
        return {**paired(predictions), "feats": [level.detach() for level in maps]}
    if "semantic" in predictions:
        raise NotOfferedError("no semantic logits")
    further = [value for name, value in predictions.items() if name not in ("boxes", "scores")]
    return (maps, *further) if further else maps


def paired(predictions: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns predictions by name, the prototypes with the semantic logits, where there are some (segmentation spec section 1)."""
    found: dict[str, Any] = dict(predictions)
    if found.pop("semantic", None) is not None:
        found["proto"] = (predictions["proto"], predictions["semantic"])
    return found


def item_vector(items: Any) -> Tensor:
    """Returns logged items as a tensor (T,), from a tensor or a mapping in the order of the terms."""
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
            criterion(
                arrange(layout, dict(zip(("boxes", "scores"), logits, strict=True)), grids),
                {name: value.to(logits[0].dtype) for name, value in batch.items()},
            )
        except Exception as error:  # any exception means that the layout is not accepted
            met.append(f"{layout}: {type(error).__name__}")
        else:
            return layout
    raise NotOfferedError(f"no known layout of predictions is accepted ({'; '.join(met)})")
