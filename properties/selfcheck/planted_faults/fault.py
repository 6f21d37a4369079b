"""What a planted fault is: the twin with one small departure from the definition, which the suite has to find."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from torch import Tensor

from oracle.contract.contender import Contender, Criterion
from twinloss import Assignment, DetectionLoss, LossSpec, PairMetrics

Make = Callable[[Any], Any]
Result = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Patch:
    """A function of the twin in another's place.

    Attributes:
        holder: module or class that holds it; where it is used, not where it is defined.
        name: of the attribute.
        make: the faulty function from the sound one.
    """

    holder: ModuleType | type
    name: str
    make: Make

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """The twin as it is with the patch."""
        sound = getattr(self.holder, self.name)
        setattr(self.holder, self.name, self.make(sound))
        try:
            yield
        finally:
            setattr(self.holder, self.name, sound)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One wrong implementation.

    Attributes:
        name: what is wrong, in a few words.
        violates: the sentence of the definition that it breaks.
        section: where that stands.
        patches: functions in others' places, during each call.
        spec: the numbers that it computes with instead of those that it is told.
        before: what it does to predictions and batch before all else.
        after: what it does to the result, given the predictions and batch.
    """

    name: str
    violates: str
    section: str
    patches: tuple[Patch, ...] = ()
    spec: Callable[[LossSpec], LossSpec] | None = None
    before: Callable[[Any, Any], tuple[Any, Any]] | None = None
    after: Callable[[Result, Any, Any], Result] | None = None

    def contender(self) -> Contender:
        """The fault as a contender that shows its stages."""
        return Contender(self.name, "planted fault", self.criterion, arithmetic="float32")

    def blind(self) -> Contender:
        """The fault as a contender of which nothing but the loss is seen."""
        return Contender(f"{self.name} (end to end)", "planted fault", self._blind, arithmetic="float32")

    def criterion(self, spec: LossSpec) -> Criterion:
        """The faulty criterion."""
        return _Planted(self, spec)

    def _blind(self, spec: LossSpec) -> Criterion:
        return _EndToEnd(_Planted(self, spec))


class _Planted(DetectionLoss):
    """The twin with the fault in it during each call; between calls it is sound again."""

    def __init__(self, fault: Fault, spec: LossSpec) -> None:
        super().__init__(fault.spec(spec) if fault.spec else spec, validate=True, backend="torch")
        self.fault = fault
        self.depth = 0

    @contextlib.contextmanager
    def _fault(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self.depth == 0:  # A stage may call another: a patch on a patch would be two faults.
                for patch in self.fault.patches:
                    stack.enter_context(patch.planted())
            self.depth += 1
            stack.callback(self._leave)
            yield

    def _leave(self) -> None:
        self.depth -= 1

    def _given(self, preds: Any, batch: Any) -> tuple[Any, Any]:
        return self.fault.before(preds, batch) if self.fault.before else (preds, batch)

    def _answered(self, result: Result, preds: Any, batch: Any) -> Result:
        return self.fault.after(result, preds, batch) if self.fault.after else result

    def __call__(self, preds: Any, batch: Any) -> Result:
        with self._fault():
            return self._answered(super().__call__(*self._given(preds, batch)), preds, batch)

    def loss_given(self, preds: Any, batch: Any, assignment: Assignment) -> Result:
        with self._fault():
            return self._answered(super().loss_given(*self._given(preds, batch), assignment), preds, batch)

    def assign(self, preds: Any, batch: Any) -> Assignment:
        with self._fault():
            return super().assign(*self._given(preds, batch))

    def anchors(self, preds: Any) -> tuple[Tensor, Tensor]:
        with self._fault():
            return super().anchors(preds)

    def targets(self, preds: Any, batch: Any) -> Any:
        with self._fault():
            return super().targets(*self._given(preds, batch))

    def decode(self, preds: Any) -> Tensor:
        with self._fault():
            return super().decode(preds)

    def metrics(self, preds: Any, batch: Any) -> PairMetrics:
        with self._fault():
            return super().metrics(*self._given(preds, batch))


class _EndToEnd:
    """A criterion of which nothing is seen but the loss, and how it settles ties."""

    def __init__(self, faulty: _Planted) -> None:
        self._faulty = faulty
        self.ties = faulty.ties

    def __call__(self, preds: Any, batch: Any) -> Result:
        return self._faulty(preds, batch)


def numbers(**changed: Callable[[LossSpec], Any]) -> Callable[[LossSpec], LossSpec]:
    """The definition with some numbers computed from it."""
    return lambda spec: replace(spec, **{name: change(spec) for name, change in changed.items()})
