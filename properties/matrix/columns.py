"""The columns of the matrix: third-party packages, releases of the reference, and the twin, each as a contender."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oracle.cases.case import Inputs, Setting
from oracle.comparison.registry import CandidateError, load_isolated, shipped
from oracle.contract.contender import Contender
from oracle.isolated.candidate_process import CandidateSource
from oracle.ladder.contender import ReleaseCriterion, ReleaseError, open_release
from oracle.ladder.install import InstallError
from properties.matrix.packages import PACKAGES, Package, folders
from twinloss import LossSpec
from twinloss.release_definitions import refusal

REFERENCE = "ultralytics"
RELEASES = (
    "8.0.100", "8.0.180", "8.1.0", "8.2.0", "8.2.103", "8.3.0", "8.3.120", "8.3.253", "8.4.0", "8.4.40", "8.4.100", "8.4.160",
)  # fmt: skip
"""Releases of the reference that have a column: at least one of each definition that the ladder found."""

TIME_LIMIT = 60.0


class CannotRunError(RuntimeError):
    """The implementation of a column cannot be installed or imported; the message says why."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        package, version, licence: what it is.
        kind: ``"package"``, ``"release"`` or ``"twin"``.
        open: returns it as a contender.
    """

    package: str
    version: str
    licence: str
    kind: str
    open: Callable[[], Contender]

    @property
    def name(self) -> str:
        """Package and version."""
        return f"{self.package}@{self.version}"


def all_columns(packages: Sequence[Package] = PACKAGES, releases: Sequence[str] = RELEASES) -> list[Column]:
    """Returns every column: the twin, the packages, the releases from the newest on."""
    twin = shipped()["twin"]
    version = twin.version.partition(" ")[2]
    return [
        Column("twinloss", version, "Apache-2.0", "twin", lambda: twin),
        *(Column(one.name, one.version, one.licence, "package", functools.partial(open_package, one)) for one in packages),
        *(
            Column(REFERENCE, release, "copyleft, only run", "release", functools.partial(open_reference, release))
            for release in reversed(releases)
        ),
    ]


def open_package(package: Package) -> Contender:
    """Returns a package as a contender in a process of its own.

    Raises:
        CannotRunError: it cannot be installed or imported.
    """
    try:
        source = CandidateSource(package.adapter, "make", folders(package))
        return load_isolated(f"{package.adapter}:make", TIME_LIMIT, source)
    except (InstallError, CandidateError) as error:
        raise CannotRunError(str(error)) from error


def open_reference(release: str) -> Contender:
    """Returns a release of the reference as a contender, asked with the newest definition.

    Raises:
        CannotRunError: it cannot be installed or imported.
    """
    try:
        open_release(release)
    except ReleaseError as error:
        raise CannotRunError(str(error)) from error
    factory = functools.partial(ReleaseCriterion, release=release)
    return Contender("reference", f"{REFERENCE} {release}", factory, declines=functools.partial(_declines, release))


def _declines(release: str, spec: LossSpec, _: Inputs, __: Setting) -> str | None:
    usual = LossSpec(num_classes=1)
    fixed = next((name for name in ("alpha", "beta") if getattr(spec, name) != getattr(usual, name)), None)
    return f"it has no option for {fixed}" if fixed else refusal(release, vars(spec))
