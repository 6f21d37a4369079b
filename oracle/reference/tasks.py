"""The reference's loss of each task, by the task's name."""

from __future__ import annotations

from oracle.reference.criterion import ReferenceCriterion
from oracle.reference.oriented import ReferenceOriented

REFERENCES: dict[str, type[ReferenceCriterion]] = {"detect": ReferenceCriterion, "oriented": ReferenceOriented}
