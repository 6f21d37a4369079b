"""Options that several command lines share, declared once for argparse's parsers and for pytest's."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DETECT = "detect"
TASKS = (DETECT, "segment", "oriented", "pose")
"""The tasks, in the order in which runs take them."""


@dataclass(frozen=True)
class Option:
    """An option of a command line: its names, and the keywords that ``add_argument`` and pytest's ``addoption`` take."""

    names: tuple[str, ...]
    keywords: Mapping[str, Any]

    @classmethod
    def of(cls, *names: str, **keywords: Any) -> Option:
        """Returns the option of these names and keywords."""
        return cls(names, keywords)

    def add_to(self, declare: Callable[..., object], **changed: Any) -> None:
        """Declares the option by ``parser.add_argument`` or ``group.addoption``, with some keywords changed."""
        declare(*self.names, **{**self.keywords, **changed})


TASK = Option.of("--task", action="append", choices=TASKS, default=[], help="a task of the loss; repeatable (default: all)")
CANDIDATE = Option.of("--candidate", action="append", default=[], metavar="PACKAGE.MODULE:FACTORY", help="take this contender; repeatable")
IN_PROCESS = Option.of(
    "--in-process", action="store_true", help="run candidates in the judge's process: faster, and for code that is trusted alone"
)
LABELS = Option.of(
    "--labels",
    action="append",
    default=[],
    metavar="PATH",
    help="real boxes: a COCO instances_*.json, a folder of YOLO labels, a dataset's root or its data.yaml; repeatable",
)


def _keypoint_shape(text: str) -> tuple[int, int]:
    """Returns K and 2 or 3 of a text such as ``17,3``."""
    if not (named := re.fullmatch(r"\[?\s*([1-9]\d{0,3})\s*,\s*([23])\s*\]?", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape of keypoints; write K,2 or K,3: how many, and numbers for each")
    return int(named[1]), int(named[2])


KPT_SHAPE = Option.of(
    "--kpt-shape",
    type=_keypoint_shape,
    metavar="K,3",
    help="keypoints of a line of --labels, and numbers for each, where no data.yaml says it",
)
QUIET = Option.of("-q", "--quiet", action="store_true", help="do not show the progress")


def chosen_tasks(named: Sequence[str], known: Sequence[str] = TASKS) -> tuple[str, ...]:
    """Returns the tasks that ``--task`` named, each once and in the order of ``known``; all that are known if it named none."""
    return tuple(task for task in known if task in named or not named)
