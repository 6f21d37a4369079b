"""How the definition has moved from release to release of the reference, as switches of :class:`~twinloss.LossSpec`.

Found by putting the same cases to the releases, one by one: the page of the release ladder tells what was seen. One thing is not followed:
release 8.0.100, which weighs an anchor with the sum of all soft targets, lets anchors of weight 0 count as well, where it picked any.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Definitions = tuple[tuple[str, Mapping[str, Any]], ...]
"""The first release of each definition, and how it differs from the newest one; oldest first."""

_UNTIL_84: dict[str, Any] = {"lengthen": "never", "distance_term": False}
DEFINITIONS: Mapping[str, Definitions] = {
    "detect": (
        ("8.0.100", _UNTIL_84 | {"anchor_weights": "sum"}),
        ("8.0.101", _UNTIL_84),
        ("8.4.0", {"lengthen": "first"}),
        ("8.4.128", {}),
    ),
    "segment": (
        ("8.1.0", _UNTIL_84 | {"semantic_term": False, "mask_grid": "prototypes"}),
        ("8.3.215", _UNTIL_84 | {"semantic_term": False, "mask_grid": "prototypes", "crop": "wrapped"}),
        ("8.4.0", {"lengthen": "first", "crop": "wrapped"}),
        ("8.4.34", {"lengthen": "first", "crop": "rounded"}),
        ("8.4.83", {"lengthen": "first"}),
        ("8.4.128", {}),
    ),
    "oriented": (
        ("8.3.242", _UNTIL_84 | {"term_floor": 0.0, "angle_term": False, "turned_targets": False}),
        ("8.4.0", {"lengthen": "never", "term_floor": 0.0}),
        ("8.4.39", {"lengthen": "first", "term_floor": 0.0}),
        ("8.4.84", {"lengthen": "first"}),
        ("8.4.128", {}),
    ),
    "pose": (
        ("8.1.0", _UNTIL_84),
        ("8.4.0", {"lengthen": "first", "keypoint_aware": False}),
        ("8.4.128", {"keypoint_aware": False}),
        ("8.4.180", {}),
    ),
}
"""By task."""


class Option(NamedTuple):
    """A number of a definition that not every release's loss takes: its usual value, and the first release whose loss takes it."""

    usual: Any
    first: str


_OPTIONS = {"topk": Option(10, "8.2.38"), "topk2": Option(None, "8.4.0"), "class_weights": Option(None, "8.4.37")}
OPTIONS: Mapping[str, Mapping[str, Option]] = {
    "detect": _OPTIONS,
    "segment": _OPTIONS | {"topk": Option(10, "8.4.0"), "mask_aware": Option(False, "8.4.190")},
    "oriented": _OPTIONS | {"topk": Option(10, "8.4.0"), "class_weights": Option(None, "8.4.68")},
    "pose": _OPTIONS | {"topk": Option(10, "8.4.0"), "generation": Option(1, "8.4.0"), "sigmas": Option(None, "8.4.117")},
}
"""By task, and by the name of the number."""


class Unfollowed(NamedTuple):
    """What some releases compute and no definition of the twin does.

    Attributes:
        task: of the loss.
        first: the first release with it.
        until: the first one without.
        why: description.
        concerns: whether it concerns a definition with these numbers.
    """

    task: str
    first: str
    until: str
    why: str
    concerns: Callable[[Mapping[str, Any]], bool]


def _any(_: Mapping[str, Any]) -> bool:
    return True


def _keeps_ten(numbers: Mapping[str, Any]) -> bool:
    return numbers.get("generation", 1) == 1 and numbers.get("topk", 10) > 10 and numbers.get("topk2") is None


UNFOLLOWED = (
    Unfollowed("segment", "8.4.0", "8.4.7", "takes class 0 for background in its semantic term", _any),
    Unfollowed("oriented", "8.0.235", "8.3.242", "drops small boxes of an oblong image by exchanged sides", _any),
    Unfollowed("oriented", "8.4.8", "8.4.39", "takes boxes with their short sides lengthened for the ground truth", _any),
    Unfollowed("oriented", "8.4.80", "8.4.84", "takes boxes with short sides for other ground truth", _any),
    Unfollowed("pose", "8.4.0", "8.4.1", "does not bound the errors in its likelihood", lambda numbers: bool(numbers.get("flow"))),
    Unfollowed(
        "segment", "8.4.180", "8.4.190", "assigns by masks in a way that was not examined", lambda numbers: bool(numbers.get("mask_aware"))
    ),
    Unfollowed("pose", "8.4.180", "8.4.190", "assigns by keypoints in another way", lambda numbers: numbers.get("generation") == 2),
    Unfollowed("pose", "8.4.0", "8.4.164", "keeps 10 anchors a box unless it is told topk2", _keeps_ten),
)
"""Found by experiment, as the definitions are."""


