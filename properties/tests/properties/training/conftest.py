"""A small data set for the trainings of this folder, which need the reference's trainer."""

from __future__ import annotations

from pathlib import Path

import pytest

from properties.training.synthetic_images import make_images


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YAML of eight images to train on and four to validate on."""
    return make_images(tmp_path_factory.mktemp("images"), train=8, val=4)
