"""The catalogue of wrong definitions: departures from the definition that implementations of this loss have.

Each is a :class:`~oracle.definition.variant.Variant`: some steps of the definition in float64 replaced. They are one chapter a module, and
may be combined. :mod:`oracle.comparison.explanations` asks them what a candidate computes.
"""

from __future__ import annotations

import functools

from oracle.comparison.wrong_definitions import assignment, candidates, classification, gradients, inputs, numbers, overlaps, terms
from oracle.definition.variant import Variant

__all__ = ["catalogue", "named"]

CHAPTERS = (numbers, inputs, candidates, overlaps, assignment, classification, terms, gradients)


def catalogue(task: str = "detect") -> tuple[Variant, ...]:
    """Returns every wrong definition of a task, always the same objects; their names are unique within it."""
    return tuple(variant for variant in _all() if not variant.tasks or task in variant.tasks)


@functools.cache
def _all() -> tuple[Variant, ...]:
    return tuple(variant for chapter in CHAPTERS for variant in chapter.catalogue())


def named(name: str, task: str = "detect") -> Variant:
    """Returns the wrong definition with this name.

    Raises:
        KeyError: there is none.
    """
    return next((variant for variant in catalogue(task) if variant.name == name), None) or _unknown(name)


def _unknown(name: str) -> Variant:
    raise KeyError(f"no wrong definition is called {name!r}; catalogue() lists them")
