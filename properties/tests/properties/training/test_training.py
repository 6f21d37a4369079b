"""The comparison of trainings: what it measures, that it notices a wrong twin, and what it says about wrong data."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from oracle.cases.case import Case, Setting
from oracle.comparison.compare import compare
from oracle.comparison.registry import shipped
from oracle.contract.verdict import Verdict
from properties.tests.properties.training.no_network import offline
from properties.training import __main__ as command
from properties.training import schedule as campaign
from properties.training import side_by_side as shadow
from properties.training import tolerance
from properties.training.captured_batches import case_of, load_all
from properties.training.dataset import DatasetError, open_dataset
from properties.training.one_ulp_noise import nudge_all
from properties.training.runs import Options, Run, perform
from properties.training.synthetic_images import make_pictures
from reports import __main__ as reports
from twinloss import DetectionLoss, LossSpec, hook

pytest.importorskip("oracle.reference.training")

ROOT = Path(__file__).parents[4]
FOLDER = Path(__file__).parent / "training"
PLAIN, END_TO_END = FOLDER / "tiny.yaml", FOLDER / "tiny-end-to-end.yaml"
SMALL = ("--imgsz", "64", "--batch", "4", "--model", str(PLAIN), "--end-to-end", str(END_TO_END))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"), train=8, val=4)


class Here:
    """Runs in this process and at once what a pool would run in others, with no way out to a network."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> Here:  # noqa: PYI034 - as twinloss.hook.Hook
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, function: Callable[..., None], *arguments: Any) -> Future[None]:
        future: Future[None] = Future()
        with offline():
            function(*arguments)
        future.set_result(None)
        return future


class Heavier(DetectionLoss):
    """A twin whose gradient is 1 % too large, from the first step on."""

    def __call__(self, preds: Any, batch: Any) -> Any:
        loss, items = super().__call__(preds, batch)
        return loss + 0.01 * (loss - loss.detach()), items


class FewerCandidates(DetectionLoss):
    """A twin with another definition."""

    def __init__(self, spec: LossSpec, **options: Any) -> None:
        super().__init__(dataclasses.replace(spec, topk=spec.topk - 3), **options)


