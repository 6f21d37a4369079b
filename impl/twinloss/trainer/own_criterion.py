"""A model's own criterion: whether it is still the release's, and the numbers that it reads, read as it reads them.

On every call the reference's criteria read ``hyp.box``, ``hyp.cls``, ``hyp.dfl`` and further gains of their task, where ``hyp`` is the
object that was the model's ``args`` when the criterion was made, their own ``class_weights``, and the constants of their ``assigner``; an
end-to-end one its share ``o2m``. The model's ``args``, ``class_weights`` and head are read when a criterion is made, and not again. So the
model's own criterion is kept, and the twin reads its numbers there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from twinloss.end_to_end import Generation
from twinloss.release_definitions import Release, root
from twinloss.spec import LossSpec
from twinloss.trainer.criterion_kinds import KINDS, Kind, Read, plain_bce
from twinloss.trainer.return_format import Task

SETS = ("one2many", "one2one")
_FIXED: dict[str, Callable[[Any], Any]] = {
    "proj": lambda part: getattr(part, "proj", None),
    "assigner.stride_val": lambda part: getattr(part.assigner, "stride_val", None),
}
"""Further numbers that criteria of some releases compute with. The twin has them from the head, and cannot have others."""
_GENERATIONS: Mapping[str, Generation] = {"E2EDetectLoss": 1, "E2ELoss": 2}


class Numbers(NamedTuple):
    """What a criterion of one prediction set computes with at the moment."""

    num_classes: int
    reg_max: int
    strides: tuple[float, ...]
    gains: tuple[float, ...]
    topk: int
    topk2: int | None
    alpha: float
    beta: float
    assign_eps: float
    class_weights: tuple[float, ...] | None
    further: Mapping[str, Any]


class OwnCriterion:
    """A model's own criterion.

    Args:
        criterion: of one prediction set, or of the two of an end-to-end head.
        release: that the model comes from.

    Attributes:
        generation: of an end-to-end criterion, else ``None``.
        parts: the criterion of each prediction set, by its name; of the only one, by "".
        kind: of all parts.

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
        self.kind = self._kind()
        self._made = {name: self._fixed(name, part) for name, part in self.parts.items()}
        self._check_release()

    def numbers(self) -> dict[str, Numbers]:
        """The numbers of each part at the moment.

        Raises:
            TypeError: the criterion is no longer the release's own.
        """
        if self.generation == 2 and abs(self.criterion.o2m + self.criterion.o2o - 1) > 1e-9:
            self._refuse(f"its shares o2m and o2o are {self.criterion.o2m} and {self.criterion.o2o}, which do not add up to 1")
        return {name: self._numbers(name, part) for name, part in self.parts.items()}

    def specs(self, numbers: Mapping[str, Numbers], release: Release | None = None) -> dict[str, LossSpec]:
        """The definition of each part, with these numbers, of its release or of another."""
        plain = {name: {key: value for key, value in part._asdict().items() if key != "further"} for name, part in numbers.items()}
        how = (release or self.release).definition(self.kind.spec.task)
        return {name: self.kind.spec(**how | plain[name] | dict(numbers[name].further)) for name in numbers}

    @property
    def task(self) -> Task:
        """What the criterion reads of a batch, and how much it returns."""
        spec = next(iter(self.specs(self.numbers()).values()))
        return Task(len(spec.terms), self.kind.targets, getattr(spec, "overlap_mask", True))

    def _kind(self) -> Kind:
        """The kind of all parts."""
        first, *others = self.parts.values()
        kind = KINDS.get(type(first).__name__)
        if kind is None or (self.generation == 1 and kind.spec is not LossSpec):
            known = " or ".join(name for name, kind in KINDS.items() if self.generation != 1 or kind.spec is LossSpec)
            self._refuse(f"it is no {known}", first, "criterion")
        for other in others:
            self._check_class("criterion", other, kind.name)
        return kind

    def _check_release(self) -> None:
        """Refuse a criterion of a release whose definition the twin does not follow."""
        try:
            found = (self.release.unfollowed(vars(spec), spec.task) for spec in self.specs(self.numbers()).values())
            reason = next(filter(None, found), None)
        except ValueError as error:
            reason = str(error)
        if reason is not None:
            raise TypeError(
                f"the {self.kind.name} of {self.release} computes no definition that the twin could stand for: {reason}: train with such a "
                "release, or without the twin (twinloss.hook.uninstall)"
            )

    def _numbers(self, name: str, part: Any) -> Numbers:
        def read(what: str, tensor: Tensor) -> tuple[float, ...]:
            return self._values((name, what), tensor)

        self._check(part, read)
        for what, value in self._fixed(name, part).items():
            if value != (made := self._made[name][what]):
                self._refuse(f"its {what} is {value}, and was {made} when the criterion was made")
        assigner, hyp = part.assigner, part.hyp
        gains = (hyp.box, hyp.cls, hyp.dfl, *(_gain(hyp, *gain) for gain in self.kind.gains.items()))
        weights = getattr(part, "class_weights", None)
        strides = read("stride", torch.as_tensor(part.stride))
        return Numbers(
            num_classes=int(part.nc),
            reg_max=int(part.reg_max),
            strides=tuple(int(stride) if stride == int(stride) else stride for stride in strides),
            gains=tuple(map(float, gains)),
            topk=int(assigner.topk),
            topk2=getattr(assigner, "topk2", None),
            alpha=float(assigner.alpha),
            beta=float(assigner.beta),
            assign_eps=float(assigner.eps),
            class_weights=None if weights is None else read("class_weights", torch.as_tensor(weights)),
            further=self.kind.fields(part, read),
        )

    def _fixed(self, name: str, part: Any) -> dict[str, Any]:
        """The values of :data:`_FIXED`, ``None`` of one that the release has not."""
        found = {what: read(part) for what, read in _FIXED.items()}
        return {what: self._values((name, what), value) if isinstance(value, Tensor) else value for what, value in found.items()}

    def _values(self, key: tuple[str, str], tensor: Tensor) -> tuple[float, ...]:
        """A tensor's values; one that is not on the host is read only when it has changed, since reading it waits for the device."""
        if tensor.device.type == "cpu" or tensor.is_inference():
            return tuple(tensor.flatten().tolist())
        known = self._tensors.get(key)
        if known is None or known[0] is not tensor or known[1] != tensor._version:  # noqa: SLF001 - torch has no public name for it
            known = self._tensors[key] = (tensor, tensor._version, tuple(tensor.flatten().tolist()))  # noqa: SLF001
        return known[2]

    def _check(self, part: Any, read: Read) -> None:
        """Refuse a criterion that computes with other parts than the release's."""
        self._check_class("criterion", part, self.kind.name)
        for name, kinds in self.kind.made_of.items():
            found = getattr(part, name, None)
            if found is not None or None not in kinds:
                self._check_class(name, found, *filter(None, kinds))
        if _overridden(part.bce):
            self._refuse(f"its bce is a {type(part.bce).__name__}{_overridden(part.bce)}, not a plain BCEWithLogitsLoss")
        if different := plain_bce("bce", part.bce, "none") or self.kind.differs(part, read):
            self._refuse(different)
        if bool(getattr(part, "use_dfl", part.reg_max > 1)) != (part.reg_max > 1):
            self._refuse(f"its use_dfl is {part.use_dfl} with reg_max = {part.reg_max}")

    def _check_class(self, what: str, found: Any, *kinds: str) -> None:
        place, kind = root(type(found)), type(found).__name__
        if kind not in kinds:
            expected = " or ".join(kinds)
            self._refuse(f"its {what} is a {kind}, not a {expected}" if what != "criterion" else f"it is no {expected}", found, what)
        if place != self.release.package:
            self._refuse(f"the class {kind} of its {what} is defined in {type(found).__module__}, not in {self.release.package}")
        if changed := _overridden(found):
            self._refuse(f"its {what} is a {kind}{changed}")

    def _refuse(self, how: str, found: Any = None, what: str = "") -> NoReturn:
        name = type(found if what == "criterion" else self.criterion).__name__
        raise TypeError(
            f"the model's own criterion is a {name}, but not the one of {self.release} that the twin stands for: {how}. The twin would "
            "change the training: give the model the release's own criterion, or train without the twin (twinloss.hook.uninstall)"
        )


def _gain(hyp: Any, name: str, usual: float | None) -> float:
    """A gain among the model's arguments; without it there the usual one, if there is one."""
    return float(getattr(hyp, name) if usual is None else getattr(hyp, name, usual))


def _overridden(found: Any) -> str:
    """Which methods an object replaces on itself, in words, or nothing."""
    names = [name for name in vars(found) if isinstance(getattr(type(found), name, None), FunctionType)]
    return f" with its own {' and '.join(names)}" if names else ""
