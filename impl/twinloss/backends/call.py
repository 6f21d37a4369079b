"""One call of the loss, and what every backend answers to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.assignment.assign import PAIRS_AT_ONCE, Assignment, Conflicts
from twinloss.assignment.overlaps import Ties
from twinloss.spec import LossSpec

if TYPE_CHECKING:
    from twinloss.backends.slots import Slots
    from twinloss.terms.held import HeldAnchors

Flow = Callable[[Tensor], Tensor]
"""Log-densities (P,) of points (P, 2)."""


@dataclass(frozen=True)
class Call:
    """Arguments of one loss call, checked and copied by :mod:`twinloss.inputs.admission`.

    Attributes:
        boxes: (B, 4R, A) logits.
        scores: (B, C, A) logits.
        batch: ``batch_idx`` (N,), ``cls`` (N,) and ``bboxes`` (N, 4), or as many columns as the geometry has, on the logits' device.
        spec: the definition.
        pyramid: the grids.
        conflicts: "overlap" or "pickers", as in :class:`twinloss.DetectionLoss`.
        ties: "stable" or "reference", as there.
        pairs_at_once: bound of the torch backend's scratch memory, as there.
        extras: further predictions and targets of the task by key, on the logits' device. A key that may be absent is absent where it is:
            segment has ``mask_coefficient``, ``proto``, ``semantic``, ``masks`` and ``sem_masks``; oriented ``angle``; pose ``kpts``,
            ``kpts_sigma`` and ``keypoints``.
        flow: of the pose loss, the log-density of its likelihood term.
    """

    boxes: Tensor
    scores: Tensor
    batch: Mapping[str, Tensor]
    spec: LossSpec
    pyramid: Pyramid
    conflicts: Conflicts = "overlap"
    ties: Ties = "stable"
    pairs_at_once: int = PAIRS_AT_ONCE
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    flow: Flow | None = None

    @property
    def target_dtype(self) -> torch.dtype:
        """Dtype of ground truth: float32 whatever the logits are, unless both they and ``bboxes`` are float64 (spec section 3)."""
        return torch.float64 if self.boxes.dtype == self.batch["bboxes"].dtype == torch.float64 else torch.float32


class Evaluation(NamedTuple):
    """The loss of a call.

    Attributes:
        loss: (T,) terms in the order of ``spec.terms``, each times its gain and B, differentiable; of a backend's own answer, those that it
            computes, in the order of its ``terms``.
        items: the terms times their gains (T,), detached.
        assignment: returns the assignment that the loss was computed on; on a GPU the host waits for it.
        slots: the assignment as the backend itself keeps it, where that is no list.
    """

    loss: Tensor
    items: Tensor
    assignment: Callable[[], Assignment]
    slots: Slots | None = None


class Backend(ABC):
    """An implementation of the loss; :mod:`twinloss.backends.registry` lists all, and lets torch do what one does not.

    Attributes:
        name: by which ``backend=`` asks for it.
        geometries: kinds of boxes that it knows; without the call's it cannot serve.
        overlaps: overlaps that its assignment knows; without the call's it is given torch's assignment.
        terms: keys of the terms that it computes of every task, in the order of its answer.
        keeps_slots: whether it keeps an assignment of its own in slots, of which any may be empty, rather than in a list.
    """

    name: ClassVar[str]
    geometries: ClassVar[tuple[str, ...]] = ("upright",)
    overlaps: ClassVar[tuple[str, ...]] = ("ciou",)
    terms: ClassVar[tuple[str, ...]] = ("box", "cls", "dfl")
    keeps_slots: ClassVar[bool] = False

    def computes(self, spec: LossSpec) -> tuple[str, ...]:
        """Keys of the terms of a definition that the backend computes, in the order of its answer; torch adds the others."""
        return self.terms

    def further_term(self, key: str, call: Call) -> Callable[[HeldAnchors], Tensor] | None:
        """The backend's own function for a term that its answer lacks; ``None`` where it has none for the call, and torch's serves."""
        return None

    @abstractmethod
    def is_default_for(self, call: Call) -> bool:
        """Whether ``backend="auto"`` asks this backend first, for logits on their device."""

    @abstractmethod
    def why_not(self, call: Call) -> str | None:
        """Why this backend cannot serve the call, with the remedy; ``None`` when it can."""

    @abstractmethod
    def assignment(self, call: Call) -> Assignment:
        """The assignment alone (spec section 5); asked only for an overlap that the backend knows."""

    @abstractmethod
    def loss(self, call: Call, assignment: Assignment | None = None) -> Evaluation:
        """The terms that the backend computes, on its own assignment or a given one (spec sections 6 and 7)."""

    def loss_on_slots(self, call: Call, slots: Slots) -> Evaluation:
        """The same terms on slots that an evaluation of this backend left; none is empty unless the backend keeps slots itself."""
        return self.loss(call, slots.listed(call.batch["batch_idx"]))

    def report(self, reason: str) -> None:  # noqa: B027 - most backends have nothing to say
        """Tell the user, once, that another backend serves although this one should."""
