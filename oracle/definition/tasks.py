"""The definition of each task, by its name."""

from __future__ import annotations

from oracle.definition.criterion import ExactCriterion

DEFINITIONS: dict[str, type[ExactCriterion]] = {"detect": ExactCriterion}
