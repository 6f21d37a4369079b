"""The twin and the reference on the same predictions at every step of a training, so that differences do not accumulate."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oracle.comparison.registry import TWINS, shipped
from oracle.contract.run import leaves_of
from properties.training.captured_batches import case_of, save
from properties.training.one_ulp_noise import mapped, nudge_all
from twinloss import Assignment, LossSpec
from twinloss.release_definitions import release_of
from twinloss.trainer.own_criterion import OwnCriterion

TARGETS = ("batch_idx", "cls", "bboxes", "keypoints", "sem_masks")


@dataclass(frozen=True)
class Answer:
    """A criterion's answer to a batch: loss (T,), gradients of all predictions in one vector, (image, anchor, row) of held anchors."""

    loss: Tensor
    gradient: Tensor
    holders: frozenset[tuple[int, int, int]]


class ComparingCriterion:
    """A model's own criterion, which also compares the twin with it at every training step.

    Args:
        model: a model in training whose own criterion is not replaced.
        steps: steps of the whole training; a batch is captured at step 0, after an eighth, in the middle, and at the end.
        seed: seed of the nudges.
        folder: folder for captured batches.

    Attributes:
        last: distances from the reference in the last step, of the twin, of the reference on nudged logits, and of the reference in double
            precision: relative distance of the loss and of the gradient, and the number of anchors with another holder.
    """

    def __init__(self, model: Any, steps: int, seed: int, folder: Path) -> None:
        self.criterion = model.init_criterion()
        own = OwnCriterion(self.criterion, release_of(model))
        self.specs = own.specs(own.numbers())
        self.flow: Any = getattr(model.model[-1], "flow_model", None)
        self.references: dict[str, Any] = {name: _reference(spec, self.flow) for name, spec in self.specs.items()}
        self.twins: dict[str, Any] = {name: _twin(spec, self.flow) for name, spec in self.specs.items()}
        self.generator = torch.Generator().manual_seed(seed)
        self.kept = {0, steps // 8, steps // 2, steps - 1}
        self.folder, self.step = folder, 0
        self.last: dict[str, float] = {}

    def __call__(self, preds: Any, batch: Any) -> Any:
        """Returns the answer of the model's own criterion."""
        if torch.is_grad_enabled():
            self.last = {}
            for name, spec in self.specs.items():
                part = preds[name] if name else preds
                self.last |= self.compare(name, part, batch)
                if self.step in self.kept:
                    save(case_of(part, batch, spec, f"step {self.step}", *filter(None, [name])), self.folder)
            self.step += 1
        return self.criterion(preds, batch)

    def compare(self, name: str, preds: Mapping[str, Any], batch: Mapping[str, Tensor]) -> dict[str, float]:
        """Returns the distances of :attr:`last` for one set of predictions."""
        reference, double = self.references[name], self._in_double(name)
        expected = answer_of(reference, preds, batch, reference.last_assignment)
        contenders = {
            "twin": answer_of(self.twins[name], preds, batch, lambda given: self.twins[name].assign(preds, given)),
            "nudged": answer_of(reference, nudge_all(preds, self.generator), batch, reference.last_assignment),
            "double": answer_of(double, mapped(preds, Tensor.double), _double(batch), double.last_assignment),
        }
        return {
            "/".join(filter(None, ["beside", name, contender, quantity])): distance
            for contender, found in contenders.items()
            for quantity, distance in distances(found, expected).items()
        }

    def _in_double(self, name: str) -> Any:
        """Returns the reference for predictions in double precision, with a flow of the present weights in that precision."""
        spec = self.specs[name]
        return _reference(spec, copy.deepcopy(self.flow).double()) if _density(spec, self.flow) else self.references[name]

    def __getattr__(self, name: str) -> Any:
        if name == "criterion":  # The attribute is missing while a copy is being made.
            raise AttributeError(name)
        return getattr(self.criterion, name)


def answer_of(criterion: Any, preds: Mapping[str, Any], batch: Mapping[str, Tensor], assigned: Any) -> Answer:
    """Returns a criterion's answer to copies of the predictions."""
    own = mapped(preds, lambda part: part.detach().clone().requires_grad_())
    leaves = list(leaves_of(own).values())
    loss, _ = criterion(own, batch)
    gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True, materialize_grads=True)
    held: Assignment = assigned(batch)
    holders = frozenset(zip(held.image.tolist(), held.anchor.tolist(), held.box.tolist(), strict=True))
    return Answer(loss.detach(), torch.cat([gradient.flatten() for gradient in gradients]), holders)


def distances(found: Answer, expected: Answer) -> dict[str, float]:
    """Returns relative distances of loss and gradient, and the number of anchors whose holder differs."""
    return {
        "loss": float((found.loss - expected.loss).norm() / expected.loss.norm()),
        "gradient": float((found.gradient - expected.gradient).norm() / expected.gradient.norm()),
        "anchors": float(len({(image, anchor) for image, anchor, _ in found.holders ^ expected.holders})),
    }


def _double(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**batch, **{name: batch[name].double() for name in TARGETS if name in batch}}


def _reference(spec: LossSpec, flow: Any) -> Any:
    return shipped(spec.task)["reference"].factory(spec, **_density(spec, flow))


def _twin(spec: LossSpec, flow: Any) -> Any:
    return TWINS[spec.task](spec, ties="reference", **_density(spec, flow))


def _density(spec: LossSpec, flow: Any) -> dict[str, Any]:
    """Returns the flow as an option of a criterion, if its definition has a likelihood term."""
    return {"flow": flow} if getattr(spec, "flow", False) else {}
