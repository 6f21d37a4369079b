"""Captured batches equal the training's batches bit for bit, of every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from oracle.contract.run import leaves_of
from properties.tests.properties.training.helpers import PLAIN
from properties.training import side_by_side
from properties.training.captured_batches import case_of, load_all
from properties.training.runs import Options, Run, perform
from properties.training.synthetic_images import make_images
from properties.training.tasks import TRAINED, model_of
from twinloss.task_specs import SPECS

training = pytest.importorskip("oracle.reference.training")


def test_are_the_batch_to_the_bit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[dict[str, Any], dict[str, torch.Tensor]]] = []

    def noted(preds: Any, batch: Any, *rest: Any) -> Case:
        seen.append((preds, batch))
        return case_of(preds, batch, *rest)

    monkeypatch.setattr(side_by_side, "case_of", noted)
    run = Run("beside", "shadow", str(PLAIN), steps=1)
    perform(run, Options(str(data), 64, 4, 1, str(tmp_path / "cases")), tmp_path / "lines.jsonl")
    (case,) = load_all(tmp_path / "cases")
    preds, batch = seen[0]
    inputs = build(case, Setting("float32"))
    for name in ("boxes", "scores"):
        torch.testing.assert_close(inputs.preds[name].detach(), preds[name][: case.batch_size].detach(), rtol=0, atol=0)
    first = batch["batch_idx"] < case.batch_size
    torch.testing.assert_close(inputs.batch["bboxes"], batch["bboxes"][first], rtol=0, atol=1e-7)
    assert inputs.batch["cls"].flatten().tolist() == batch["cls"][first].flatten().tolist()


class Seen(Exception):  # noqa: N818 - not an error: it ends a training at its first batch
    """The first batch of a training."""


def first_batch(task: str, folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], Any]:
    """Returns predictions and targets of the first batch of a training of an end-to-end model, and the model."""
    data = make_images(folder / "data", train=4, val=2, side=96, task=task)
    yolo = training.yolo(model_of(TRAINED[task], "tiny", folder, end_to_end=True))

    def see(trainer: Any) -> None:
        def criterion(preds: Any, batch: Any) -> Any:
            raise Seen(preds["one2one"], batch, trainer.model)

        trainer.model.criterion = criterion

    yolo.add_callback("on_train_start", see)
    with training.training_process(), pytest.raises(Seen) as seen:
        yolo.train(**training.CPU_OPTIONS | {"data": str(data), "imgsz": 96, "batch": 4, "epochs": 1, "project": str(folder)})
    preds, batch, model = seen.value.args
    return preds, batch, model


@pytest.mark.parametrize("task", ["segment", "oriented", "pose"])
def test_what_a_task_adds_is_the_batch_s_to_the_bit(task: str, tmp_path: Path) -> None:
    preds, batch, model = first_batch(task, tmp_path)
    head = model.model[-1]
    numbers: dict[str, Any] = {"num_classes": head.nc, "reg_max": head.reg_max}
    numbers |= {"keypoint_shape": tuple(head.kpt_shape), "generation": 2, "flow": True} if task == "pose" else {}
    case = case_of(preds, batch, SPECS[task](**numbers))
    inputs = build(Case.from_json(case.to_json()), Setting("float32"))
    built = leaves_of(inputs.preds)
    for name, leaf in leaves_of(preds).items():
        assert torch.equal(leaf[: case.batch_size].detach(), built.pop(name).detach()), name
    assert not built
    rows = batch["batch_idx"] < case.batch_size
    for name in inputs.batch.keys() & {"bboxes", "keypoints"}:
        torch.testing.assert_close(inputs.batch[name], batch[name][rows], rtol=0, atol=1e-7)
    if task == "segment":
        masks = batch["masks"][: case.batch_size]
        assert torch.equal(inputs.batch["masks"], masks)
        covered = masks > 0
        assert torch.equal(inputs.batch["sem_masks"][covered], batch["sem_masks"][: case.batch_size][covered])
