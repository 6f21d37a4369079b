"""One call of the loss, and what every backend answers to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.assignment import PAIRS_AT_ONCE, Assignment, Conflicts, Ties
from twinloss.spec import LossSpec


@dataclass(frozen=True)
class Call:
    """Arguments of one loss call, checked and copied by :mod:`twinloss.inputs`.

    Attributes:
        boxes: (B, 4R, A) logits.
        scores: (B, C, A) logits.
        batch: ``batch_idx`` (N,), ``cls`` (N,) and ``bboxes`` (N, 4), on the logits' device.
        spec: the definition.
        pyramid: the grids.
        conflicts: "overlap" or "pickers", as in :class:`twinloss.DetectionLoss`.
        ties: "stable" or "reference", as there.
        pairs_at_once: bound of the torch backend's scratch memory, as there.
    """

    boxes: Tensor
    scores: Tensor
    batch: Mapping[str, Tensor]
    spec: LossSpec
    pyramid: Pyramid
    conflicts: Conflicts = "overlap"
    ties: Ties = "stable"
    pairs_at_once: int = PAIRS_AT_ONCE

    def by_name(self, terms: Tensor) -> dict[str, Tensor]:
        """The terms (3,) by the names under which they are logged."""
        return dict(zip(self.spec.term_names, terms.unbind(), strict=True))


class Evaluation(NamedTuple):
    """The loss of a call.

    Attributes:
        loss: (3,) terms, each times its gain and B, differentiable.
        items: the terms times their gains, detached, by name.
        assignment: returns the assignment that the loss was computed on; on a GPU the host waits for it.
    """

    loss: Tensor
    items: dict[str, Tensor]
    assignment: Callable[[], Assignment]


class Backend(ABC):
    """An implementation of the loss; :data:`twinloss.backends.registry.BACKENDS` lists all."""

    name: ClassVar[str]

    @abstractmethod
    def is_default_for(self, call: Call) -> bool:
        """Whether ``backend="auto"`` asks this backend first, for logits on their device."""

    @abstractmethod
    def why_not(self, call: Call) -> str | None:
        """Why this backend cannot serve the call, with the remedy; ``None`` when it can."""

    @abstractmethod
    def assignment(self, call: Call) -> Assignment:
        """The assignment alone (spec section 5)."""

    @abstractmethod
    def loss(self, call: Call, assignment: Assignment | None = None) -> Evaluation:
        """The loss, on its own assignment or a given one (spec sections 6 and 7)."""

    def report(self, reason: str) -> None:  # noqa: B027 - most backends have nothing to say
        """Tell the user, once, that another backend serves although this one should."""
