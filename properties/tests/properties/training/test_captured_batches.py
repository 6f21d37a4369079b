"""Captured batches equal the training's batches bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Case, Setting
from properties.tests.properties.training.helpers import PLAIN
from properties.training import side_by_side
from properties.training.captured_batches import case_of, load_all
from properties.training.runs import Options, Run, perform

pytest.importorskip("oracle.reference.training")


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
