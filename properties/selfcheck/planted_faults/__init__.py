"""Planted faults: wrong implementations, each one small departure from the definition, all of which the suite has to find.

A suite is worth what it catches. Each entry names the sentence of the definition that it breaks; ``nox -s faults`` puts the default
differential run to all of them, and fails on a survivor.
"""

from __future__ import annotations

from properties.selfcheck.planted_faults import assignment as assigning
from properties.selfcheck.planted_faults import constants, geometry, terms
from properties.selfcheck.planted_faults import corner_cases as narrow
from properties.selfcheck.planted_faults.fault import Fault

__all__ = ["CATALOGUE", "Fault"]

CATALOGUE: tuple[Fault, ...] = (*constants.ENTRIES, *geometry.ENTRIES, *assigning.ENTRIES, *terms.ENTRIES, *narrow.ENTRIES)
