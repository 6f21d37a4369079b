"""The third-party packages of the matrix at pinned versions, each installed into a folder of its own, outside the suite's environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oracle.ladder.install import cache_folder, install

ADAPTERS = Path(__file__).parent / "adapters"


@dataclass(frozen=True)
class Package:
    """A package of the package index.

    Attributes:
        name: its name there.
        version: the pinned version.
        licence: its licence; nothing of it is in this repository.
        adapter: module of :mod:`properties.matrix.adapters` that makes a candidate of it.
        also: further pinned packages that its loss imports; heavier ones are not installed, and have stand-ins in the adapter.
    """

    name: str
    version: str
    licence: str
    adapter: str
    also: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        """Name of its column."""
        return f"{self.name}@{self.version}"

    def at(self, version: str) -> Package:
        """Returns the package at another version."""
        return Package(self.name, version, self.licence, self.adapter, self.also)


PACKAGES = (
    Package("libreyolo", "1.6.0", "MIT", "adapt_libreyolo"),
    Package(
        "kyolo",
        "0.1.5",
        "Apache-2.0",
        "adapt_kyolo",
        ("keras==3.15.1", "absl-py==2.5.1", "namex==0.1.0", "h5py==3.16.0", "optree==0.20.0", "ml-dtypes==0.6.0"),
    ),
    Package("yolo9", "1.0.18", "copyleft, only run", "adapt_yolo9"),
    Package("luxonis-train", "0.6.0", "Apache-2.0", "adapt_luxonis_train"),
    Package("lucid-yolo", "0.5.0.dev2", "Apache-2.0", "adapt_lucid_yolo"),
    Package("mmyolo", "0.6.0", "copyleft, only run", "adapt_mmyolo", ("mmdet==3.3.0",)),
)


def folders(package: Package, cache: Path | None = None) -> tuple[str, ...]:
    """Returns the folders of a package and of what it imports; installs what is missing.

    Raises:
        InstallError: one of them could not be installed.
    """
    cache = cache or cache_folder()
    wanted = (f"{package.name}=={package.version}", *package.also)
    found = []
    for requirement in wanted:
        folder = cache / "packages" / requirement.replace("==", "-")
        if not folder.is_dir():
            install(requirement, folder)
        found.append(str(folder))
    return (str(ADAPTERS), *found)
