"""The tasks that a case can be of, by name: each says which predictions and targets its cases have beside those of detection."""

from oracle.cases.case import Case
from oracle.cases.tasks.base import CaseTask
from oracle.cases.tasks.oriented import OrientedTask
from oracle.cases.tasks.pose import PoseTask
from oracle.cases.tasks.segment import SegmentTask

TASKS: dict[str, CaseTask] = {"detect": CaseTask(), "segment": SegmentTask(), "oriented": OrientedTask(), "pose": PoseTask()}


def task_of(case: Case) -> CaseTask:
    """Returns the task of a case, by the type of its definition."""
    return TASKS[case.spec.task]
