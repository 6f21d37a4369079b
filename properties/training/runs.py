"""One training run, in a process of its own: trains, and writes what happened at every step, line by line."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

import torch

from properties.training.one_ulp_noise import Nudged
from properties.training.side_by_side import Shadow
from twinloss import hook

METRICS = {"metrics/mAP50(B)": "mAP50", "metrics/mAP50-95(B)": "mAP50-95"}


class Enough(Exception):  # noqa: N818 - no error: a run that is meant to be short ends with it
    """The run has made as many steps as it should."""


@dataclass(frozen=True)
class Options:
    """What all runs of a comparison share.

    Attributes:
        data: YAML of the data set.
        imgsz, batch, epochs: as the trainer calls them.
        cases: folder for live batches.
    """

    data: str
    imgsz: int
    batch: int
    epochs: int
    cases: str


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: unique among the runs.
        role: what it is for: ``reference`` and ``twin`` are compared; ``repeat`` shows that a run can be repeated to the bit;
            ``nudged`` what one unit in the last place of the logits does to the reference; ``shadow`` compares on the same predictions.
        model: YAML of the model.
        seed: of the trainer.
        nudge: seed of the nudges.
        steps: after how many to stop; all, if ``None``.
    """

    name: str
    role: Literal["reference", "repeat", "nudged", "twin", "shadow"]
    model: str
    seed: int = 0
    nudge: int = 0
    steps: int | None = None


def perform(run: Run, options: Options, out: Path) -> None:
    """Train, and write lines of JSON to ``out``: first what to expect, then a step or an epoch each.

    Raises:
        RuntimeError: the trainer failed; the message is its own.
    """
    from oracle.reference import training

    with training.training_process(), tempfile.TemporaryDirectory() as folder, out.open("w", encoding="utf-8") as lines:
        yolo = training.yolo(run.model)
        journal = _Journal(run, options, lines)
        journal.listen(yolo)
        if run.role == "twin":
            hook.install(yolo, verify=False)  # whether the twin is the same is what these runs are to find out
        with contextlib.suppress(Enough):
            yolo.train(**training.QUIET | _recipe(run, options) | {"project": folder, "name": "run"})


def _recipe(run: Run, options: Options) -> dict[str, Any]:
    """Plain descent, on small batches, without what makes short trainings slower: every step is a step of the optimiser."""
    steps = {"optimizer": "SGD", "lr0": 0.02, "momentum": 0.9, "warmup_epochs": 1, "nbs": options.batch}
    augmentation = {"close_mosaic": max(options.epochs // 3, 1), "cache": "ram"}
    shared = {"data": options.data, "imgsz": options.imgsz, "batch": options.batch, "epochs": options.epochs}
    return {**shared, **steps, **augmentation, "seed": run.seed, "deterministic": True, "save": False}


class _Journal:
    """Listens to a trainer, and writes down what it does."""

    def __init__(self, run: Run, options: Options, lines: IO[str]) -> None:
        self.run, self.options, self.lines = run, options, lines
        self.step = 0
        self.gradient_norm = 0.0
        self.shadow: Shadow | None = None

    def listen(self, yolo: Any) -> None:
        yolo.add_callback("on_train_start", self.started)
        yolo.add_callback("on_train_batch_end", self.stepped)
        yolo.add_callback("on_fit_epoch_end", self.validated)

    def started(self, trainer: Any) -> None:
        torch.set_num_threads(1)  # Sums in another order would be other runs.
        total = trainer.epochs * len(trainer.train_loader)
        self._write({"run": asdict(self.run), "whole": total})
        model = trainer.model
        if self.run.role == "nudged":
            model.criterion = Nudged(model.init_criterion(), self.run.nudge)
        if self.run.role == "shadow":
            self.shadow = model.criterion = Shadow(model, total, self.run.nudge, Path(self.options.cases))
        advance = trainer.optimizer_step

        def measured() -> None:
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            self.gradient_norm = float(torch.nn.utils.get_total_norm(gradients))  # before the trainer clips it
            advance()

        trainer.optimizer_step = measured

    def stepped(self, trainer: Any) -> None:
        values = {name: float(value) for name, value in trainer.loss_items.items()}
        values |= {"loss": float(trainer.loss), "gradient norm": self.gradient_norm}
        if self.shadow is not None:
            values |= self.shadow.last
        self._write({"step": self.step, "epoch": trainer.epoch, "values": values})
        self.step += 1
        if self.step == self.run.steps:
            raise Enough

    def validated(self, trainer: Any) -> None:
        if trainer.epoch >= trainer.epochs:
            return  # The trainer tells of the last epoch twice.
        values = {METRICS[name]: float(value) for name, value in trainer.metrics.items() if name in METRICS}
        values["processor seconds"] = time.process_time()
        self._write({"epoch": trainer.epoch, "values": values})

    def _write(self, record: dict[str, Any]) -> None:
        self.lines.write(json.dumps(record) + "\n")
        self.lines.flush()


def perform_quietly(run: Run, options: Options, out: Path) -> None:
    """As :func:`perform`, in a process of its own: what the trainer prints goes beside the lines.

    Raises:
        RuntimeError: the trainer failed.
    """
    log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    try:
        perform(run, options, out)
    except Exception as error:
        raise RuntimeError(f"the run {run.name!r} failed: {type(error).__name__}: {error}") from None
