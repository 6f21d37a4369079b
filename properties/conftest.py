"""Hypothesis profiles: the number of examples of a run, and whether it repeats them. This file does not import torch.

``default`` draws new examples in each run. ``ci``, which is the default if the variable CI is set, repeats its examples, so that only a
change makes a run fail. ``quick`` draws 10 examples, ``nightly`` 2,000. ``sanitize`` is for ``nox -s sanitize``. Choose one with
``--hypothesis-profile``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Batches are large draws, and the exact criterion is slow: Hypothesis must report neither as a health problem.
COMMON = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

settings.register_profile("default", COMMON, max_examples=100)
settings.register_profile("ci", COMMON, max_examples=100, derandomize=True)
settings.register_profile("quick", COMMON, max_examples=10)
settings.register_profile("nightly", COMMON, max_examples=2000)
settings.register_profile("sanitize", COMMON, max_examples=200)
os.environ.setdefault("TWINLOSS_BUILD", "1")  # a checkout holds no compiled kernels; programs that tests start inherit this

settings.load_profile("ci" if os.environ.get("CI") else "default")


DIFFERENTIAL = Path(__file__).with_name("differential")
HANGS = 3600.0
"""Seconds by the clock after which a test hangs: more than a busy machine needs. Programs that tests start are judged by processor time
(oracle/tools/programs.py)."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Limits each test to HANGS, but for runs of a candidate, each of whose calls has its own limit.

    It is no setting of pyproject.toml, whose value is a text to one version of pytest-timeout and a number to another.
    """
    if getattr(config.option, "timeout", 0) is None and not getattr(config.option, "candidate", None):
        config.option.timeout = HANGS


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignores the differential run, unless its plugin is active."""
    return True if collection_path == DIFFERENTIAL and not config.pluginmanager.hasplugin("properties.differential.plugin") else None
