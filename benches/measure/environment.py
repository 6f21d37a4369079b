"""Versions, machine and revision of a measurement."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

from benches.plan.malloc_settings import c_library

ROOT = Path(__file__).resolve().parents[2]
REFERENCE_NAMES = ("ultralytics-opencv-headless", "ultralytics")


def versions() -> dict[str, str]:
    """Returns the versions of the packages and the number of threads in the calling process."""
    import torch

    import twinloss

    installed = {distribution.name: distribution.version for distribution in importlib.metadata.distributions()}
    return {
        "twinloss": getattr(twinloss, "__version__", "unknown"),
        "ultralytics": next((installed[name] for name in REFERENCE_NAMES if name in installed), "not installed"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
    }


@cache
def machine() -> dict[str, str]:
    """Returns processor, cores, GPU, operating system and C library."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": f"{_processor()}, {cores} cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.release()}, {c_library()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in lines)
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    name = fields.get("model name", platform.machine())
    family, model = fields.get("cpu family"), fields.get("model")
    return f"{name} (family {family}, model {model})" if family and model else name


def commit() -> str:
    """Returns the checkout's revision, with a plus sign when files differ from it; empty outside of a repository."""
    try:
        revision = _git("rev-parse", "--short=12", "HEAD")
        return revision + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True).stdout.strip()


def now() -> str:
    """Returns the time in UTC, to the second."""
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
