"""The published releases, and the default set of the ladder."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from oracle.tools.programs import HangError, run

NAME = "ultralytics"
KNOWN = Path("reports", "ladder", "releases.txt")
SERIES = {
    "8.0": (100, 120, 140, 160, 180, 200, 220, 239),
    "8.1": (0, 20, 47),
    "8.2": (0, 30, 60, 103),
    "8.3": (0, 40, 80, 120, 160, 200, 230, 253),
    "8.4": (0, 10, 20, 40, 60, 80, 100, 120, 140, 160, 180, 190),
}
DEFAULT = tuple(f"{series}.{patch}" for series, patches in SERIES.items() for patch in patches)


def order(release: str) -> tuple[int, ...]:
    """Returns the sort key of a release.

    Raises:
        ValueError: it is not three numbers separated by dots.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", release):
        raise ValueError(f"{release!r} is not a release: give three numbers, such as 8.3.253")
    return tuple(map(int, release.split(".")))


def published(known: Path = KNOWN) -> tuple[str, ...]:
    """Returns every release that the package index lists, oldest first; those of the committed list when the index is unreachable."""
    listed = ask_index()
    if not listed and known.exists():
        listed = known.read_text().split()
    return tuple(sorted(set(listed) | set(DEFAULT), key=order))


def ask_index() -> list[str]:
    """Returns the index's list by the suite's pip, or by a pip that uv runs; empty when neither succeeds."""
    uv = shutil.which("uv")
    clients = [[sys.executable, "-m", "pip"], *([[uv, "tool", "run", "pip"]] if uv else [])]
    for client in clients:
        command = [*client, "index", "versions", NAME]
        try:
            done = run(command, cwd=None, idle_s=120)
        except HangError:
            continue
        found = re.search(r"Available versions: (.+)", done.stdout)
        if done.returncode == 0 and found:
            return [release for release in found[1].split(", ") if re.fullmatch(r"8\.\d+\.\d+", release)]
    return []


def between(first: str, last: str, releases: Sequence[str]) -> tuple[str, ...]:
    """Returns the releases from ``first`` to ``last``, both included, oldest first."""
    low, high = sorted((order(first), order(last)))
    return tuple(sorted({r for r in (*releases, first, last) if low <= order(r) <= high}, key=order))
