"""Planted faults: wrong implementations, each with one small departure from the definition. The suite must find all of them.

Each entry names the sentence of the definition that it breaks, and its task. ``nox -s faults`` runs the task's default differential batches
on every fault, and fails when a fault is not found. The modules here are detection's, except for those with the name of another task.
"""

from __future__ import annotations

from properties.selfcheck.planted_faults import (
    assignment,
    constants,
    corner_cases,
    geometry,
    oriented,
    oriented_terms,
    pose,
    pose_terms,
    segment,
    terms,
)
from properties.selfcheck.planted_faults.fault import Fault

__all__ = ["CATALOGUE", "Fault"]

CATALOGUE: tuple[Fault, ...] = (
    *constants.ENTRIES,
    *geometry.ENTRIES,
    *assignment.ENTRIES,
    *terms.ENTRIES,
    *corner_cases.ENTRIES,
    *segment.ENTRIES,
    *oriented.ENTRIES,
    *oriented_terms.ENTRIES,
    *pose.ENTRIES,
    *pose_terms.ENTRIES,
)
