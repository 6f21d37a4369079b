"""What a model holds while the twin is its criterion: a maker in place of ``init_criterion``, and the criterion that it makes.

A model's ``loss`` calls ``criterion``, and makes it with ``init_criterion`` when there is none. Both are replaced on the instance, and
neither ends up in a checkpoint: pickled, the criterion is ``None``, as in the reference's own checkpoints, and ``init_criterion`` is the
model's own method.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from twinloss.end_to_end import EndToEndLoss, Generation
from twinloss.loss import DetectionLoss
from twinloss.spec import LossSpec

Loss = DetectionLoss | EndToEndLoss
Listener = Callable[[Loss, Tensor], None]

SERVED_HEADS = ("Detect", "v10Detect")
REFUSED_HEADS = ("Segment", "Pose", "OBB")  # they derive from Detect, and add terms of their own
REPLACED = "v8DetectionLoss"
_GENERATIONS: Mapping[str, Generation] = {"E2EDetectLoss": 1, "E2ELoss": 2}
_ABSENT = object()


class Criterion:
    """The twin as a model calls it; a model that validates passes (answer, predictions).

    Args:
        loss: the twin.
        heard: told of every call.
    """

    def __init__(self, loss: Loss, heard: Listener) -> None:
        self.loss: Any = loss
        self.heard = heard

    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (3,), times the number of images, and the logged items."""
        predictions = preds[1] if isinstance(preds, tuple) else preds
        # Inside torch.compile the loss would fall into many small graphs, since what it does next depends on its data.
        evaluate = torch.compiler.disable(self._evaluate) if torch.compiler.is_compiling() else self._evaluate
        return evaluate(predictions, batch)

    def _evaluate(self, predictions: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        result: tuple[Tensor, dict[str, Tensor]] = self.loss(predictions, batch)
        self.heard(self.loss, result[0])
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Criterion:
        return type(self)(copy.copy(self.loss), self.heard)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()


class ScheduledCriterion(Criterion):
    """The twin of an end-to-end head, with the two openings through which a trainer moves its schedule."""

    @property
    def updates(self) -> int:
        """Epochs that have ended; set when training resumes."""
        return int(self.loss.updates)

    @updates.setter
    def updates(self, value: int) -> None:
        self.loss.updates = value

    def update(self) -> None:
        """Say that an epoch has ended."""
        self.loss.update()


class Maker:
    """Stands in for a model's ``init_criterion``, and remembers what was there.

    Args:
        model: a detection model.
        options: of the twin.
        heard: told of every call of the criteria that it makes.

    Raises:
        TypeError: the model's head is one that the twin does not serve; the message names it.
    """

    def __init__(self, model: Any, options: Mapping[str, Any], heard: Listener) -> None:
        check_head(model)
        self.model, self.options, self.heard = model, options, heard
        self.own = model.init_criterion
        self.replaced = vars(model).get("criterion", _ABSENT)
        model.init_criterion = self
        model.criterion = None

    def __call__(self) -> Criterion:
        """A criterion for the model as it is now: gains, strides, class weights and all.

        Raises:
            TypeError: the model's own criterion is not the one that the twin stands for; the message names it.
        """
        own = self.own()
        generation = _GENERATIONS.get(type(own).__name__)
        plain = own if generation is None else own.one2many
        if type(plain).__name__ != REPLACED:
            raise TypeError(
                f"the model's own criterion is a {type(plain).__name__}; the twin computes {REPLACED} and would change the training"
            )
        spec = spec_of(self.model, plain.assigner)
        if generation is None:
            return Criterion(DetectionLoss(spec, **self.options), self.heard)
        loss = EndToEndLoss(spec, generation=generation, epochs=self.model.args.epochs, **self.options)
        check_candidates(own.one2one.assigner, loss.one2one.spec)
        loss.updates = getattr(self.replaced, "updates", 0)
        return ScheduledCriterion(loss, self.heard)

    def give_back(self) -> None:
        """Restore the model; an end-to-end model's own criterion continues at the epoch that the twin had reached."""
        twin = self.model.criterion
        del self.model.init_criterion, self.model.criterion
        if self.replaced is not _ABSENT:
            self.model.criterion = self.replaced
        if isinstance(twin, ScheduledCriterion) and twin.updates:
            own = self.own() if self.replaced in (_ABSENT, None) else self.replaced
            self.model.criterion, own.updates = own, twin.updates - 1
            own.update()

    def __deepcopy__(self, memo: dict[int, Any]) -> Maker:
        """For a copy of the model, such as its moving average."""
        other = object.__new__(type(self))  # copy.copy would go the way of pickling, and find this one
        vars(other).update(vars(self))
        other.model, other.own = memo.get(id(self.model), self.model), copy.deepcopy(self.own, memo)
        other.replaced = _ABSENT if self.replaced is _ABSENT else None
        return other

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, str]]:
        return getattr, (self.model, "init_criterion")


def maker_of(model: Any) -> Maker | None:
    """The maker that a model holds, if it does."""
    found = vars(model).get("init_criterion") if model is not None else None
    return found if isinstance(found, Maker) else None


def find_model(holder: Any) -> Any:
    """The detection model in a trainer, a ``YOLO(...)``, a compiled or a distributed model; ``None`` where there is none yet."""
    while holder is not None and not hasattr(type(holder), "init_criterion"):
        parts = (getattr(holder, name, None) for name in ("_orig_mod", "module", "model"))
        holder = next((part for part in parts if part is not None), None)
    return holder


def check_head(model: Any) -> None:
    """Raise ``TypeError`` for a head that the twin does not serve."""
    names = [base.__name__ for base in type(model.model[-1]).__mro__]
    if any(name.startswith(REFUSED_HEADS) for name in names) or not set(names) & set(SERVED_HEADS):
        raise TypeError(f"the twin does not serve the head {names[0]} yet; it serves {' and '.join(SERVED_HEADS)}")


def check_candidates(assigner: Any, spec: LossSpec) -> None:
    """Raise ``TypeError`` if one2one keeps other numbers of candidates than the definition says."""
    theirs, ours = (assigner.topk, assigner.topk2), (spec.topk, spec.topk2 or spec.topk)
    if theirs != ours:
        raise TypeError(
            f"the model's own one2one assigner has (topk, topk2) = {theirs} where the twin has {ours}; the training would change"
        )


def spec_of(model: Any, assigner: Any) -> LossSpec:
    """The definition that a model's own criterion follows: the head's numbers, the trainer's gains, the assigner's constants."""
    head, args, weights = model.model[-1], model.args, getattr(model, "class_weights", None)
    return LossSpec(
        num_classes=int(head.nc),
        reg_max=int(head.reg_max),
        strides=tuple(int(stride) for stride in head.stride.tolist()),
        gains=(args.box, args.cls, args.dfl),
        topk=assigner.topk,
        topk2=assigner.topk2,
        alpha=assigner.alpha,
        beta=assigner.beta,
        class_weights=None if weights is None else tuple(torch.as_tensor(weights).flatten().tolist()),
    )
