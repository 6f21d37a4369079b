"""The table of tasks: each has strategies, real batches and contenders of its own, and --task chooses among them."""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from oracle.cases.build import build
from oracle.cases.case import Case
from oracle.comparison.registry import shipped
from oracle.tools.options import DETECT
from oracle.tools.options import TASKS as NAMES
from properties.differential import plan
from properties.differential.fuzz.turn import kinds
from properties.differential.plugin import tasks_of
from properties.differential.shrink import shrunk, size
from properties.selfcheck.planted_faults import CATALOGUE
from properties.strategies.profiles import TINY
from properties.tasks import TASKS, task_of

ADDED = {"detect": set(), "segment": {"mask_coefficient", "proto"}, "oriented": {"angle"}, "pose": {"kpts"}}
every_task = pytest.mark.parametrize("name", NAMES)


def test_every_task_of_the_command_line_is_in_the_table() -> None:
    assert tuple(TASKS) == NAMES


@every_task
def test_what_is_drawn_is_of_the_task_and_can_be_built(name: str) -> None:
    @settings(max_examples=5, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(TASKS[name].cases(TINY))
    def drawn(case: Case) -> None:
        assert task_of(case) is TASKS[name]
        assert build(case).preds.keys() >= ADDED[name]
        assert Case.from_json(case.to_json()).digest == case.digest

    drawn()


@every_task
def test_real_batches_are_of_the_task_and_say_where_they_are_from(name: str) -> None:
    task = TASKS[name]
    pack, layout, batch, _, _, variant = task.real[-1]
    images = task.images(pack)
    case = next(iter(task.batches(images, layout=layout, batch=min(batch, 2), count=1, seed=0, imgsz=160, **variant.arguments)))
    assert task_of(case) is task
    assert case.workload.startswith(images.name)
    assert build(case).preds.keys() >= ADDED[name]
    assert all(len(column) == len(case.boxes) for column in case.extras.values())


@every_task
def test_contenders_and_faults_are_the_task_s(name: str) -> None:
    task, ours = TASKS[name], shipped(name)
    assert {*task.tied, *task.plain} <= set(ours)
    assert sum(fault.task == name for fault in CATALOGUE) >= 10


def test_shares_have_names_of_their_own_and_detection_s_are_as_they_were() -> None:
    shares: list[plan.GeneratedShare | plan.RealShare] = [*plan.generated(1.0, [], TASKS), *plan.real(1.0, [], tasks=TASKS)]
    names = Counter(share.name for share in shares)
    assert max(names.values()) == 1
    assert {"float64-cpu-tiny-0", "float32+autocast(bfloat16)-cpu-tiny-0", "coco-letterbox-4x4-float32-cpu-0"} <= set(names)
    assert all(share.name.startswith(f"{share.task}-") == (share.task != DETECT) for share in shares)
    assert [task for task, _, _ in kinds(["pose"])] == ["pose"] * len(kinds(["pose"]))


def options(**given_: object) -> argparse.Namespace:
    return argparse.Namespace(**{"task": [], "candidate": [], "labels": [], "reference": None} | given_)


def test_without_the_option_all_tasks_run_but_a_candidate_is_asked_about_detection() -> None:
    assert tasks_of(options()) == NAMES
    assert tasks_of(options(task=["pose", "segment", "pose"])) == ("segment", "pose")
    assert tasks_of(options(candidate=["mine:make"])) == (DETECT,)
    assert tasks_of(options(candidate=["mine:make"], task=["oriented"])) == ("oriented",)
    assert tasks_of(options(reference="8.3.0")) == tasks_of(options(labels=["boxes"])) == (DETECT,)
    assert tasks_of(options(labels=["boxes"], task=["segment"])) == ("segment",)


def test_releases_are_compared_in_detection_alone() -> None:
    with pytest.raises(ValueError, match="releases are compared in detection alone, which does not go with --task pose; leave one"):
        tasks_of(options(task=["detect", "pose"], reference="8.3.0"))


def test_a_smaller_batch_keeps_what_belongs_to_its_boxes() -> None:
    task = TASKS["pose"]
    case = next(iter(task.batches(task.images("coco"), batch=2, count=1, seed=1, imgsz=160)))
    points = dict(zip(case.boxes, case.extras["keypoints"], strict=True))
    kept = case.boxes[len(case.boxes) // 2]

    def fails(smaller: Case) -> bool:
        return any(dataclasses.replace(box, image=kept.image) == kept for box in smaller.boxes) and smaller.spec == case.spec

    least = shrunk(case, fails, 3.0)
    assert size(least) < size(case)
    assert [dataclasses.replace(box, image=kept.image) for box in least.boxes] == [kept]
    assert least.extras["keypoints"] == (points[kept],)
