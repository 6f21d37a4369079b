"""Hypothesis profiles, and nothing that needs torch: how many examples a run draws, and whether it draws the same ones again.

``default`` draws anew each time; ``ci``, taken by itself where the variable CI is set, draws the same examples every time, so that a red
run is a change's own; ``quick`` is for the minute between two edits; ``nightly`` looks for what the others have not found;
``sanitize`` is that of ``nox -s sanitize``. Name one with ``--hypothesis-profile``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Batches are large draws, and the exact criterion is slow by design: neither time is a fault of the strategy.
COMMON = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

settings.register_profile("default", COMMON, max_examples=100)
settings.register_profile("ci", COMMON, max_examples=100, derandomize=True)
settings.register_profile("quick", COMMON, max_examples=10)
settings.register_profile("nightly", COMMON, max_examples=2000)
settings.register_profile("sanitize", COMMON, max_examples=200)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The differential run has a plugin of its own, and is no part of the tests."""
    return True if collection_path.name == "differential" and not config.pluginmanager.hasplugin("properties.differential.plugin") else None
