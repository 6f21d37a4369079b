"""Planted faults: wrong implementations, each one small departure from the definition, all of which the suite has to find.

A suite is worth what it catches. Each entry names the sentence of the definition that it breaks; ``nox -s faults`` puts the default
differential run to all of them, and fails on a survivor.
"""

from __future__ import annotations

from properties.faults import assigning, constants, geometry, narrow, terms
from properties.faults.record import Fault

__all__ = ["CATALOGUE", "Fault"]

CATALOGUE: tuple[Fault, ...] = (*constants.ENTRIES, *geometry.ENTRIES, *assigning.ENTRIES, *terms.ENTRIES, *narrow.ENTRIES)
