"""A model's own criterion: whether it is still the release's, and the numbers that it reads, read as it reads them.

On every call the reference's criteria read ``hyp.box``, ``hyp.cls`` and ``hyp.dfl``, where ``hyp`` is the object that was the model's
``args`` when the criterion was made, their own ``class_weights``, and the constants of their ``assigner``; an end-to-end one its share
``o2m``. The model's ``args``, ``class_weights`` and head are read when a criterion is made, and not again. So the model's own criterion is
kept, and the twin reads its numbers there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twinloss.end_to_end import Generation
from twinloss.release_definitions import Release, root
from twinloss.spec import LossSpec

REPLACED = "v8DetectionLoss"
SETS = ("one2many", "one2one")
_GENERATIONS: Mapping[str, Generation] = {"E2EDetectLoss": 1, "E2ELoss": 2}
_MADE_OF = {"assigner": "TaskAlignedAssigner", "bbox_loss": "BboxLoss"}


class Numbers(NamedTuple):
    """What a criterion of one prediction set computes with at the moment."""

    num_classes: int
    reg_max: int
    strides: tuple[float, ...]
    gains: tuple[float, float, float]
    topk: int
    topk2: int | None
    alpha: float
    beta: float
    assign_eps: float
    class_weights: tuple[float, ...] | None


class OwnCriterion:
    """A model's own criterion.

    Args:
        criterion: of one prediction set, or of the two of an end-to-end head.
        release: that the model comes from.

    Attributes:
        generation: of an end-to-end criterion, else ``None``.
        parts: the criterion of each prediction set, by its name; of the only one, by "".

    Raises:
        TypeError: it is not the release's own criterion, or is no longer; the message names what differs, and the remedy.
    """

    def __init__(self, criterion: Any, release: Release) -> None:
        self.criterion, self.release = criterion, release
        self.generation = _GENERATIONS.get(type(criterion).__name__)
        if self.generation is not None:
            self._check_class("criterion", criterion, type(criterion).__name__)
        self.parts: dict[str, Any] = {"": criterion} if self.generation is None else {name: getattr(criterion, name) for name in SETS}
        self._tensors: dict[tuple[str, str], tuple[Tensor, int, tuple[float, ...]]] = {}
        self.numbers()

    def numbers(self) -> dict[str, Numbers]:
        """The numbers of each part at the moment.

        Raises:
            TypeError: the criterion is no longer the release's own.
        """
        if self.generation == 2 and abs(self.criterion.o2m + self.criterion.o2o - 1) > 1e-9:
            self._refuse(f"its shares o2m and o2o are {self.criterion.o2m} and {self.criterion.o2o}, which do not add up to 1")
        return {name: self._numbers(name, part) for name, part in self.parts.items()}

    def specs(self, numbers: Mapping[str, Numbers]) -> dict[str, LossSpec]:
        """The definition of each part, with these numbers."""
        return {name: LossSpec(**self.release.definition | part._asdict()) for name, part in numbers.items()}

    def _numbers(self, name: str, part: Any) -> Numbers:
        self._check(part)
        assigner, gains = part.assigner, part.hyp
        weights = getattr(part, "class_weights", None)
        strides = self._values((name, "stride"), torch.as_tensor(part.stride))
        return Numbers(
            num_classes=int(part.nc),
            reg_max=int(part.reg_max),
            strides=tuple(int(stride) if stride == int(stride) else stride for stride in strides),
            gains=(float(gains.box), float(gains.cls), float(gains.dfl)),
            topk=int(assigner.topk),
            topk2=getattr(assigner, "topk2", None),
            alpha=float(assigner.alpha),
            beta=float(assigner.beta),
            assign_eps=float(assigner.eps),
            class_weights=None if weights is None else self._values((name, "class_weights"), torch.as_tensor(weights)),
        )

    def _values(self, key: tuple[str, str], tensor: Tensor) -> tuple[float, ...]:
        """A tensor's values; one that is not on the host is read only when it has changed, since reading it waits for the device."""
        if tensor.device.type == "cpu" or tensor.is_inference():
            return tuple(tensor.flatten().tolist())
        known = self._tensors.get(key)
        if known is None or known[0] is not tensor or known[1] != tensor._version:  # noqa: SLF001 - torch has no public name for it
            known = self._tensors[key] = (tensor, tensor._version, tuple(tensor.flatten().tolist()))  # noqa: SLF001
        return known[2]

    def _check(self, part: Any) -> None:
        """Refuse a criterion that computes with other parts than the release's."""
        self._check_class("criterion", part, REPLACED)
        for name, kind in _MADE_OF.items():
            self._check_class(name, getattr(part, name, None), kind)
        bce = part.bce
        if type(bce) is not torch.nn.BCEWithLogitsLoss or _overridden(bce):
            self._refuse(f"its bce is a {type(bce).__name__}{_overridden(bce)}, not a plain BCEWithLogitsLoss")
        settings = {"reduction": bce.reduction, "weight": bce.weight, "pos_weight": bce.pos_weight}
        for name, usual in (("reduction", "none"), ("weight", None), ("pos_weight", None)):
            if not (settings[name] is None if usual is None else settings[name] == usual):
                self._refuse(f"its bce has {name} = {settings[name]} instead of {usual}")
        if bool(getattr(part, "use_dfl", part.reg_max > 1)) != (part.reg_max > 1):
            self._refuse(f"its use_dfl is {part.use_dfl} with reg_max = {part.reg_max}")

    def _check_class(self, what: str, found: Any, kind: str) -> None:
        place = root(type(found))
        if type(found).__name__ != kind:
            self._refuse(
                f"its {what} is a {type(found).__name__}, not a {kind}" if what != "criterion" else f"it is no {kind}", found, what
            )
        if place != self.release.package:
            self._refuse(f"the class {kind} of its {what} is defined in {type(found).__module__}, not in {self.release.package}")
        if changed := _overridden(found):
            self._refuse(f"its {what} is a {kind}{changed}")

    def _refuse(self, how: str, found: Any = None, what: str = "") -> None:
        name = type(found if what == "criterion" else self.criterion).__name__
        raise TypeError(
            f"the model's own criterion is a {name}, but not the one of {self.release} that the twin stands for: {how}. The twin would "
            "change the training: give the model the release's own criterion, or train without the twin (twinloss.hook.uninstall)"
        )


def _overridden(found: Any) -> str:
    """Which methods an object replaces on itself, in words, or nothing."""
    names = [name for name in vars(found) if isinstance(getattr(type(found), name, None), FunctionType)]
    return f" with its own {' and '.join(names)}" if names else ""
