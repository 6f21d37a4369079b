"""What a model holds while the twin is its criterion: a maker in place of ``init_criterion``, and the criterion that it makes.

A model's ``loss`` calls ``criterion``, and makes it with ``init_criterion`` when there is none. Both are replaced on the instance, and
neither ends up in a checkpoint: pickled, the criterion is ``None``, as in the reference's own checkpoints (for the models of older
releases, which would call it, the model's own), and ``init_criterion`` is the model's own method. The model's own
criterion is kept behind the twin: its numbers are the twin's, its attributes can be read and set through the twin, and the twin is verified
against it (:mod:`twinloss.trainer.verification`).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from twinloss.end_to_end import EndToEndLoss
from twinloss.loss import LOSSES, TaskLoss
from twinloss.operators.definition import numbers_of
from twinloss.release_definitions import number, release_of
from twinloss.trainer import traced
from twinloss.trainer.criterion_kinds import flow_of
from twinloss.trainer.own_criterion import Numbers, OwnCriterion
from twinloss.trainer.return_format import ReturnFormat, learn_format
from twinloss.trainer.verification import Finding, Loss, OwnCriterionError, twins_of, verify

FIRST_WITH_CRITERION = "8.0.120"  # whose models make their own, of those that were tried
FIRST_WITHOUT_CRITERION = "8.3.0"  # whose models take a criterion that is None for one to be made, of those that were tried
SERVED_HEADS = ("Detect", "v10Detect", "Segment", "OBB", "Pose")  # and those that derive from them, with the criteria of these
_ABSENT = object()

# Handlers of the trainer print it among the trainer's own lines, and in one process of several.
_log = logging.getLogger("ultralytics.twinloss")


@dataclass(frozen=True)
class Settings:
    """How a hook makes its criteria.

    Attributes:
        heard: told of every call: the criterion, its loss (T,), or ``None`` where that is inside of a traced graph, and whether it trains.
        verify: whether the twin is verified against the model's own criterion.
        release: the release whose definition to take, or ``None`` for that of the model.
        options: of the task's loss.
    """

    heard: Callable[[Criterion, Tensor | None, bool], None]
    verify: bool = True
    release: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Criterion:
    """The twin as a model calls it; a model that validates passes (answer, predictions).

    Attributes that this class has not are the own criterion's, to be read and to be set: a trainer moves an end-to-end schedule
    with ``updates`` and ``update()``, a callback a gain with ``hyp.box``.

    Args:
        own: the model's own criterion.
        settings: of the hook.

    Attributes:
        loss: the twin.
        returns: format in which the own criterion returns, once it was asked.
        finding: what came of the last verification, or ``None`` where there was none yet.
        pending: whether a verification is due.
    """

    def __init__(self, own: OwnCriterion, settings: Settings) -> None:
        numbers = own.numbers()
        fields = {"own": own, "settings": settings, "numbers": numbers, "loss": _twin(own, numbers, settings.options)}
        # Not by assignment, which reaches the own criterion.
        vars(self).update(fields, returns=None, finding=None, pending=settings.verify, waited=0)
        vars(self).update(handle=traced.enter(self), targets=own.kind.targets, **_traced_texts(self.loss))

    own: OwnCriterion
    settings: Settings
    numbers: dict[str, Numbers]
    loss: Any
    returns: ReturnFormat | None
    finding: Finding | None
    pending: bool
    waited: int
    handle: Tensor
    targets: tuple[str, ...]
    structures: str
    counts: list[int]

    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[Tensor, Any]:
        """Loss, times the number of images, and the logged items, returned as the own criterion returns them.

        Raises:
            TypeError: the own criterion is no longer the release's.
            RuntimeError: it computes something else than the twin; the message names the term, the release and the remedy.
        """
        # Older heads of other tasks than detection give a tuple in training too: it begins with the list of level maps.
        predictions = preds[1] if isinstance(preds, tuple) and not isinstance(preds[0], list) else preds
        if torch.compiler.is_compiling():
            # The first call asks the own criterion how it returns, which decides what is traced.
            return (
                self.returns(*traced.evaluate(self, predictions, batch))
                if self.returns
                else torch.compiler.disable(self._evaluate)(predictions, batch)
            )
        return self._evaluate(predictions, batch)

    def _evaluate(self, predictions: Any, batch: Mapping[str, Any]) -> tuple[Tensor, Any]:
        returns = self.prepare(predictions, batch, torch.is_grad_enabled())
        loss, items = self.loss(predictions, batch)
        self.settings.heard(self, loss, torch.is_grad_enabled())
        return returns(loss, items)

    def prepare(self, predictions: Any, batch: Mapping[str, Any], training: bool) -> ReturnFormat:
        """Take over the own criterion's numbers, and verify the twin if that is due; returns the format in which the own criterion returns.

        Raises:
            TypeError: the own criterion is no longer the release's.
            RuntimeError: it computes something else than the twin.
        """
        self._follow()
        returns = self.returns or learn_format(self.own.criterion, predictions, batch, self.own.task)
        vars(self)["returns"] = returns
        if self.pending and training and batch["bboxes"].numel():
            self._verify(predictions, batch)
        return returns

    def real_numbers(self) -> list[float]:
        """The real numbers of the twin's definitions, as many of each as ``counts`` says; and of an end-to-end twin its share."""
        found = [number for twin in twins_of(self.loss).values() for number in numbers_of(twin.spec)]
        return found if isinstance(self.loss, TaskLoss) else [*found, self.loss.one2many_share if self.loss.generation == 2 else 1.0]

    def _follow(self) -> None:
        """Take over the own criterion's numbers of the moment; where they have changed, a verification is due."""
        numbers = self.own.numbers()
        if numbers == self.numbers:
            return
        for name, spec in self.own.specs(numbers).items():
            twins_of(self.loss)[name].spec = spec
        vars(self).update(numbers=numbers, pending=self.settings.verify, waited=0, **_traced_texts(self.loss))

    def _verify(self, predictions: Any, batch: Mapping[str, Any]) -> None:
        """Ask the own criterion; as long as a batch says too little, again on the second, fourth, eighth one and so on."""
        vars(self)["waited"] += 1
        if self.waited & (self.waited - 1):
            return
        try:
            finding = verify(self.own, self.loss, predictions, batch)
        except OwnCriterionError as error:
            _log.warning("twinloss: not verified on this batch: the model's own %s raises %s", type(self.own.criterion).__name__, error)
            return
        except Exception as error:
            with torch.no_grad():
                self.loss(predictions, batch)  # what is wrong with the batch itself is said as it is without verification
            raise RuntimeError(
                f"the twin could not be compared with the model's own {type(self.own.criterion).__name__} of {self.own.release}: "
                f"{type(error).__name__} ({error}). install(..., verify=False) trains without the comparison"
            ) from error
        vars(self).update(finding=finding, pending=bool(finding.differs) or not finding.telling)
        if finding.differs:
            vars(self)["waited"] = 0
            raise RuntimeError(
                f"the twin does not compute what the model's own criterion does, the {type(self.own.criterion).__name__} of "
                f"{self.own.release}: {finding.differs}. The training would change without a word: give the model its release's own "
                "criterion, name the release whose definition it has (release=), or train without the twin (twinloss.hook.uninstall)"
            )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "own" not in vars(self):  # not there yet, as in a copy that is being made
            raise AttributeError(name)
        return getattr(self.own.criterion, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.own.criterion, name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Criterion:
        other = type(self)(OwnCriterion(copy.deepcopy(self.own.criterion, memo), self.own.release), self.settings)
        vars(other).update({name: getattr(self, name) for name in ("returns", "finding", "pending", "waited")})
        return other

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """In a checkpoint there is none, or the model's own where ``None`` would be called."""
        version = self.own.release.version
        if version is not None and number(version) < number(FIRST_WITHOUT_CRITERION):
            return copy.copy, (self.own.criterion,)
        return type(None), ()


def _traced_texts(loss: Loss) -> dict[str, Any]:
    """What a tracer takes for constants: the definitions' structures, and how many real numbers each has."""
    twins = list(twins_of(loss).values())
    counts = [len(numbers_of(twin.spec)) for twin in twins]
    return {"structures": "\n".join(twin.structure for twin in twins), "counts": counts if len(twins) == 1 else [*counts, 1]}


class _Scheduled(EndToEndLoss):
    """An end-to-end twin whose share is the own criterion's."""

    def __init__(self, own: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.own = own

    @property
    def one2many_share(self) -> float:
        """Weight of one2many, as the own criterion has it."""
        return float(self.own.o2m)


def _twin(own: OwnCriterion, numbers: Mapping[str, Numbers], options: Mapping[str, Any]) -> Loss:
    """A twin with an own criterion's numbers."""
    specs = own.specs(numbers)
    first = next(iter(own.parts))
    if specs[first].task == "pose":
        options = {**options, "flow": flow_of(own.parts[first])}  # of an end-to-end head there is one for both
    if own.generation is None:
        return LOSSES[specs[first].task](specs[first], **options)
    loss = _Scheduled(own.criterion, specs[first], generation=own.generation, **options)
    loss.one2one.spec = specs["one2one"]
    return loss


class Maker:
    """Stands in for a model's ``init_criterion``, and remembers what was there.

    Args:
        model: a detection model.
        settings: of the hook.

    Raises:
        TypeError: the model's head is one that the twin does not serve, or the model already has a criterion that is not its release's own;
            the message names it.
        ValueError: the model's release is older than any that was examined.
    """

    def __init__(self, model: Any, settings: Settings) -> None:
        check_head(model)
        self.model, self.settings, self.release = model, settings, release_of(model, settings.release)
        self.release.definition()
        self.own = model.init_criterion
        self.replaced = vars(model).get("criterion", _ABSENT)
        self.waiting = self.replaced not in (_ABSENT, None)  # a criterion that the model already had goes on behind the twin
        if self.waiting:
            OwnCriterion(self.replaced, self.release)
        model.init_criterion = self
        vars(model).pop("criterion", None)  # older models ask whether there is a criterion at all, and would call None

    def __call__(self) -> Criterion:
        """A criterion for the model, with its own criterion behind it.

        Raises:
            TypeError: the model's own criterion is not the one that the twin stands for; the message names it.
        """
        own, self.waiting = (self.replaced if self.waiting else self.own()), False
        return Criterion(OwnCriterion(own, self.release), self.settings)

    def give_back(self) -> None:
        """Restore the model; an end-to-end model's own criterion continues at the epoch that the twin had reached."""
        del self.model.init_criterion
        twin = vars(self.model).pop("criterion", None)
        if isinstance(twin, Criterion) and (self.replaced not in (_ABSENT, None) or getattr(twin.own.criterion, "updates", None)):
            self.model.criterion = twin.own.criterion
        elif self.replaced is not _ABSENT:
            self.model.criterion = self.replaced

    def __deepcopy__(self, memo: dict[int, Any]) -> Maker:
        """For a copy of the model, such as its moving average."""
        other = object.__new__(type(self))  # copy.copy would go the way of pickling, and find this one
        vars(other).update(vars(self))
        other.model, other.own = memo.get(id(self.model), self.model), copy.deepcopy(self.own, memo)
        if self.replaced is not _ABSENT:
            other.replaced = copy.deepcopy(self.replaced, memo) if self.waiting else None
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
    if not set(names) & set(SERVED_HEADS):
        raise TypeError(f"the twin does not serve the head {names[0]}; it serves {', '.join(SERVED_HEADS)} and those that derive from them")


def check_age(holder: Any) -> None:
    """Raise ``TypeError`` for a model, or what holds one, of a release whose models have no criterion."""
    while holder is not None and not isinstance(getattr(holder, "model", None), torch.nn.Sequential):
        holder = next((part for name in ("_orig_mod", "module", "model") if (part := getattr(holder, name, None)) is not None), None)
    if holder is not None and not hasattr(type(holder), "init_criterion"):
        raise TypeError(
            f"the models of {release_of(holder)} have no criterion of their own (init_criterion) that the twin could stand for; those of "
            f"ultralytics {FIRST_WITH_CRITERION} and newer have: train with such a release"
        )
