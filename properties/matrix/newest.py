"""The newest versions of the packages of the matrix, asked of the package index through its client."""

from __future__ import annotations

import re
import shutil
import sys

from oracle.tools.programs import HangError, run
from properties.matrix.packages import PACKAGES, Package


def newest_packages() -> list[Package]:
    """Returns each package at its newest version; at the pinned one where the index does not answer."""
    return [package.at(newest_version(package.name) or package.version) for package in PACKAGES]


def newest_version(name: str) -> str:
    """Returns the newest version of a package, pre-releases included; empty where the index does not answer."""
    uv = shutil.which("uv")
    for client in ([sys.executable, "-m", "pip"], *([[uv, "tool", "run", "pip"]] if uv else [])):
        try:
            done = run([*client, "index", "versions", "--pre", name], cwd=None, idle_s=120)
        except HangError:
            continue
        found = re.search(r"Available versions: ([^,\s]+)", done.stdout)
        if done.returncode == 0 and found:
            return found[1]
    return ""
