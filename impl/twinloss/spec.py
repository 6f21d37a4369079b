"""Every number of a loss's definition, in one frozen record: detection's, which the other tasks' extend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

from twinloss.inputs.numbers import in_float32, real, several, whole
from twinloss.release_definitions import refusal, switches

_COUNTS = {3: "three", 4: "four", 6: "six"}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "lengthen": ("second", "first", "never"),
    "distance_term": (True, False),
    "anchor_weights": ("own", "sum"),
}


class Term(NamedTuple):
    """A term of a loss.

    Attributes:
        key: by which the twin's own parts name it.
        logged: name under which it is logged.
        gain: place of its factor in the definition's gains.
    """

    key: str
    logged: str
    gain: int


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """The definition of the detection loss: its numbers and options (spec section 0).

    Attributes:
        num_classes: C, the number of classes, at least 1.
        reg_max: R, bins per box side; 1 means that the head predicts distances themselves.
        strides: stride of each pyramid level in pixels, finest first.
        gains: factors of the box, classification and distribution (or distance) terms.
        topk: K, candidates kept per ground-truth box.
        topk2: anchors that a box keeps after conflicts are resolved; ``None`` means no second cut.
        alpha: exponent of the class probability in the alignment metric.
        beta: exponent of the overlap in the alignment metric.
        class_weights: C factors of the classification term, or ``None`` for ones.
        assign_eps: epsilon of the assigner: of the inside test, and under the soft target's fraction.
        ciou_eps: epsilon of the CIoU.
        clamp_margin: target distances are clamped to ``reg_max - 1 - clamp_margin``.
        lengthen: which sides the inside test lengthens to the second level's stride (the only level's, where there is one): those shorter
            than the "second" level's stride, than the "first" level's, or "never" any.
        distance_term: for R = 1, whether there is a distance term; without it the third term is 0.
        anchor_weights: what weighs an anchor in the box and distribution terms: its "own" soft target t, or the "sum" of all t.

    The last three are as in the newest definition unless :meth:`for_release` asks for an older one.

    Numbers may be given as Python's, as NumPy's or as tensors with one element; a whole number also as a float without a fraction, such
    as a stride of 8.0; several of them as a tuple, a list, an array or a tensor. They are kept as ``int``, ``float`` and tuples of these.
    Whole numbers are at most 2³¹ − 1, others finite in float32.

    Raises:
        ValueError: a field is out of its range; the message names the field, its value and the remedy.
    """

    num_classes: int
    reg_max: int = 16
    strides: tuple[int, ...] = (8, 16, 32)
    gains: tuple[float, ...] = (7.5, 0.5, 1.5)
    topk: int = 10
    topk2: int | None = None
    alpha: float = 0.5
    beta: float = 6.0
    class_weights: tuple[float, ...] | None = None
    assign_eps: float = 1e-9
    ciou_eps: float = 1e-7
    clamp_margin: float = 0.01
    lengthen: Literal["second", "first", "never"] = "second"
    distance_term: bool = True
    anchor_weights: Literal["own", "sum"] = "own"

    task: ClassVar[str] = "detect"
    geometry: ClassVar[str] = "upright"  # kind of the boxes, by its name in twinloss.geometry.registry
    gain_names: ClassVar[tuple[str, ...]] = ("box", "classification", "distribution")
    counts_weightless: ClassVar[bool] = False  # whether terms count held anchors of weight 0
    newest_switches: ClassVar[Mapping[str, Any]] = {"lengthen": "second", "distance_term": True, "anchor_weights": "own"}

    def __post_init__(self) -> None:
        for field, value in (self._whole_numbers() | self._real_numbers()).items():
            object.__setattr__(self, field, value)
        name = self._name
        if list(self.strides) != sorted(self.strides) or not self.strides:
            raise ValueError(f"{name}.strides is {self.strides}; give one positive stride per level, finest first")
        if len(self.gains) != len(self.gain_names):
            count = _COUNTS.get(len(self.gain_names), len(self.gain_names))
            raise ValueError(f"{name}.gains is {self.gains}; give {count}: {', '.join(self.gain_names)}")
        if self.class_weights is not None and len(self.class_weights) != self.num_classes:
            raise ValueError(
                f"{name}.class_weights has {len(self.class_weights)} values for {self.num_classes} classes; give one per class"
            )
        if self.reg_max > 1 and not 0 <= in_float32(self.largest_target) < self.reg_max - 1:
            raise ValueError(
                f"{name}.clamp_margin is {self.clamp_margin}; it must be above 0, to be felt in float32 beside reg_max - 1 = "
                f"{self.reg_max - 1}, and no larger than that"
            )
        for field, known in _CHOICES.items():
            self._check_choice(field, known)
        object.__setattr__(self, "distance_term", bool(self.distance_term))

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check_choice(self, field: str, known: tuple[Any, ...]) -> None:
        if getattr(self, field) not in known:
            raise ValueError(f"{self._name}.{field} is {getattr(self, field)!r}; it must be one of {', '.join(map(repr, known))}")

    def _whole_numbers(self) -> dict[str, Any]:
        """The fields that are whole numbers, as such."""
        spec = self._name
        found: dict[str, Any] = {name: whole(f"{spec}.{name}", getattr(self, name)) for name in ("num_classes", "reg_max", "topk")}
        found["topk2"] = None if self.topk2 is None else whole(f"{spec}.topk2, where it is not None,", self.topk2)
        found["strides"] = tuple(whole(f"{spec}.strides: a stride", stride) for stride in several(f"{spec}.strides", self.strides))
        return found

    def _real_numbers(self) -> dict[str, Any]:
        """The fields that are real numbers, as floats."""
        spec = self._name
        found: dict[str, Any] = {name: real(f"{spec}.{name}", getattr(self, name), least=0) for name in ("alpha", "beta")}
        found |= {name: real(f"{spec}.{name}", getattr(self, name)) for name in ("assign_eps", "ciou_eps", "clamp_margin")}
        for name in ("gains", "class_weights"):
            if (values := getattr(self, name)) is not None or name == "gains":
                found[name] = tuple(real(f"{spec}.{name}: a factor", value) for value in several(f"{spec}.{name}", values))
        return found

    @classmethod
    def for_release(cls, release: str, **numbers: Any) -> LossSpec:
        """The definition that a release of Ultralytics computes, such as ``LossSpec.for_release("8.3.253", num_classes=80)``.

        Args:
            release: 8.0.100 or newer; one newer than any examined is taken to have the newest definition.
            numbers: the other attributes. Those that set the release's definition apart may be given too, and then win.

        Raises:
            ValueError: the release is malformed or too old, or its loss cannot be told one of the numbers or computes what no definition of
                the twin follows, or a number is out of its range; the message gives the reason.
        """
        if reason := refusal(release, numbers, cls.task):
            raise ValueError(reason)
        return cls(**switches(release, cls.task) | numbers)

    @property
    def newest(self) -> bool:
        """Whether all switches of older releases are off."""
        return all(getattr(self, name) == value for name, value in self.newest_switches.items())

    @property
    def shortest_side(self) -> int:
        """Side in pixels to which a short one is lengthened for the inside test (spec section 5.1)."""
        return self.strides[1] if len(self.strides) > 1 else self.strides[0]

    @property
    def lengthened_below(self) -> int:
        """Side in pixels below which a side counts as short: in the newest definition the same as :attr:`shortest_side`."""
        return {"second": self.shortest_side, "first": self.strides[0], "never": 0}[self.lengthen]

    @property
    def largest_target(self) -> float:
        """Largest target distance in grid units for R > 1 (spec section 7)."""
        return self.reg_max - 1 - self.clamp_margin

    @property
    def second_topk(self) -> int | None:
        """Anchors that a box keeps after conflicts are resolved; ``None`` where there is no second cut (spec section 5.6)."""
        return None if self.topk2 == self.topk else self.topk2

    @property
    def overlap(self) -> str:
        """The assigner's overlap, by its name in :data:`twinloss.assignment.registry.OVERLAPS` (spec section 5.2)."""
        return "ciou"

    @property
    def beyond_kernels(self) -> str | None:
        """Why compiled kernels do not compute this definition, or ``None``."""
        if self.beta > 0:
            return None
        return "with beta=0 an anchor that boxes contest without overlapping it has a weight, and the kernels give it to nobody"

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """Keys of the terms, in the order of the result (spec section 7)."""
        return tuple(term.key for term in self._terms())

    @cached_property
    def term_names(self) -> tuple[str, ...]:
        """Names under which the terms are logged (spec section 7)."""
        return tuple(term.logged for term in self._terms())

    @cached_property
    def term_gains(self) -> tuple[float, ...]:
        """Factor of each term, in the order of the result."""
        return tuple(self.gains[term.gain] for term in self._terms())

    def _terms(self) -> tuple[Term, ...]:
        return Term("box", "box_loss", 0), Term("cls", "cls_loss", 1), self._distribution

    @property
    def _distribution(self) -> Term:
        return Term("dfl", "dfl_loss" if self.reg_max > 1 else "l1_loss", 2)
