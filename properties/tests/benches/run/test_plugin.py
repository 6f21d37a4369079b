"""The command that a user types: options, and samples that arrive in pytest-benchmark's own statistics."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benches.run.plugin import check_labels, pytest_addoption

pytest_plugins = ["pytester"]

REPLAYED = """
import pytest
from benches.run.replay_clock import CLOCK

@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("samples", [[0.004, 0.002, 0.003, 0.008, 0.003], [1e-7, 123.456]], ids=["milliseconds", "extremes"])
def test_replayed(benchmark, samples):
    CLOCK.replay(benchmark, samples)
"""


def test_samples_reach_pytest_benchmark_unchanged(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest-benchmark takes a worker's environment for one in which it must not measure; and CI changes its table's colours and names.
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST") or name == "CI"]:
        monkeypatch.delenv(name)
    pytester.makepyfile(REPLAYED)
    pytester.makeini(f"[pytest]\npythonpath = {ROOT}")
    result = pytester.runpytest_subprocess(
        "-p", "no:xdist", "--benchmark-json=out.json", "--benchmark-save-data", "--benchmark-columns=median,rounds"
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_replayed*extremes*"])
    recorded = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    data = {entry["param"]: entry["stats"] for entry in recorded}
    assert data["milliseconds"]["data"] == [0.004, 0.002, 0.003, 0.008, 0.003]
    assert data["milliseconds"]["median"] == pytest.approx(0.003)
    assert data["milliseconds"]["rounds"] == 5
    assert data["extremes"]["data"] == [1e-7, 123.456]


ROOT = Path(__file__).resolve().parents[4]
BENCH = (f"--rootdir={ROOT}", "-c", str(ROOT / "pyproject.toml"), str(ROOT / "benches" / "run" / "bench_loss.py"))
COLLECT = ("-p", "benches.run.plugin", "-p", "no:xdist", "-p", "no:cacheprovider", "--collect-only", "-q")


def test_every_benchmark_can_be_chosen_by_name(pytester: pytest.Pytester) -> None:
    chosen = pytester.runpytest_subprocess(*COLLECT, *BENCH, "-k", "gwhd and default and step")
    lines = [line for line in chosen.outlines if "::" in line]
    assert [line.partition("[")[2] for line in lines] == [
        "gwhd-float32-default-reference/eager-step]",
        "gwhd-float32-default-twin/native-step]",
        "gwhd-float32-default-twin/torch-step]",
    ]


def test_a_candidate_is_measured_beside_the_others(pytester: pytest.Pytester) -> None:
    options = ("--candidate", "mine.losses:make", "--extent", "quick", "--no-compile", "-k", "batch-1 and step")
    chosen = pytester.runpytest_subprocess(*COLLECT, *BENCH, *options)
    lines = [line.partition("steady-")[2] for line in chosen.outlines if "::" in line]
    assert lines == ["reference/eager-step]", "twin/native-step]", "twin/torch-step]", "mine.losses:make/own-step]"]


@pytest.mark.parametrize(
    ("labels", "imgsz", "batch", "message"),
    [
        ("nowhere", 640, 16, r"no labels at .*nowhere; give a COCO-style"),
        ("", 640, 16, r"workload 'labels:' is unknown"),
        ("bad", 640, 16, r"a\.txt, line 1, '0 0\.5': 2 values; expected"),
        ("good", 650, 16, r"imgsz 650 is not a multiple"),
        ("good", 640, 0, r"batch is 0; give 1 image or more"),
    ],
)
def test_labels_that_cannot_be_measured_are_a_usage_error(
    labels: str, imgsz: int, batch: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("bad", "0 0.5"), ("good", "0 0.5 0.5 0.1 0.1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(text)
    with pytest.raises(pytest.UsageError, match=message):
        check_labels([str(tmp_path / labels) if labels in ("bad", "good") else labels], imgsz, batch)


def test_a_usage_error_is_printed_once(pytester: pytest.Pytester) -> None:
    ended = pytester.runpytest_subprocess(*COLLECT, *BENCH, "--labels", "nowhere")
    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    ended.stderr.fnmatch_lines(["ERROR: no labels at *nowhere; give a COCO-style*"])
    assert "Traceback" not in ended.stderr.str() + ended.stdout.str()


def test_the_options_are_the_documented_ones() -> None:
    parser = pytest.Parser(_ispytest=True)
    pytest_addoption(parser)
    names = {name for group in parser._groups for option in group.options for name in option.names()}
    assert names == {
        "--task",
        "--labels",
        "--kpt-shape",
        "--imgsz",
        "--batch",
        "--candidate",
        "--extent",
        "--threads",
        "--device",
        "--no-compile",
        "--out",
    }
