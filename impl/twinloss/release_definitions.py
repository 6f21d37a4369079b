"""How the definition has moved from release to release of the reference, as switches of :class:`~twinloss.LossSpec`.

Found by putting the same cases to the releases, one by one: the page of the release ladder tells what was seen. One thing is not followed:
release 8.0.100, which weighs an anchor with the sum of all soft targets, lets anchors of weight 0 count as well, where it picked any.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The first release of each definition, and how it differs from the newest one. Oldest first.
DEFINITIONS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("8.0.100", {"lengthen": "never", "distance_term": False, "anchor_weights": "sum"}),
    ("8.0.101", {"lengthen": "never", "distance_term": False}),
    ("8.4.0", {"lengthen": "first"}),
    ("8.4.128", {}),
)
# Of oriented boxes, those that were examined: what changed between two of them is taken to have changed with the second. Before 8.4.0 there
# is no angle term, and distributions learn the sides of the box that is not turned (oriented spec section 14).
ORIENTED_DEFINITIONS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("8.4.0", {"lengthen": "never", "term_floor": 0.0}),
    ("8.4.60", {"lengthen": "first", "term_floor": 0.0}),
    ("8.4.128", {}),
)
# What a release's loss can be told at all, with the first release that can.
OPTIONS = {"topk": "8.2.38", "topk2": "8.4.0", "class_weights": "8.4.37"}


def switches(release: str, task: str = "detect") -> dict[str, Any]:
    """How a release's definition differs from the newest one; a release newer than any examined is taken to have the newest.

    Raises:
        ValueError: the release is not three numbers, or is older than any that was examined.
    """
    asked, known = number(release), ORIENTED_DEFINITIONS if task == "oriented" else DEFINITIONS
    found = [how for first, how in known if number(first) <= asked]
    if not found:
        raise ValueError(f"release {release} is older than {known[0][0]}, the oldest that was examined; choose that or a newer one")
    return dict(found[-1])


def missing_option(release: str, told: Mapping[str, Any]) -> str | None:
    """Why a release's loss cannot be told these numbers of a definition, or ``None``."""
    usual = {"topk": 10, "topk2": None, "class_weights": None}
    for name, first in OPTIONS.items():
        if told.get(name, usual[name]) != usual[name] and number(release) < number(first):
            return f"release {release} cannot be told {name}; the first that can is {first}"
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

    @property
    def definition(self) -> dict[str, Any]:
        """The switches of its definition; those of the newest where its version is unknown.

        Raises:
            ValueError: it is older than any that was examined.
        """
        return {} if self.version is None else switches(self.version)


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
