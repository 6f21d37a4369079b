"""A loss's definition and options as a string, and its real numbers apart.

Whatever decides shapes and choices is in the string, which a tracer takes for a constant.

>>> from dataclasses import replace
>>> spec = LossSpec(num_classes=2, strides=(8, 16), gains=(7.5, 0.5, 1.5))
>>> layout, numbers = structure(spec), numbers_of(spec)
>>> numbers[:3], spec_of(layout, numbers) == spec
((7.5, 0.5, 1.5), True)
>>> structure(replace(spec, gains=(1.0, 2.0, 3.0))) == layout, structure(replace(spec, topk=5)) == layout
(True, False)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from twinloss.assignment.assign import Conflicts
from twinloss.assignment.overlaps import Ties
from twinloss.backends.registry import BackendName
from twinloss.spec import LossSpec
from twinloss.task_specs import SPECS

_SEPARATOR = "|"


@dataclass(frozen=True)
class Definition:
    """What an operator computes: the definition's numbers, and the loss's options.

    Attributes:
        spec: the definition's numbers.
        ties, conflicts, validate, pairs_at_once, backend: as :class:`twinloss.DetectionLoss` takes them.
    """

    spec: LossSpec
    ties: Ties
    conflicts: Conflicts
    validate: bool | None
    pairs_at_once: int
    backend: BackendName


def structure(spec: LossSpec) -> str:
    """A definition without its real numbers, of which it says how many a field has."""
    values = {field.name: getattr(spec, field.name) for field in fields(spec)}
    return json.dumps({"task": spec.task} | {name: _without_numbers(value) for name, value in values.items()})


def numbers_of(spec: LossSpec) -> tuple[float, ...]:
    """The real numbers of a definition, in the order of its fields."""
    found: list[float] = []
    for field in fields(spec):
        value = getattr(spec, field.name)
        if _is_real(value):
            found.extend(value if isinstance(value, tuple) else [value])
    return tuple(found)


def spec_of(layout: str, numbers: Iterable[float]) -> LossSpec:
    """The definition of a :func:`structure` and its numbers."""
    values, left = json.loads(layout), iter(numbers)
    kind = SPECS[values.pop("task")]
    return kind(**{name: _with_numbers(value, left) for name, value in values.items()})


def text_of(spec: LossSpec) -> str:
    """A definition, numbers included; floats are written so that they are read as the same."""
    return f"{structure(spec)}{_SEPARATOR}{json.dumps(numbers_of(spec))}"


@lru_cache(maxsize=256)
def definition_of(text: str, numbers: tuple[float, ...] | None = None) -> Definition:
    """A definition with the options of its loss, as an operator takes it.

    Args:
        text: "ties conflicts validate pairs_at_once backend|definition", where the definition is of :func:`text_of`, or the
            :func:`structure` alone where the numbers come apart.
        numbers: the definition's, where they come apart.
    """
    options, layout, *within = text.split(_SEPARATOR)
    spec = spec_of(layout, json.loads(*within) if numbers is None else numbers)
    ties, conflicts, validate, pairs_at_once, backend = options.split()
    known: Any = ties, conflicts, {"True": True, "False": False, "None": None}[validate], int(pairs_at_once), backend
    return Definition(spec, *known)


@lru_cache(maxsize=256)
def shape_of(text: str) -> LossSpec:
    """A definition of the same structure, whose real numbers are the usual ones: what decides the shapes of an operator's results."""
    values = json.loads(text.split(_SEPARATOR)[1])
    kind = SPECS[values.pop("task")]
    known = {name: _with_numbers(value, iter(())) for name, value in values.items() if not isinstance(value, dict)}
    return kind(**known)


def _is_real(value: Any) -> bool:
    several = value if isinstance(value, tuple) else (value,)
    return bool(several) and all(isinstance(each, float) for each in several)


def _without_numbers(value: Any) -> Any:
    if not _is_real(value):
        return value
    return {"numbers": len(value) if isinstance(value, tuple) else None}


def _with_numbers(value: Any, left: Iterator[float]) -> Any:
    if isinstance(value, dict):
        return next(left) if value["numbers"] is None else tuple(next(left) for _ in range(value["numbers"]))
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