def switches(release: str, task: str = "detect") -> dict[str, Any]:
    """How a release's definition differs from the newest one; a release newer than any examined is taken to have the newest.

    Raises:
        ValueError: the release is not three numbers, or is older than any that was examined.
    """
    asked, known = number(release), DEFINITIONS[task]
    found = [how for first, how in known if number(first) <= asked]
    if not found:
        raise ValueError(
            f"release {release} is older than {known[0][0]}, the oldest whose {task} loss the twin follows; choose that or a newer one"
        )
    return dict(found[-1])


def refusal(release: str, numbers: Mapping[str, Any], task: str = "detect") -> str | None:
    """Why no definition of the twin with these numbers is a release's, or ``None``."""
    for name, option in OPTIONS[task].items():
        if numbers.get(name, option.usual) != option.usual and number(release) < number(option.first):
            return f"release {release} cannot be told {name}; the first that can is {option.first}"
    return unfollowed(release, numbers, task)


def unfollowed(release: str, numbers: Mapping[str, Any], task: str) -> str | None:
    """What a release computes with these numbers of a definition that no definition of the twin does, or ``None``."""
    for one in UNFOLLOWED:
        if one.task == task and one.concerns(numbers) and number(one.first) <= number(release) < number(one.until):
            return f"the {task} loss of release {release} {one.why}, as no definition of the twin does; {one.until} no longer does"
    return None


def number(release: str) -> tuple[int, ...]:
    """A release as numbers, which compare as releases do.

    Raises:
        ValueError: it is not three numbers.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", release):
        raise ValueError(f"release {release!r} is not three numbers with dots between, such as 8.3.253")
    return tuple(map(int, release.split(".")))


@dataclass(frozen=True)
class Release:
    """The release that a model comes from.

    Attributes:
        package: top-level package of the model's class.
        version: three numbers, or ``None`` where the package does not say.
    """

    package: str
    version: str | None

    def __str__(self) -> str:
        return f"{self.package} {self.version or 'of unknown version'}"

    def definition(self, task: str = "detect") -> dict[str, Any]:
        """The switches of its definition of a task's loss; those of the newest where its version is unknown.

        Raises:
            ValueError: it is older than any that was examined.
        """
        return {} if self.version is None else switches(self.version, task)

    def unfollowed(self, numbers: Mapping[str, Any], task: str) -> str | None:
        """What it computes with these numbers of a definition that no definition of the twin does, or ``None``."""
        return None if self.version is None else unfollowed(self.version, numbers, task)


def release_of(model: Any, named: str | None = None) -> Release:
    """The release that a model comes from: the version of the package in which the family of its class begins.

    A class that somebody derives from a release's own therefore counts as that release's. Nothing is imported.

    Args:
        model: any object; its class, or one that this derives from, may have ``init_criterion``.
        named: the version, where the user says it.

    Raises:
        ValueError: ``named`` is not three numbers.
    """
    family = [base for base in type(model).__mro__ if "init_criterion" in vars(base)] or [type(model)]
    package = root(family[-1])
    if named is not None:
        number(named)
        return Release(package, named)
    said = re.match(r"\d+\.\d+\.\d+", str(getattr(sys.modules.get(package), "__version__", "")) or _installed(package))
    return Release(package, said[0] if said else None)


def root(kind: type) -> str:
    """Top-level package in which a class is defined."""
    return kind.__module__.split(".", maxsplit=1)[0]


def _installed(package: str) -> str:
    """Version of the distribution that brought a package, or nothing: a package can be called otherwise than what it came with."""
    names = importlib.metadata.packages_distributions().get(package, [])
    return importlib.metadata.version(names[0]) if names else ""
