"""One training run in a process of its own. It writes a line of JSON for every step and every epoch."""

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
from properties.training.side_by_side import ComparingCriterion
from properties.training.tasks import TRAINED
from twinloss import hook

TIES = {"twin": "stable", "tied": "reference"}
"""The roles that train with the twin, and its rule for ties."""


class EnoughSteps(Exception):  # noqa: N818 - not an error: it ends a run after Run.steps steps
    """The run has made :attr:`Run.steps` steps."""


@dataclass(frozen=True)
class Options:
    """Settings that all runs of a comparison share.

    Attributes:
        data: path of the data set's YAML.
        imgsz, batch, epochs: the trainer's settings of these names.
        cases: folder for captured batches.
        task: the task.
    """

    data: str
    imgsz: int
    batch: int
    epochs: int
    cases: str
    task: str = "detect"


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: unique among the runs.
        role: purpose of the run. ``reference`` and ``twin`` are compared; ``repeat`` shows that a run can be repeated to the bit;
            ``nudged`` shows the effect of one unit in the last place of the logits; ``shadow`` compares both on the same predictions;
            ``tied`` is the twin with ``ties="reference"``.
        model: path of the model's YAML.
        seed: the trainer's seed.
        nudge: seed of the nudges.
        steps: number of steps after which to stop; all if ``None``.
    """

    name: str
    role: Literal["reference", "repeat", "nudged", "twin", "shadow", "tied"]
    model: str
    seed: int = 0
    nudge: int = 0
    steps: int | None = None


def perform(run: Run, options: Options, out: Path) -> None:
    """Train, and write lines of JSON to ``out``: first the run and its number of steps, then one line a step or epoch.

    Raises:
        RuntimeError: the trainer failed; the message is the trainer's.
    """
    from oracle.reference import training

    with training.training_process(), tempfile.TemporaryDirectory() as folder, out.open("w", encoding="utf-8") as lines:
        yolo = training.yolo(run.model)
        journal = _Journal(run, options, lines)
        journal.listen(yolo)
        if run.role in TIES:
            hook.install(yolo, verify=False, ties=TIES[run.role])  # these runs themselves find out whether the twin computes the same
        with contextlib.suppress(EnoughSteps):
            yolo.train(**training.CPU_OPTIONS | _recipe(run, options) | {"project": folder, "name": "run"})


def _recipe(run: Run, options: Options) -> dict[str, Any]:
    """Returns the trainer's settings: SGD with one optimiser step for every batch."""
    steps = {"optimizer": "SGD", "lr0": 0.02, "momentum": 0.9, "warmup_epochs": 1, "nbs": options.batch}
    augmentation = {"close_mosaic": max(options.epochs // 3, 1), "cache": "ram"}
    shared = {"data": options.data, "imgsz": options.imgsz, "batch": options.batch, "epochs": options.epochs}
    fixed = {"seed": run.seed, "deterministic": True, "save": False}
    return {**shared, **steps, **augmentation, **fixed, **TRAINED[options.task].settings}


class _Journal:
    """Records the steps and epochs of a trainer through its callbacks."""

    def __init__(self, run: Run, options: Options, lines: IO[str]) -> None:
        self.run, self.options, self.lines = run, options, lines
        self.step = 0
        self.gradient_norm = 0.0
        self.comparing: ComparingCriterion | None = None

    def listen(self, yolo: Any) -> None:
        yolo.add_callback("on_train_start", self.started)
        yolo.add_callback("on_train_batch_end", self.stepped)
        yolo.add_callback("on_fit_epoch_end", self.validated)

    def started(self, trainer: Any) -> None:
        torch.set_num_threads(1)  # Sums in another order would change the run.
        total = trainer.epochs * len(trainer.train_loader)
        self._write({"run": asdict(self.run), "whole": total})
        model = trainer.model
        if self.run.role == "nudged":
            model.criterion = Nudged(model.init_criterion(), self.run.nudge)
        if self.run.role == "shadow":
            self.comparing = model.criterion = ComparingCriterion(model, total, self.run.nudge, Path(self.options.cases))
        advance = trainer.optimizer_step

        def measured() -> None:
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            self.gradient_norm = float(torch.nn.utils.get_total_norm(gradients))  # before the trainer clips it
            advance()

        trainer.optimizer_step = measured

    def stepped(self, trainer: Any) -> None:
        values = {name: float(value) for name, value in trainer.loss_items.items()}
        values |= {"loss": float(trainer.loss), "gradient norm": self.gradient_norm}
        if self.comparing is not None:
            values |= self.comparing.last
        self._write({"step": self.step, "epoch": trainer.epoch, "values": values})
        self.step += 1
        if self.step == self.run.steps:
            raise EnoughSteps

    def validated(self, trainer: Any) -> None:
        if trainer.epoch >= trainer.epochs:
            return  # The trainer reports the last epoch twice.
        scores = TRAINED[self.options.task].scores
        values = {scores[name]: float(value) for name, value in trainer.metrics.items() if name in scores}
        values["processor seconds"] = time.process_time()
        self._write({"epoch": trainer.epoch, "values": values})

    def _write(self, record: dict[str, Any]) -> None:
        self.lines.write(json.dumps(record) + "\n")
        self.lines.flush()


def perform_quietly(run: Run, options: Options, out: Path) -> None:
    """Make a run like :func:`perform`, with the printed output in a log file beside ``out``.

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
