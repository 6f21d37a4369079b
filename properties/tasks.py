"""The tasks of the suite: what is drawn, read and compared of each. Every run of the suite reads this table.

To plug in a task, add its record to :data:`TASKS`. The record names

- ``cases``: a function of a :class:`~properties.strategies.profiles.Profile` that returns the strategy of its batches, from
  ``properties/strategies/<task>.py``;
- ``images`` and ``batches``: the loader of its packs, from :mod:`oracle.cases.workloads.task_packs`, and the function that makes batches of
  them; ``real`` lists which;
- ``smaller``: smaller batches of what this task alone has, such as fewer prototypes, for :mod:`properties.differential.shrink`.

Its contenders come from :func:`oracle.comparison.registry.shipped`; its planted faults (:class:`Fault` with ``task="<task>"``) stand in
``properties/selfcheck/planted_faults/<task>.py`` and join ``CATALOGUE``. The differential run, its replays, ``fuzz``, ``faults`` and
``false_alarm`` then take the task with ``--task``, and without the option run it beside the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from hypothesis import strategies as st

from oracle.cases.case import Case, Setting
from oracle.cases.workloads import LabelledImages, open_images, real_batches
from oracle.cases.workloads.task_batches import task_batches
from oracle.cases.workloads.task_packs import keypoint_images, mask_images, oriented_images
from oracle.comparison.compare import STAGES
from oracle.tools.options import DETECT
from properties.strategies import cases
from properties.strategies.oriented import oriented_cases
from properties.strategies.oriented import smaller as smaller_oriented
from properties.strategies.pose import pose_cases, smaller_pose
from properties.strategies.profiles import Profile
from properties.strategies.segment import segment_batches, segment_cases
from properties.strategies.segment import smaller as smaller_segment

FLOAT32, FLOAT16 = Setting("float32"), Setting("float16")
HALF = (Setting("bfloat16"), Setting("float32", autocast="bfloat16"))
HALF_PRECISION = (
    (FLOAT16, "tiny", 100),
    (Setting("bfloat16"), "tiny", 100),
    (Setting("float32", autocast="bfloat16"), "tiny", 60),
    (Setting("bfloat16", autocast="bfloat16"), "tiny", 30),
)
"""Generated batches in half precision of each task beside detection: setting, size profile and number."""


class Variant(NamedTuple):
    """A definition or head other than the default: its name, and the arguments of :attr:`Task.batches` that make it."""

    name: str = ""
    arguments: Mapping[str, Any] = MappingProxyType({})


PLAIN = Variant()


class Real(NamedTuple):
    """Batches of real ground truth: pack, layout, images per batch, number of batches, settings, variant."""

    pack: str
    layout: str
    images: int
    batches: int
    settings: tuple[Setting, ...]
    variant: Variant = PLAIN


def no_smaller(_: Case) -> Iterator[Case]:
    """Yields nothing: the task has no numbers of its own to make smaller."""
    yield from ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the suite does with one task.

    Attributes:
        name: name of the task, as in ``spec.task`` and ``--task``.
        cases: strategy of generated batches of a size profile.
        images: opens a pack of labelled images by its name.
        batches: batches of labelled images; called with ``layout``, ``batch`` (images), ``count``, ``seed`` and a variant's arguments.
        real: the real batches of a run.
        definition: size profile and number of batches in float64, which check the definition.
        arithmetic: setting, size profile and number of batches in the working dtypes, which check the arithmetic.
        tied: contenders in float64.
        plain: contenders in the working dtypes and on real batches; on a CPU "twin" runs the fastest backend.
        stages: the compared stages.
        smaller: yields batches that are smaller in one respect that this task alone has.
    """

    name: str
    cases: Callable[[Profile], st.SearchStrategy[Case]]
    images: Callable[[str], LabelledImages]
    batches: Callable[..., Iterator[Case]]
    real: tuple[Real, ...]
    definition: tuple[tuple[str, int], ...]
    arithmetic: tuple[tuple[Setting, str, int], ...]
    tied: tuple[str, ...] = ("twin", "twin-reference-ties", "reference")
    plain: tuple[str, ...] = ("twin", "twin-torch", "reference")
    stages: tuple[str, ...] = STAGES
    smaller: Callable[[Case], Iterable[Case]] = no_smaller

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The settings of generated batches on the CPU, float64 first."""
        return tuple(dict.fromkeys((Setting("float64"), *(setting for setting, _, _ in self.arithmetic))))


_DETECT = Task(
    name=DETECT,
    cases=cases,
    images=open_images,
    batches=real_batches,
    real=(
        Real("coco", "letterbox", 4, 64, (FLOAT32,)),
        Real("coco", "letterbox", 16, 8, (FLOAT32, FLOAT16)),
        Real("coco", "letterbox", 4, 16, HALF),
        Real("coco", "mosaic", 4, 32, (FLOAT32,)),
        Real("coco", "rect", 4, 16, (FLOAT32,)),
        Real("gwhd", "letterbox", 4, 32, (FLOAT32,)),
        Real("gwhd", "crowded", 4, 8, (FLOAT32, FLOAT16)),
        Real("bccd", "letterbox", 4, 32, (FLOAT32,)),
    ),
    definition=(("tiny", 1000), ("medium", 250)),
    arithmetic=(
        (FLOAT32, "tiny", 500),
        (FLOAT32, "medium", 125),
        (FLOAT16, "tiny", 200),
        (Setting("bfloat16"), "tiny", 200),
        (Setting("float32", autocast="bfloat16"), "tiny", 125),
        (Setting("bfloat16", autocast="bfloat16"), "tiny", 50),
        (Setting("float16", autocast="float16"), "tiny", 50),
    ),
)

_SEGMENT = Task(
    name="segment",
    cases=segment_cases,
    images=mask_images,
    batches=segment_batches,
    real=(
        Real("coco", "letterbox", 4, 30, (FLOAT32,)),
        Real("coco", "mosaic", 4, 10, (FLOAT32, FLOAT16)),
        Real("lvis", "rect", 4, 20, (FLOAT32,)),
        Real("taco", "letterbox", 4, 10, HALF),
        Real("uavvaste", "letterbox", 4, 20, (FLOAT32,)),
        Real("nuclei", "letterbox", 2, 8, (FLOAT32,)),
        Real("nuclei", "crowded", 1, 4, (FLOAT32,)),
    ),
    definition=(("tiny", 700), ("medium", 80)),
    arithmetic=(
        (FLOAT32, "tiny", 450),
        (FLOAT32, "medium", 50),
        *HALF_PRECISION,
    ),
    smaller=smaller_segment,
)

_ORIENTED = Task(
    name="oriented",
    cases=oriented_cases,
    images=oriented_images,
    batches=partial(task_batches, "oriented"),
    real=(
        Real("hit-uav", "letterbox", 4, 40, (FLOAT32,)),
        Real("hit-uav", "mosaic", 4, 12, (FLOAT32, FLOAT16)),
        Real("nuclei", "letterbox", 4, 8, (FLOAT32,)),
        Real("nuclei", "crowded", 4, 2, (FLOAT32,)),
        Real("taco", "rect", 4, 24, (FLOAT32,)),
        Real("taco", "letterbox", 4, 16, HALF),
    ),
    definition=(("tiny", 1000), ("medium", 150)),
    arithmetic=(
        (FLOAT32, "tiny", 650),
        (FLOAT32, "medium", 80),
        *HALF_PRECISION,
    ),
    smaller=smaller_oriented,
)

_SECOND_GENERATION = Variant("second", {"numbers": {"generation": 2, "flow": True, "reg_max": 1}})

_POSE = Task(
    name="pose",
    cases=pose_cases,
    images=keypoint_images,
    batches=partial(task_batches, "pose"),
    real=(
        Real("coco", "letterbox", 4, 32, (FLOAT32,)),
        Real("coco", "letterbox", 4, 32, (FLOAT32,), _SECOND_GENERATION),
        Real("coco", "crowded", 4, 8, (FLOAT32, FLOAT16), _SECOND_GENERATION),
        Real("coco", "mosaic", 4, 12, HALF),
        Real("mouse", "letterbox", 4, 8, (FLOAT32,)),
        Real("mouse", "letterbox", 4, 8, (FLOAT32,), _SECOND_GENERATION),
    ),
    definition=(("tiny", 900), ("medium", 80)),
    arithmetic=(
        (FLOAT32, "tiny", 550),
        (FLOAT32, "medium", 50),
        *HALF_PRECISION,
    ),
    smaller=smaller_pose,
)

TASKS: dict[str, Task] = {task.name: task for task in (_DETECT, _SEGMENT, _ORIENTED, _POSE)}
"""The tasks by name, in the order in which runs take them."""


def task_of(case: Case) -> Task:
    """Returns the task of a batch."""
    return TASKS[case.spec.task]
