"""A wrong twin is noticed on the same predictions as the reference, at every step of a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from oracle.cases.case import Case, Setting
from oracle.comparison.compare import compare
from oracle.comparison.registry import TWINS, shipped
from oracle.contract.verdict import Verdict
from properties.tests.properties.training.helpers import PLAIN, FewerCandidates, LargerGradient
from properties.training import schedule, tolerance
from properties.training.captured_batches import load_all
from properties.training.runs import Options, Run, perform
from properties.training.synthetic_images import make_images
from properties.training.tasks import TRAINED, model_of

pytest.importorskip("oracle.reference.training")


@pytest.fixture
def checks(data: Path, tmp_path: Path) -> Callable[[Path], dict[str, bool]]:
    def run(model: Path) -> dict[str, bool]:
        made = Run("beside the reference", "shadow", str(model))
        perform(made, Options(str(data), 64, 4, 1, str(tmp_path / "cases")), schedule.file_of(made, tmp_path))
        return {check.name.split(": ")[1]: check.passed for check in tolerance.side_by_side(schedule.read_rows([made], tmp_path))}

    return run


def test_a_wrong_definition_is_noticed(checks: Callable[[Path], dict[str, bool]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TWINS, "detect", FewerCandidates)
    assert checks(PLAIN) == {"assignment": False, "gradient": False, "loss": False}


def test_a_gradient_one_percent_off_is_noticed(
    checks: Callable[[Path], dict[str, bool]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(TWINS, "detect", LargerGradient)
        assert checks(PLAIN) == {"assignment": True, "gradient": False, "loss": True}
    for case in load_all(tmp_path / "cases"):
        assert not differs(case)


def differs(case: Case) -> bool:
    """Whether the suite finds the twin wrong on a captured batch."""
    contenders = shipped()
    return compare(case, Setting("float32"), [contenders["twin"]], contenders["reference"]).verdict is Verdict.DIFFER


@pytest.mark.parametrize("task", ["segment", "oriented", "pose"])
def test_the_twin_of_every_task_stands_beside_the_reference(task: str, tmp_path: Path) -> None:
    data = make_images(tmp_path / "images", train=8, val=4, task=task)
    run = Run("beside the reference", "shadow", str(model_of(TRAINED[task], "tiny", tmp_path, end_to_end=True)))
    perform(run, Options(str(data), 64, 4, 1, str(tmp_path / "cases"), task), schedule.file_of(run, tmp_path))
    checks = tolerance.side_by_side(schedule.read_rows([run], tmp_path))
    assert len(checks) == 6, "loss, gradient and assignment of both sets"
    assert all(check.passed for check in checks), checks
    assert {case.spec.task for case in load_all(tmp_path / "cases")} == {task}
