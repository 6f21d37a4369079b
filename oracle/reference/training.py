"""The reference's trainer and models, used as a user does: from YAML, on the CPU, without downloads."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

import oracle.reference.criterion  # first, since it handles the reference's import

# Options for a run on the CPU without workers, plots and files left behind.
CPU_OPTIONS: dict[str, Any] = {"device": "cpu", "workers": 0, "plots": False, "verbose": False, "amp": False, "exist_ok": True}


@contextlib.contextmanager
def training_process() -> Iterator[None]:
    """Restores the process state that a trainer changes: seeds, number of threads, determinism, environment.

    Inside, warnings are silenced, except for the twin's, which are errors.
    """
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - the state that a trainer seeds
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    deterministic, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    environment = dict(os.environ)
    _stay_offline()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", module="twinloss")
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(grad)
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        torch.set_rng_state(state[2])
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


def _stay_offline() -> None:
    """Prevents a trainer from downloading a font and from reporting its use."""
    from ultralytics import settings
    from ultralytics.utils import USER_CONFIG_DIR

    if Path(USER_CONFIG_DIR).is_relative_to(tempfile.gettempdir()):  # never into a user's own configuration
        settings.update({"sync": False})
        fonts = Path(mpl.get_data_path(), "fonts", "ttf")
        for name in ("Arial.ttf", "Arial.Unicode.ttf"):
            if not Path(USER_CONFIG_DIR, name).exists():
                shutil.copy(fonts / "DejaVuSans.ttf", Path(USER_CONFIG_DIR, name))


def yolo(model: str | Path) -> Any:
    """Returns ``YOLO(...)`` of a model's YAML or of a checkpoint."""
    from ultralytics import YOLO

    return YOLO(model, verbose=False)


def trainer_class() -> Any:
    """Returns the class of the reference's detection trainer."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    return DetectionTrainer


def version() -> str:
    """Returns the reference's version."""
    return oracle.reference.criterion.VERSION
