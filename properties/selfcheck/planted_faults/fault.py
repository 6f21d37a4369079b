"""A planted fault: the twin with one small departure from the definition, which the suite must find."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from oracle.contract.contender import Contender, Criterion
from twinloss import Assignment, DetectionLoss, LossSpec, OrientedLoss, PairMetrics, PoseLoss, SegmentationLoss
from twinloss.loss import TaskLoss

Make = Callable[[Any], Any]
Result = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Patch:
    """Replaces one function of the twin.

    Attributes:
        holder: module or class whose attribute is replaced: the one that uses the function, not the one that defines it.
        name: name of the attribute.
        make: returns the faulty function, given the sound one.
    """

    holder: ModuleType | type
    name: str
    make: Make

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the function within the context."""
        sound = getattr(self.holder, self.name)
        setattr(self.holder, self.name, self.make(sound))
        try:
            yield
        finally:
            setattr(self.holder, self.name, sound)


@dataclass(frozen=True)
class Fault:
    """One wrong implementation.

    Attributes:
        name: what is wrong, in a few words.
        violates: the sentence of the definition that it breaks.
        section: section of that sentence.
        patches: replaced functions, during each call.
        spec: returns the wrong definition that it computes with, given the right one.
        before: returns the changed predictions and batch.
        after: returns the changed result, given result, predictions and batch.
        task: the task whose twin it is planted into.
    """

    name: str
    violates: str
    section: str
    patches: tuple[Patch, ...] = ()
    spec: Callable[[LossSpec], LossSpec] | None = None
    before: Callable[[Any, Any], tuple[Any, Any]] | None = None
    after: Callable[[Result, Any, Any], Result] | None = None
    task: str = "detect"

    def contender(self) -> Contender:
        """Returns the fault as a contender that shows its stages."""
        return Contender(self.name, "planted fault", self.criterion, arithmetic="float32")

    def loss_only(self) -> Contender:
        """Returns the fault as a contender that shows the loss alone."""
        return Contender(f"{self.name} (end to end)", "planted fault", self._loss_only, arithmetic="float32")

    def criterion(self, spec: LossSpec, flow: nn.Module | None = None) -> Criterion:
        """Returns the faulty criterion; the flow is that of a pose definition with a likelihood term."""
        return _planted(spec.task)(self, spec, flow)

    def _loss_only(self, spec: LossSpec, flow: nn.Module | None = None) -> Criterion:
        return _LossOnly(_planted(spec.task)(self, spec, flow))


class _Planted(TaskLoss):
    """The twin with the fault during each call; between calls the twin is sound. :func:`_planted` derives the class of each task."""

    def __init__(self, fault: Fault, spec: LossSpec, flow: nn.Module | None) -> None:
        density: dict[str, Any] = {} if flow is None else {"flow": flow.log_prob}
        super().__init__(fault.spec(spec) if fault.spec else spec, validate=True, backend="torch", **density)
        self.fault = fault
        self.depth = 0

    @contextlib.contextmanager
    def _fault(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self.depth == 0:  # One stage may call another; the patches must be applied once.
                for patch in self.fault.patches:
                    stack.enter_context(patch.applied())
            self.depth += 1
            stack.callback(self._leave)
            yield

    def _leave(self) -> None:
        self.depth -= 1

    def _inputs(self, preds: Any, batch: Any) -> tuple[Any, Any]:
        return self.fault.before(preds, batch) if self.fault.before else (preds, batch)

    def _result(self, result: Result, preds: Any, batch: Any) -> Result:
        return self.fault.after(result, preds, batch) if self.fault.after else result

    def __call__(self, preds: Any, batch: Any) -> Result:
        with self._fault():
            return self._result(super().__call__(*self._inputs(preds, batch)), preds, batch)

    def loss_given(self, preds: Any, batch: Any, assignment: Assignment) -> Result:
        with self._fault():
            return self._result(super().loss_given(*self._inputs(preds, batch), assignment), preds, batch)

    def assign(self, preds: Any, batch: Any) -> Assignment:
        with self._fault():
            return super().assign(*self._inputs(preds, batch))

    def anchors(self, preds: Any) -> tuple[Tensor, Tensor]:
        with self._fault():
            return super().anchors(preds)

    def targets(self, preds: Any, batch: Any) -> Any:
        with self._fault():
            return super().targets(*self._inputs(preds, batch))

    def decode(self, preds: Any) -> Tensor:
        with self._fault():
            return super().decode(preds)

    def metrics(self, preds: Any, batch: Any) -> PairMetrics:
        with self._fault():
            return super().metrics(*self._inputs(preds, batch))


@functools.cache
def _planted(task: str) -> type[_Planted]:
    """Returns the twin's class of a task with faults planted into its methods."""
    (twin,) = (kind for kind in (DetectionLoss, SegmentationLoss, OrientedLoss, PoseLoss) if kind.task.task == task)
    return type(f"Planted{twin.__name__}", (_Planted, twin), {})


class _LossOnly:
    """A criterion that shows the loss and its tie rule, no stages."""

    def __init__(self, faulty: _Planted) -> None:
        self._faulty = faulty
        self.ties = faulty.ties

    def __call__(self, preds: Any, batch: Any) -> Result:
        return self._faulty(preds, batch)


def with_numbers(**changed: Callable[[LossSpec], Any]) -> Callable[[LossSpec], LossSpec]:
    """Returns a function that changes fields of a definition; each new value is computed from the definition."""
    return lambda spec: replace(spec, **{name: change(spec) for name, change in changed.items()})
