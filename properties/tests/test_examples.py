"""The examples run unchanged."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import matplotlib as mpl
import pytest

from oracle.tools.programs import run_python
from properties.training.synthetic_images import make_images

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(*command: str, cwd: Path = EXAMPLES, **env: str) -> str:
    done = run_python(*command, cwd=cwd, env={"PYTHONPATH": str(ROOT / "impl")} | env)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
    return done.stdout


class TestPlainLoop:
    """``plain_loop.py``, which needs torch and twinloss alone."""

    def test_is_short_and_needs_torch_alone(self) -> None:
        text = (EXAMPLES / "plain_loop.py").read_text("utf-8")
        assert len(text.splitlines()) < 60
        imported = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
        assert imported == {"torch", "twinloss"}

    def test_learns_and_finds_the_box(self) -> None:
        output = run("plain_loop.py")
        steps = [list(map(float, re.findall(r"\d+\.\d+", line))) for line in output.splitlines() if line.startswith("step")]
        assert len(steps) == 7
        assert all(last < 0.6 * first for first, last in zip(steps[0], steps[-1], strict=True))
        found, there = (list(map(int, re.findall(r"\d+", line))) for line in output.splitlines() if line.startswith(("found", "there")))
        assert found[0] == there[0]
        assert found[1:] == pytest.approx(there[1:], abs=10)


@pytest.fixture
def trainer_home(tmp_path: Path) -> Path:
    """A configuration folder with the font that the trainer would otherwise download."""
    (tmp_path / "Ultralytics").mkdir()
    (tmp_path / "Ultralytics" / "Arial.ttf").write_bytes(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf").read_bytes())
    return tmp_path


def test_ultralytics_drop_in(trainer_home: Path) -> None:
    pytest.importorskip("ultralytics")
    data = make_images(trainer_home / "images", train=8, val=4)
    options = ("epochs=2", "imgsz=64", "batch=4", "workers=0", "device=cpu", "plots=False", f"project={trainer_home}")
    tiny = ROOT / "properties" / "training" / "tiny.yaml"
    output = run("ultralytics_drop_in.py", str(data), str(tiny), *options, YOLO_CONFIG_DIR=str(trainer_home))
    assert "the twin was called on 4 batches to train, on 2 to validate" in output


def test_the_readme_s_training(trainer_home: Path) -> None:
    pytest.importorskip("ultralytics")
    programs = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (program,) = [program for program in programs if "ultralytics" in program]
    make_images(trainer_home, train=8, val=4).rename(trainer_home / "cells.yaml")
    (trainer_home / "program.py").write_text(program, encoding="utf-8")
    output = run("program.py", cwd=trainer_home, YOLO_CONFIG_DIR=str(trainer_home))
    assert "twinloss: active, this training's criterion is DetectionLoss" in output
    assert output.splitlines()[-1] == "trained on 1 batches"
