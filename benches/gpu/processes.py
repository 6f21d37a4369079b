"""Processes that the checks of a GPU run start."""

from __future__ import annotations

import os

from oracle.tools.programs import ROOT

MOST = 12  # Each process has a context of its own on the GPU.


def workers_at_once() -> int:
    """Returns how many workers pytest starts."""
    return min(os.cpu_count() or 1, MOST)


def environment(**variables: str) -> dict[str, str]:
    """Returns this process's environment with the project on Python's path, and with these variables."""
    paths = filter(None, (str(ROOT / "impl"), str(ROOT), os.environ.get("PYTHONPATH")))
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | variables