class TestCommand:
    """``nox -s train``, from data to verdict, on a tiny model."""

    @pytest.fixture
    def train(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # restored, as the command sets it
        monkeypatch.setattr(campaign, "ProcessPoolExecutor", Here)
        monkeypatch.setattr(campaign, "perform_quietly", perform)
        monkeypatch.setattr(campaign, "NUDGED", 2)

        def run(*arguments: str) -> int:
            return command.main(["--data", str(data), "--out", str(tmp_path / "out"), "--seeds", "2", *SMALL, *arguments])

        return run

    def test_ends_with_a_verdict_a_report_and_live_cases(
        self, train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("not of an earlier comparison")
        assert train("--epochs", "2") == 0
        said = capsys.readouterr().err
        assert "train: nothing changes: the twin trains as the reference does" in said
        assert "min left" in said
        assert "FAIL" not in said
        assert (tmp_path / "out" / "mine.txt").exists()
        rows = pd.read_parquet(tmp_path / "out" / "rows.parquet")
        assert set(rows["role"]) == {"reference", "repeat", "nudged", "twin", "shadow", "tolerance", "check"}
        cases = list(load_all(tmp_path / "out" / "cases"))
        steps = {tag for case in cases for tag in case.tags}
        assert {"step 0", "step 3", "one2many", "one2one"} <= steps, "early and late, both sets of the end-to-end head"
        page = ["train", "--rows", str(tmp_path / "out" / "rows.parquet"), "--out", str(tmp_path / "page"), "--exit-code"]
        assert reports.main(page) == 0
        summary = (tmp_path / "page" / "summary.md").read_text("utf-8")
        assert "Nothing changes: the twin trains as the reference does" in summary
        assert (tmp_path / "page" / "index.html").read_text("utf-8").count("<svg") >= 6

    def test_a_wrong_twin_changes_the_training(
        self, train: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("twinloss.trainer.criterion_swap.DetectionLoss", Heavier)
        assert train("--epochs", "1") == 1
        said = capsys.readouterr().err
        assert "FAIL twin, seed 0: gradient norm at every step" in said
        assert "ok   beside the reference: gradient" in said, "beside the reference stood the right one"
        assert "train: the training changes" in said

    def test_a_run_that_fails_is_named(self, data: Path, tmp_path: Path) -> None:
        options = Options(str(data), 64, 4, 1, str(tmp_path / "cases"))
        runs = [Run("repeat", "repeat", str(tmp_path / "nowhere.yaml"))]
        with pytest.raises(RuntimeError, match=r"the run 'repeat' failed: .*nowhere.yaml.*what it printed is in"):
            campaign.make(runs, options, tmp_path, 1, campaign.Course(runs, tmp_path, lambda *_: None))

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--seeds", "1"), "--seeds is 1; it must be at least 2"),
            (("--model", "absent.pt"), "there is no checkpoint at absent.pt, and nothing is downloaded"),
        ],
    )
    def test_wrong_arguments(self, arguments: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            command.main(arguments)
        assert said in capsys.readouterr().err

    def test_wrong_data_leave_the_last_report_alone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "rows.parquet").write_text("of the last comparison")
        assert command.main(["--data", "nowhere.yaml", "--out", str(tmp_path)]) == 2
        assert "train: there is no data set at nowhere.yaml: give --data the YAML of one" in capsys.readouterr().err
        assert (tmp_path / "rows.parquet").exists()


def test_nothing_is_fetched_by_a_run_of_its_own(data: Path, tmp_path: Path) -> None:
    """In an interpreter that has no way out from its first line on."""
    program = (
        "import sys; from pathlib import Path; from properties.tests.properties.training.no_network import offline\n"
        "with offline():\n"
        "    from properties.training.runs import Options, Run, perform\n"
        "    perform(Run('twin', 'twin', sys.argv[1], steps=1), Options(sys.argv[2], 64, 4, 1, ''), Path(sys.argv[3]))\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "impl"), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", program, str(PLAIN), str(data), str(tmp_path / "lines.jsonl")]
    done = subprocess.run(arguments, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, step = map(json.loads, (tmp_path / "lines.jsonl").read_text("utf-8").splitlines())
    assert first["whole"] == 2
    assert step["values"]["gradient norm"] > 0


class TestBeside:
    """The twin beside the reference at every step of a training."""

    @pytest.fixture
    def checks(self, data: Path, tmp_path: Path) -> Callable[[Path], dict[str, bool]]:
        def run(model: Path) -> dict[str, bool]:
            made = Run("beside the reference", "shadow", str(model))
            perform(made, Options(str(data), 64, 4, 1, str(tmp_path / "cases")), campaign.file_of(made, tmp_path))
            return {check.name.split(": ")[1]: check.passed for check in tolerance.beside(campaign.read([made], tmp_path))}

        return run

    def test_a_wrong_definition_is_noticed(self, checks: Callable[[Path], dict[str, bool]], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shadow, "DetectionLoss", FewerCandidates)
        assert checks(PLAIN) == {"assignment": False, "gradient": False, "loss": False}

    def test_a_gradient_one_percent_off_is_noticed(
        self, checks: Callable[[Path], dict[str, bool]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(shadow, "DetectionLoss", Heavier)
        assert checks(PLAIN) == {"assignment": True, "gradient": False, "loss": True}
        for case in load_all(tmp_path / "cases"):
            assert not self.differs(case)

    def differs(self, case: Case) -> bool:
        """Whether the suite finds the twin wrong on a live batch."""
        contenders = shipped()
        return compare(case, Setting("float32"), [contenders["twin"]], contenders["reference"]).verdict is Verdict.DIFFER


class TestLiveCases:
    """Batches kept from inside a training."""

    def test_are_the_batch_to_the_bit(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[dict[str, Any], dict[str, torch.Tensor]]] = []

        def noted(preds: Any, batch: Any, *rest: Any) -> Case:
            seen.append((preds, batch))
            return case_of(preds, batch, *rest)

        monkeypatch.setattr(shadow, "case_of", noted)
        run = Run("beside", "shadow", str(PLAIN), steps=1)
        perform(run, Options(str(data), 64, 4, 1, str(tmp_path / "cases")), tmp_path / "lines.jsonl")
        (case,) = load_all(tmp_path / "cases")
        preds, batch = seen[0]
        inputs = case.build(Setting("float32"))
        for name in ("boxes", "scores"):
            torch.testing.assert_close(inputs.preds[name].detach(), preds[name][: case.batch_size].detach(), rtol=0, atol=0)
        first = batch["batch_idx"] < case.batch_size
        torch.testing.assert_close(inputs.batch["bboxes"], batch["bboxes"][first], rtol=0, atol=1e-7)
        assert inputs.batch["cls"].flatten().tolist() == batch["cls"][first].flatten().tolist()


class TestTolerance:
    """What may differ, from what differs by rounding alone."""

    @pytest.mark.parametrize(("largest", "holds"), [([3e-6, 3e-6], True), ([1e-2, 3e-6], True), ([1e-2, 1e-2], False)])
    def test_a_jump_of_the_nudged_allows_one_of_the_twin_and_no_more(self, largest: list[float], holds: bool) -> None:
        values = {"nudged": [1e-6] * 199 + [0.08], "double": [1e-7] * 200, "twin": [1e-7] * 198 + largest}
        rows = pd.concat(
            pd.DataFrame({"run": "shadow", "step": range(200), "quantity": f"beside/{who}/gradient", "value": distances})
            for who, distances in values.items()
        )
        (check,) = tolerance.beside(rows)
        assert check.limit == pytest.approx(4e-6)
        assert check.passed is holds

    def test_allows_for_the_rounding_that_no_nudge_shows(self) -> None:
        rows = pd.DataFrame({"run": "shadow", "step": range(200), "quantity": "beside/double/loss", "value": [2e-5] * 199 + [0.5]})
        floor = tolerance.own_rounding(rows, "shadow", "loss")
        assert floor == pytest.approx(2e-5, rel=0.01)
        assert tolerance.allowed_deviation([np.zeros(3)], floor).tolist() == pytest.approx([2 * floor] * 3)

    def test_follows_the_growth_of_rounding(self) -> None:
        grown = np.geomspace(1e-7, 1e-1, 7)
        allowed = tolerance.allowed_deviation([np.append(grown, np.full(20, 0.1)), np.full(27, 1e-7)])
        assert (allowed[:7] <= 41 * np.maximum(grown, tolerance.FLOOR)).all(), "tight while it is tight"
        assert allowed[-1] == pytest.approx(0.2)
        assert (np.diff(allowed) >= 0).all()

    @pytest.mark.parametrize(("apart", "holds"), [(1.5, True), (3.0, False), (float("nan"), False)])
    def test_curves(self, apart: float, holds: bool) -> None:
        steps = np.arange(30)
        curves = {"reference": 10 - steps / 10, "nudged": (10 - steps / 10) * 1.001, "twin": (10 - steps / 10) * (1 + 0.001 * apart)}
        rows = pd.concat(
            pd.DataFrame({"run": run, "step": steps, "quantity": quantity, "value": values})
            for run, values in curves.items()
            for quantity in tolerance.CURVES
        )
        expected = tolerance.curve(rows, "reference", "loss")
        allowed = tolerance.allowed_deviation([tolerance.deviation(tolerance.curve(rows, "nudged", "loss"), expected)])
        checks = tolerance.curves(rows, dict.fromkeys(tolerance.CURVES, allowed), "reference", "twin")
        assert [check.passed for check in checks] == [holds, holds]

    def test_a_training_that_stopped_early_fails(self) -> None:
        rows = pd.concat(
            pd.DataFrame({"run": run, "step": range(count), "quantity": quantity, "value": 1.0})
            for run, count in (("reference", 5), ("twin", 4))
            for quantity in tolerance.CURVES
        )
        checks = tolerance.curves(rows, dict.fromkeys(tolerance.CURVES, np.ones(5)), "reference", "twin")
        assert not any(check.passed for check in checks)

    @pytest.mark.parametrize(("twin", "holds"), [(0.53, True), (0.4, False)])
    def test_scores(self, twin: float, holds: bool) -> None:
        runs = {"a": 0.5, "b": 0.56, "c": twin, "d": twin + 0.01}
        quantities = ("loss", *tolerance.SCORES)
        rows = pd.DataFrame(
            [{"run": run, "step": 0, "epoch": 0, "quantity": name, "value": value} for run, value in runs.items() for name in quantities]
        )
        checks = tolerance.scores(rows, ["a", "b"], ["c", "d"])
        assert [check.passed for check in checks] == [holds] * 3

    def test_nudges_are_one_unit_in_the_last_place(self) -> None:
        preds: dict[str, Any] = {"one2many": {"boxes": torch.linspace(-3, 3, 8), "scores": torch.zeros(4), "feats": []}}
        nudged = nudge_all(preds, torch.Generator().manual_seed(0))["one2many"]
        for name in ("boxes", "scores"):
            before = preds["one2many"][name]
            ulp = torch.nextafter(before.abs(), torch.tensor(torch.inf)) - before.abs()
            apart = (nudged[name] - before).abs()
            assert ((apart > 0) & (apart <= ulp)).all()


class TestData:
    """A data set that is not there, or not one."""

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "there is no data set at"),
            ("a: [", "is not YAML"),
            ("- a list", "has no train and no val and no names"),
            ("train: images/train\nval: images/val\n", "has no names"),
            ("train: images/absent\nval: images/val\nnames: [cell]\n", "says that train is at .*absent, but there is no such folder"),
            ("train: [images/val, images/gone]\nval: images/val\nnames: [cell]\n", "train is at .*gone, but there is no such folder"),
            ("train: labels/train\nval: images/val\nnames: [cell]\n", "labels.train, which holds no pictures"),
        ],
    )
    def test_is_refused(self, text: str | None, said: str, tmp_path: Path) -> None:
        make_pictures(tmp_path, train=1, val=1)
        named = tmp_path / "mine.yaml"
        if text is not None:
            named.write_text(text)
        (tmp_path / "scratch").mkdir()
        with pytest.raises(DatasetError, match=said):
            open_dataset(str(named), tmp_path / "scratch")

    def test_depends_on_no_folder_and_names_nothing_to_download(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_pictures(tmp_path / "set", train=1, val=1)
        described = "path: ../set\ntrain: images/train\nval: images/val\nnames: [cell]\ndownload: https://example.org/set.zip\n"
        (tmp_path / "set" / "data.yaml").write_text(described)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "scratch").mkdir()
        opened = open_dataset("set", tmp_path / "scratch").yaml.read_text("utf-8")
        assert f"path: {(tmp_path / 'set').resolve()}" in opened
        assert "download" not in opened

    def test_without_bccd_pictures_are_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("properties.training.dataset.data_folder", lambda: None)
        opened = open_dataset(None, tmp_path)
        assert opened.origin.startswith("generated")
        assert len(list(opened.yaml.parent.glob("images/train/*.png"))) == 200

    def test_nothing_is_written_beside_bccd(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_pictures(tmp_path / "data" / "bccd", train=1, val=1)
        monkeypatch.setattr("properties.training.dataset.data_folder", lambda: tmp_path / "data")
        (tmp_path / "scratch").mkdir()
        opened = open_dataset(None, tmp_path / "scratch").yaml.read_text("utf-8")
        assert f"path: {tmp_path / 'scratch' / 'bccd'}" in opened


def test_the_twin_s_own_hook_is_what_trains(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[hook.Hook] = []
    install = hook.install

    def noted(target: Any) -> hook.Hook:
        hooks.append(install(target))
        return hooks[-1]

    monkeypatch.setattr(hook, "install", noted)
    perform(Run("twin", "twin", str(PLAIN)), Options(str(data), 64, 4, 1, ""), tmp_path / "lines.jsonl")
    assert [one.training_calls for one in hooks] == [2]
