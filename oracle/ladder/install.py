"""Installs each release into a folder of its own, and the small packages that some releases need into another.

The cache is ``TWINLOSS_LADDER_CACHE``, or ``twinloss/ladder`` under the user's cache folder. Every command names a target
folder, so that nothing is installed into the suite's environment. torch, numpy and OpenCV come from there, the same for every release.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from oracle.ladder.releases import NAME
from oracle.tools.programs import HangError, run

# Modules that an import may miss, and their packages. Other modules are not installed: the row then names the missing one.
DEPENDENCIES = {
    "cpuinfo": "py-cpuinfo",
    "hub_sdk": "hub-sdk",
    "pandas": "pandas",
    "pkg_resources": "setuptools<81",
    "polars": "polars",
    "psutil": "psutil",
    "requests": "requests",
    "scipy": "scipy",
    "seaborn": "seaborn",
    "sentry_sdk": "sentry-sdk",
    "thop": "ultralytics-thop",
    "tqdm": "tqdm",
}

INFORMATIVE = ("there is no version", "no matching distribution", "error")


class InstallError(Exception):
    """A release, or what it needs, could not be installed; the message is the installer's last line."""


def cache_folder() -> Path:
    """Returns the folder of releases and answers."""
    named = os.environ.get("TWINLOSS_LADDER_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(named) if named else (Path(base) if base else Path.home() / ".cache") / "twinloss" / "ladder"


def release_folder(release: str, cache: Path) -> Path:
    """Returns the release's folder; installs the release if needed.

    Raises:
        InstallError: the release could not be installed.
    """
    folder = cache / "releases" / release
    if not (folder / NAME).is_dir():
        install(f"{NAME}=={release}", folder)
    return folder


def dependency_folder(cache: Path) -> Path:
    """Returns the folder of small packages, which is last on every release's path, so that the suite's packages come first."""
    folder = cache / "dependencies"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def add_dependency(module: str, cache: Path) -> None:
    """Install the package of a module that an import missed.

    Raises:
        InstallError: the module is not among the known small dependencies, or has been added already, or could not be installed.
    """
    root = module.split(".", maxsplit=1)[0]
    if root not in DEPENDENCIES:
        raise InstallError(f"needs the module {module!r}, which is not among the ladder's small dependencies")
    done = dependency_folder(cache) / f".{root}-added"
    if done.exists():
        raise InstallError(f"needs the module {module!r}, which {DEPENDENCIES[root]} did not bring")
    install(DEPENDENCIES[root], dependency_folder(cache))
    done.touch()


def installer() -> list[str]:
    """Returns the install command: uv where it is available, for its cache, else pip."""
    uv = shutil.which("uv")
    return [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]


def install(requirement: str, folder: Path) -> None:
    """Install one package, without its dependencies, into a folder, completely or not at all.

    Raises:
        InstallError: the installer failed, or does not exist.
    """
    fresh = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    command = [*installer(), "--quiet", "--no-deps", "--target", str(fresh), requirement]
    try:
        done = run(command, cwd=None, idle_s=300)
    except (OSError, HangError) as error:
        raise InstallError(f"{requirement} could not be installed: {type(error).__name__}") from error
    if done.returncode:
        raise InstallError(f"{requirement} could not be installed: {reason(done.stderr)}")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(fresh, folder, dirs_exist_ok=True)
    shutil.rmtree(fresh)


def reason(text: str) -> str:
    """Returns the line of an installer's error output that names the error, without addresses."""
    lines = [line.strip(" ×╰─▶│") for line in text.splitlines() if line.strip()]
    informative = [line for line in lines if any(words in line.lower() for words in INFORMATIVE)]
    words = (informative or lines or ["no reason was given"])[0].split()
    return " ".join(word for word in words if "://" not in word)[:160]
