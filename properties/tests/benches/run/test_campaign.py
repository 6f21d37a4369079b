"""A whole run with artificial workers: the requests, the handling of failures, and the rows."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benches.measure.worker_client import WorkerError
from benches.plan.contenders import BASELINE, TORCH_TWIN, BenchContender
from benches.plan.malloc_settings import Heap
from benches.plan.sweeps import Point
from benches.plan.units import Sampling, Unit, units
from benches.plan.workloads import Workload
from benches.run import campaign as campaign_module
from benches.run.campaign import Campaign
from benches.run.rows import rows
from benches.run.write_rows import write
from oracle.cases.case import Setting
from oracle.tools.progress import Progress

TIMES = {"ms_median", "ratio_to_reference", "ratio_lo95", "ratio_hi95", "images_per_s"}
REQUIRED = {"workload", "contender", "backend", "device", "dtype", "phase", "peak_bytes", "heap", "minor_faults"} | TIMES
SMALL = Workload("small", "two small images", boxes=5, batch=2, imgsz=64, num_classes=3)
UNIT = Unit(SMALL, Setting(), "steady", (BASELINE, TORCH_TWIN), Sampling(2, 0.0, 3), stages=True)
MS = 1_000_000


class ArtificialWorker:
    """A worker with the answers of a steady machine, on which the reference is four times slower than the twin."""

    log: list[tuple[str, dict[str, Any]]]
    dies_on = ""
    fails: dict[str, str]

    def __init__(self, heap: Heap, threads: int) -> None:
        self.heap, self.threads, self.case_folder = heap, threads, ""

    def ask(self, do: str, /, **arguments: Any) -> Any:
        self.log.append((do, arguments))
        return getattr(self, do)(**arguments)

    def start(self, threads: int) -> dict[str, str]:
        return {"twinloss": "0.1.0", "torch": "2", "threads": str(threads)}

    def floor(self) -> dict[str, float]:
        return {"copy_bytes_per_s": 1e10, "exp_per_s": 1e9, "log_per_s": 1e9, "log1p_per_s": 1e9}

    def open(self, contenders: list[str], case_folder: str, **_: Any) -> dict[str, Any]:
        if self.dies_on and self.dies_on in (Path(case_folder) / "case.json").read_text():
            raise WorkerError("the worker ended with -9")
        self.labels = [label for label in contenders if label not in self.fails]
        self.classes = json.loads((Path(case_folder) / "case.json").read_text())["spec"]["num_classes"]
        failures = {label: self.fails[label] for label in contenders if label in self.fails}
        return {"failures": failures, "warm": {label: {"first_ms": 50.0, "rounds": 3} for label in self.labels}}

    def rounds(self, seconds: float, min_rounds: int, max_rounds: int) -> list[dict[str, Any]]:
        def sample(label: str, at: int) -> dict[str, int]:
            slow = (4 if label == BASELINE.label else 1) * MS * (1 + at) * self.classes
            return {"forward_ns": 3 * slow, "backward_ns": slow, "cpu_ns": 8 * slow, "minor_faults": 7}

        return [{label: sample(label, at) for label in self.labels} for at in range(min_rounds)]

    def exact(self) -> dict[str, dict[str, int]]:
        return {label: {"peak_forward": 1000, "peak_step": 4000 if label == BASELINE.label else 1500} for label in self.labels}

    def stages(self, seconds: float) -> dict[str, list[dict[str, int]]]:
        return {label: [{"assignment": 3 * MS, "terms": MS}] * 3 for label in self.labels}

    def training(self, contenders: list[str], steps: int, **_: Any) -> list[dict[str, dict[str, int]]]:
        losses = {label: {"forward": (40 if label == BASELINE.label else 10) * MS, "backward": 0} for label in contenders}
        return [{"model": {"forward": 100 * MS, "backward": 250 * MS, "optimiser": 10 * MS}} | losses] * steps

    def close(self, *, kill: bool = False) -> None:
        self.log.append(("close", {"kill": kill}))

    def __enter__(self) -> ArtificialWorker:  # noqa: PYI034 - as the worker's own
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def artificial_worker(monkeypatch: pytest.MonkeyPatch) -> type[ArtificialWorker]:
    monkeypatch.setattr(campaign_module, "Worker", ArtificialWorker)
    ArtificialWorker.log, ArtificialWorker.dies_on, ArtificialWorker.fails = [], "", {}
    return ArtificialWorker


def measured(*planned: Unit) -> pd.DataFrame:
    with Campaign(planned, threads=1) as campaign:
        campaign.run()
        campaign.run_training()
        return pd.DataFrame(list(rows(campaign)))


@pytest.mark.usefixtures("artificial_worker")
def test_rows_have_the_promised_columns_and_the_right_ratios() -> None:
    frame = measured(UNIT)
    assert set(frame.columns) >= REQUIRED
    step = frame[frame["phase"] == "step"].set_index("contender")
    assert step.loc["twin", "ratio_to_reference"] == pytest.approx(4)
    assert step[["ratio_lo95", "ratio_hi95"]].to_numpy()[1].tolist() == pytest.approx([4, 4])
    assert step.loc["reference", "ratio_to_reference"] == 1
    # Rounds of 12, 24 and 36 ms, in each of two processes.
    assert step.loc["twin", "ms_median"] == pytest.approx(24)
    assert step.loc["twin", "images_per_s"] == pytest.approx(2 / 24e-3)
    assert (step.loc["twin", "rounds"], step.loc["twin", "processes"]) == (6, 2)
    assert (step.loc["twin", "peak_bytes"], step.loc["reference", "peak_bytes"]) == (1500, 4000)
    assert step.loc["twin", "minor_faults"] == 7
    assert step.loc["twin", "gradient_bytes"] == 4 * 2 * (64 + 3) * 84
    assert step.loc["twin", "floor_exp_ms"] == pytest.approx(2 * 3 * 84 / 1e6)
    shares = frame[(frame["contender"] == "twin") & frame["phase"].str.startswith("stage: ")].set_index("phase")["share"]
    assert shares.to_dict() == {"stage: assignment": 0.75, "stage: terms": 0.25}


def test_exact_measures_and_stages_are_taken_once(artificial_worker: type[ArtificialWorker]) -> None:
    measured(UNIT)
    asked = [do for do, _ in artificial_worker.log]
    assert (asked.count("rounds"), asked.count("exact"), asked.count("stages"), asked.count("floor")) == (2, 1, 1, 1)


def test_a_contender_that_fails_is_a_row_that_says_why_and_is_not_tried_again(artificial_worker: type[ArtificialWorker]) -> None:
    artificial_worker.fails = {TORCH_TWIN.label: "ValueError: no"}
    frame = measured(UNIT)
    (row,) = frame[frame["contender"] == "twin"].to_dict("records")
    assert (row["phase"], row["note"]) == ("step", "ValueError: no")
    assert pd.isna(row["ms_median"])
    assert frame[frame["contender"] == "reference"]["ms_median"].notna().any()
    opened = [arguments["contenders"] for do, arguments in artificial_worker.log if do == "open"]
    assert opened == [[BASELINE.label, TORCH_TWIN.label], [BASELINE.label]]


def test_a_worker_that_dies_takes_its_unit_along_and_no_other(artificial_worker: type[ArtificialWorker]) -> None:
    big = replace(UNIT, workload=replace(SMALL, name="big", num_classes=77))
    artificial_worker.dies_on = '"num_classes": 77'
    frame = measured(big, UNIT)
    assert set(frame[frame["workload"] == "big"]["note"]) == {"the worker ended with -9"}
    assert frame[(frame["workload"] == "small") & (frame["phase"] == "step")]["rounds"].tolist() == [6, 6]
    assert ("close", {"kill": True}) in artificial_worker.log


def test_the_compiled_reference_is_made_in_one_process(artificial_worker: type[ArtificialWorker]) -> None:
    compiled = BenchContender("reference", "compile")
    measured(replace(UNIT, contenders=(BASELINE, TORCH_TWIN, compiled)))
    opened = [compiled.label in arguments["contenders"] for do, arguments in artificial_worker.log if do == "open"]
    assert opened == [True, False]


@pytest.mark.usefixtures("artificial_worker")
def test_growth_is_fitted_along_a_sweep() -> None:
    swept = [replace(UNIT, workload=replace(SMALL, num_classes=size), point=Point("classes", size, SMALL)) for size in (1, 4, 16, 64)]
    frame = measured(*swept)
    fits = frame[frame["phase"] == "growth of step"].set_index("contender")
    assert fits.loc["twin", "exponent"] == pytest.approx(1, abs=0.05)
    assert fits.loc["twin", "workload"] == "scaling: classes"


@pytest.mark.usefixtures("artificial_worker")
def test_the_loss_has_a_share_of_the_training_step() -> None:
    frame = measured(replace(UNIT, workload=replace(SMALL, name="coco")))
    whole = frame[frame["phase"] == "training step"].set_index("contender")
    assert whole["ms_median"].to_dict() == {"reference": 400, "twin": 370}
    assert whole["share"].to_dict() == pytest.approx({"reference": 0.1, "twin": 10 / 370})


@pytest.mark.usefixtures("artificial_worker")
def test_rows_and_samples_are_written_and_read_back(tmp_path: Path) -> None:
    with Campaign([UNIT], threads=1) as campaign:
        campaign.run()
        write(campaign, tmp_path)
        expected = len(list(rows(campaign)))
    assert len(pd.read_parquet(tmp_path / "rows.parquet")) == len(pd.read_csv(tmp_path / "rows.csv")) == expected
    assert len(pd.read_parquet(tmp_path / "samples.parquet")) == 2 * 3 * 2, "processes × rounds × contenders"


def test_nothing_is_written_when_nothing_was_measured(tmp_path: Path) -> None:
    with Campaign([], threads=1) as campaign:
        campaign.run()
        write(campaign, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("artificial_worker")
def test_the_default_plan_runs_to_its_end() -> None:
    planned = [replace(unit, workload=replace(SMALL, name=unit.workload.name)) for unit in units("default", [BASELINE, TORCH_TWIN])]
    screen = io.StringIO()
    progress = Progress(campaign_module.NOUN, file=screen)
    with Campaign(planned, 1, progress) as campaign, progress:
        campaign.run()
    count = sum(unit.sampling.processes for unit in planned)
    assert f"{count:,} of {count:,} units measured, each once a process in " in screen.getvalue()
    assert all(len(results.rounds) == unit.sampling.processes for unit, results in campaign.results.items())
