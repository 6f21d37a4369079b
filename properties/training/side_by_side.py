"""The twin beside the reference throughout a training: at every step both on the same predictions, so that nothing can drift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from properties.training.captured_batches import case_of, save
from properties.training.one_ulp_noise import LOGITS, nudge_all
from twinloss import Assignment, DetectionLoss
from twinloss.release_definitions import release_of
from twinloss.trainer.own_criterion import OwnCriterion

TARGETS = ("batch_idx", "cls", "bboxes")


@dataclass(frozen=True)
class Answer:
    """What a criterion says about a batch: loss (3,), gradients of all logits in one vector, and who holds which anchor."""

    loss: Tensor
    gradient: Tensor
    holders: frozenset[tuple[int, int, int]]


class Shadow:
    """A model's own criterion, which compares the twin with it on the way.

    Args:
        model: in training, with its own criterion not yet replaced.
        steps: of the whole training; live batches are kept from its beginning, an eighth into it, its middle and its end.
        seed: of the nudges.
        folder: for live batches.

    Attributes:
        last: how far the twin, the reference on logits nudged by one unit in the last place, and the reference in double precision were
            from the reference in the last step: relative distance of the loss and of the gradient of the logits, and the number of anchors
            with another holder.
    """

    def __init__(self, model: Any, steps: int, seed: int, folder: Path) -> None:
        from oracle.reference.criterion import ReferenceCriterion

        self.own = model.init_criterion()
        own = OwnCriterion(self.own, release_of(model))
        self.specs = own.specs(own.numbers())
        self.references = {name: ReferenceCriterion(spec) for name, spec in self.specs.items()}
        self.twins = {name: DetectionLoss(spec, ties="reference") for name, spec in self.specs.items()}
        self.generator = torch.Generator().manual_seed(seed)
        self.kept = {0, steps // 8, steps // 2, steps - 1}
        self.folder, self.step = folder, 0
        self.last: dict[str, float] = {}

    def __call__(self, preds: Any, batch: Any) -> Any:
        """The model's own answer."""
        if torch.is_grad_enabled():
            self.last = {}
            for name, spec in self.specs.items():
                part = preds[name] if name else preds
                self.last |= self.compare(name, part, batch)
                if self.step in self.kept:
                    save(case_of(part, batch, spec, f"step {self.step}", *filter(None, [name])), self.folder)
            self.step += 1
        return self.own(preds, batch)

    def compare(self, name: str, preds: Mapping[str, Any], batch: Mapping[str, Tensor]) -> dict[str, float]:
        """The distances of :attr:`last`, for one set of predictions."""
        reference = self.references[name]
        expected = answer(reference, preds, batch, reference.last_assignment)
        contenders = {
            "twin": answer(self.twins[name], preds, batch, lambda given: self.twins[name].assign(preds, given)),
            "nudged": answer(reference, nudge_all(preds, self.generator), batch, reference.last_assignment),
            "double": answer(reference, _double(preds, LOGITS), _double(batch, TARGETS), reference.last_assignment),
        }
        return {
            "/".join(filter(None, ["beside", name, who, quantity])): distance
            for who, said in contenders.items()
            for quantity, distance in distances(said, expected).items()
        }

    def __getattr__(self, name: str) -> Any:
        if name == "own":  # not there yet, as in a copy that is being made
            raise AttributeError(name)
        return getattr(self.own, name)


def answer(criterion: Any, preds: Mapping[str, Any], batch: Mapping[str, Tensor], assigned: Any) -> Answer:
    """What a criterion says about predictions, which are not touched."""
    leaves = {name: preds[name].detach().clone().requires_grad_() for name in LOGITS}
    loss, _ = criterion({**preds, **leaves}, batch)
    gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))
    held: Assignment = assigned(batch)
    holders = frozenset(zip(held.image.tolist(), held.anchor.tolist(), held.box.tolist(), strict=True))
    return Answer(loss.detach(), torch.cat([gradient.flatten() for gradient in gradients]), holders)


def distances(said: Answer, expected: Answer) -> dict[str, float]:
    """Relative distances of loss and gradient, and the number of anchors whose holder differs."""
    return {
        "loss": float((said.loss - expected.loss).norm() / expected.loss.norm()),
        "gradient": float((said.gradient - expected.gradient).norm() / expected.gradient.norm()),
        "anchors": float(len({(image, anchor) for image, anchor, _ in said.holders ^ expected.holders})),
    }


def _double(given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {**given, **{name: given[name].double() for name in names}}
