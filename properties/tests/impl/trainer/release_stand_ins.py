"""Stand-ins for models of each generation of the reference: what their criteria are called and made of, and how they return."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from twinloss import DetectionLoss, LossSpec
from twinloss.release_definitions import switches

PACKAGE = "stand_in"
CLASSES, BINS, SIDE, IMAGES = 3, 16, 64, 2


@dataclass(frozen=True)
class Generation:
    """How the models of some releases behave.

    Attributes:
        release: whose version the package has.
        maps: whether predictions are a list of level maps, else a mapping.
        scalar: whether the loss is a scalar.
        named: whether logged items are a mapping.
        definition: of the release that is really computed, where it is not the same.
    """

    release: str
    maps: bool = False
    scalar: bool = False
    named: bool = True
    definition: str = ""


GENERATIONS = (
    Generation("8.1.0", maps=True, scalar=True, named=False),
    Generation("8.3.253", maps=True, named=False),
    Generation("8.4.60", named=False),
    Generation("8.4.127"),
    Generation("8.4.190"),
    Generation("9.9.9"),
)


class TaskAlignedAssigner(torch.nn.Module):
    """Answers as the reference's does."""

    def __init__(self, loss: DetectionLoss) -> None:
        super().__init__()
        self.loss = loss
        self.topk, self.alpha, self.beta, self.eps = 10, 0.5, 6.0, 1e-9

    def forward(self, preds: Any, batch: Any) -> tuple[Tensor, ...]:
        """Labels, boxes, soft targets, foreground and index within the image."""
        held = self.loss.assign(preds, batch)
        columns = sum((SIDE // stride) ** 2 for stride in (8, 16, 32))
        images = len(preds[0] if isinstance(preds, list) else preds["boxes"])
        scores, index = torch.zeros(images, columns, CLASSES), torch.zeros(images, columns, dtype=torch.long)
        labels, of_image = batch["cls"].reshape(-1).long(), batch["batch_idx"].reshape(-1)
        scores[held.image, held.anchor, labels[held.box]] = held.weight
        index[held.image, held.anchor] = torch.tensor([int((of_image[:row] == of_image[row]).sum()) for row in held.box.tolist()]).long()
        return index, index, scores, scores.sum(-1) > 0, index


class BboxLoss(torch.nn.Module):
    """A part by name alone."""


class v8DetectionLoss:  # noqa: N801 - the reference's name
    """A criterion that computes a release's definition, with the numbers that it reads as the reference does."""

    def __init__(self, model: Any, how: Generation) -> None:
        self.how, self.hyp = how, model.args
        self.nc, self.reg_max, self.stride = CLASSES, BINS, torch.tensor([8.0, 16.0, 32.0])
        self.bce = torch.nn.BCEWithLogitsLoss(reduction="none")
        spec = LossSpec(num_classes=CLASSES, **switches(how.definition or how.release))
        self.twin = DetectionLoss(spec, ties="reference", backend="torch")
        self.assigner, self.bbox_loss = TaskAlignedAssigner(self.twin), BboxLoss()
        self.calls = 0

    def __call__(self, preds: Any, batch: Any) -> tuple[Tensor, Any]:
        """Loss and items, the way that the generation returns them."""
        self.calls += 1
        preds = preds[1] if isinstance(preds, tuple) else preds
        self.assigner(preds, batch)
        loss, items = self.twin(preds, batch)
        gains = torch.tensor([self.hyp.box, self.hyp.cls, self.hyp.dfl]) / torch.tensor(self.twin.spec.gains)
        logged = {name: item * gain for (name, item), gain in zip(items.items(), gains, strict=True)}
        loss = loss * gains
        return loss.sum() if self.how.scalar else loss, logged if self.how.named else torch.stack(list(logged.values()))


class Detect(torch.nn.Module):
    """A head's name and numbers, and logits that do not depend on the image."""

    def __init__(self, how: Generation) -> None:
        super().__init__()
        self.how, self.nc, self.reg_max, self.stride = how, CLASSES, BINS, torch.tensor([8.0, 16.0, 32.0])
        columns = sum((SIDE // stride) ** 2 for stride in (8, 16, 32))
        logits = torch.randn(IMAGES, 4 * BINS + CLASSES, columns, generator=torch.Generator().manual_seed(1))
        logits[:, 1 : 4 * BINS : BINS] += 4  # sides about a cell away, so that small boxes are found too
        self.logits = torch.nn.Parameter(logits)

    def forward(self) -> Any:
        """Predictions in the generation's layout."""
        sides = [SIDE // stride for stride in (8, 16, 32)]
        levels = self.logits.split([side**2 for side in sides], dim=2)
        maps = [level.unflatten(2, (side, side)) for level, side in zip(levels, sides, strict=True)]
        boxes, scores = self.logits.split([4 * BINS, CLASSES], dim=1)
        return maps if self.how.maps else {"boxes": boxes, "scores": scores, "feats": [one.detach() for one in maps]}


class DetectionModel(torch.nn.Module):
    """A model that asks its criterion as the reference's do."""

    def __init__(self, how: Generation) -> None:
        super().__init__()
        self.how, self.args = how, SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, epochs=3)
        self.model = torch.nn.Sequential(Detect(how))

    def loss(self, batch: Any) -> Any:
        """Loss and items of a batch; a validating model passes (answer, predictions)."""
        if getattr(self, "criterion", None) is None:
            self.criterion = self.init_criterion()
        preds = self.model[0]()
        return self.criterion(preds if self.training else (torch.zeros(1), preds), batch)

    def init_criterion(self) -> Any:
        """Its own criterion."""
        return v8DetectionLoss(self, self.how)


def stand_in(how: Generation, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model of a generation, whose package is at its release."""
    package = ModuleType(PACKAGE)
    package.__version__ = how.release  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, PACKAGE, package)
    for kind in (TaskAlignedAssigner, BboxLoss, v8DetectionLoss, Detect, DetectionModel):
        monkeypatch.setattr(kind, "__module__", f"{PACKAGE}.nn")
    return DetectionModel(how)


def some_batch() -> dict[str, Tensor]:
    """Large boxes, two of them nearly the same, and one of 12 px, which definitions take for short or not."""
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.3, 0.6, 0.19, 0.19], [0.6, 0.4, 0.5, 0.5], [0.62, 0.42, 0.45, 0.5]])
    return {"batch_idx": torch.tensor([0.0, 0.0, 1.0, 1.0]), "cls": torch.tensor([[0.0], [2.0], [1.0], [0.0]]), "bboxes": boxes}
