"""Reports of bench and gate runs: their golden summaries, and pages that a browser opens without errors."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pandas as pd
import pytest

from properties.tests.reports.test_reports import assert_opens_in_a_browser, assert_self_contained
from reports import markdown, page, pictures
from reports.bench.report import build as build_bench
from reports.bench.schema import SCHEMA as BENCH_SCHEMA
from reports.document import Report
from reports.gate.report import KIND as GATE
from reports.registry import KINDS
from reports.rows import validated

GOLDEN = Path(__file__).parent / "golden"
MADE: dict[str, Any] = {
    "twinloss": "0.1.0",
    "ultralytics": "8.4.190",
    "torch": "2.15.0",
    "python": "3.11.7",
    "cpu": "a processor, 2 cores",
    "gpu": "none",
    "threads": "2",
    "system": "Linux, glibc 2.36",
    "commit": "0123456789ab",
    "written": "2026-01-02T03:04:05+00:00",
    "copy_bytes_per_s": 3e10,
    "exp_per_s": 1.5e9,
    "origin": "COCO val2017 ground truth",
}
# Milliseconds of the reference and of the twin, which is slower on the last workload.
TIMES = {"coco": (140.0, 28.0), "gwhd": (182.0, 20.0), "batch-1": (7.0, 7.7)}
FASTER = 5.0


def bench_rows() -> Iterator[dict[str, Any]]:
    """A small run: three workloads, two heaps, three dtypes for one, stages, a training step, and one sweep."""
    for at, (workload, times) in enumerate(TIMES.items()):
        described = {
            "workload": workload,
            "what": f"{workload} at 640 px",
            "boxes": 100 * at,
            "anchors": 8400,
            "classes": 80,
            "reg_max": 16,
        }
        described |= {"images": 16, "gradient_bytes": 80_000_000, "floor_bytes_ms": 4.0, "floor_exp_ms": 7.2}
        for heap, slow in (("steady", 1.0), ("default", 2.0)):
            yield from steps(
                described | {"heap": heap, "dtype": "float32"}, times[0] * slow, times[1], faults=150_000 if heap == "default" else 0
            )
        if workload == "coco":
            for dtype in ("bfloat16", "bfloat16+autocast(bfloat16)"):
                yield from steps(described | {"heap": "steady", "dtype": dtype}, 120.0, 30.0, faults=0)
            failed = {"contender": "mine:make", "backend": "own", "phase": "step", "note": "TypeError: no"}
            yield described | failed | {"heap": "steady", "dtype": "float32"}
            for stage, share in (("assignment", 0.4), ("terms", 0.5), ("gradients", 0.1)):
                timed = {"phase": f"stage: {stage}", "ms_median": 28 * share, "share": share, "heap": "steady", "dtype": "float32"}
                yield described | {"contender": "twin", "backend": "torch"} | timed
            for contender, backend, loss in (("reference", "eager", 140.0), ("twin", "torch", 28.0)):
                common = described | {
                    "contender": contender,
                    "backend": backend,
                    "heap": "steady",
                    "dtype": "float32",
                    "note": "yolov8n.yaml",
                }
                yield common | {"phase": "training step", "ms_median": 3000 + loss, "share": loss / (3000 + loss)}
                yield common | {"phase": "loss in training step", "ms_median": loss, "share": loss / (3000 + loss)}
    for size in (1, 8, 64, 512):
        swept = {"workload": f"boxes={size}", "sweep": "boxes per image", "size": size, "heap": "steady", "dtype": "float32"}
        yield from steps(swept | {"gradient_bytes": 20_000_000}, 20.0 + size, 5.0 + 0.05 * size, faults=0)
    fit = {
        "workload": "scaling: boxes per image",
        "sweep": "boxes per image",
        "phase": "growth of step",
        "heap": "steady",
        "dtype": "float32",
    }
    for contender, backend, exponent in (("reference", "eager", 1.0), ("twin", "torch", 0.98)):
        exponents = {"exponent": exponent, "exponent_lo95": exponent - 0.05, "exponent_hi95": exponent + 0.05, "ms_median": 5.0}
        yield fit | {"contender": contender, "backend": backend} | exponents


def steps(common: dict[str, Any], reference: float, twin: float, faults: int) -> Iterator[dict[str, Any]]:
    """Rows of reference and twin in all three phases."""
    for contender, backend, time in (("reference", "eager", reference), ("twin", "torch", twin)):
        for phase, share in (("forward", 0.8), ("backward", 0.2), ("step", 1.0)):
            ratio = reference / time
            timed = {"ms_median": time * share, "ms_q1": time * share * 0.95, "ms_q3": time * share * 1.1, "rounds": 40, "processes": 4}
            ratios = {"ratio_to_reference": ratio, "ratio_lo95": 0.96 * ratio, "ratio_hi95": 1.04 * ratio}
            whole = {"images_per_s": 16e3 / time, "minor_faults": faults if contender == "reference" else faults // 10, "warm_ms": 3 * time}
            peak = {"peak_bytes": (300_000_000 if contender == "reference" else 81_000_000) if phase != "backward" else None}
            yield (
                common
                | {"contender": contender, "backend": backend, "phase": phase}
                | timed
                | ratios
                | peak
                | (whole if phase == "step" else {})
            )


@functools.cache
def bench_report() -> Report:
    frame = pd.DataFrame([MADE | {"device": "cpu"} | row for row in bench_rows()])
    return build_bench(validated(frame, BENCH_SCHEMA, Path("rows.parquet")), diff_rows=Path("there", "is", "none"))


def gate_rows(outcome: str) -> pd.DataFrame:
    """A gate run with this outcome."""
    head = {"outcome": outcome, "base": "0123456789abcdef", "head": "fedcba987654+", "threshold": 1.1, **MADE}
    said = {
        "PASS": [("finding", "PASS", "coco", "head / base is 1.001 [0.985, 1.020]")],
        "FAIL": [
            ("finding", "PASS", "coco", "head / base is 1.001 [0.985, 1.020]"),
            ("finding", "FAIL", "crowded", "slower: head / base is 1.152 [1.120, 1.180], and again 1.149 [1.118, 1.170]"),
            ("finding", "FAIL", "coco", "peak_step: 1,000 before, 1,001 now; if this is intended, give --allow coco:peak_step"),
        ],
        "INCONCLUSIVE": [
            ("finding", "INCONCLUSIVE", "coco", "no pass in which the reference was steady"),
            ("note", "INCONCLUSIVE", "coco", "pass 1: the reference moved by +9.0 % [+6.0 %, +12.0 %]"),
        ],
    }[outcome]
    records: list[dict[str, Any]] = [
        head | {"kind": kind, "verdict": verdict, "row": row, "text": text} for kind, verdict, row, text in said
    ]
    for row, ratio in (("coco", 1.001), ("crowded", 1.152 if outcome == "FAIL" else 0.99)):
        for program, value in (("twin", ratio), ("reference", 1.002)):
            for clock in ("cpu", "wall"):
                estimate = {"kind": "estimate", "pass": 1, "clock": clock, "program": program, "row": row, "pairs": 8}
                records.append(head | estimate | {"ratio": value, "lo95": value - 0.03, "hi95": value + 0.03})
    return pd.DataFrame(records)


@functools.cache
def gate_report(outcome: str) -> Report:
    return GATE.build(validated(gate_rows(outcome), GATE.schema, Path("rows.parquet")))


def golden() -> dict[str, str]:
    """Summaries by the file that holds what they should be."""
    gates = {f"gate-{outcome.lower()}.md": markdown.render(gate_report(outcome)) for outcome in ("PASS", "FAIL", "INCONCLUSIVE")}
    return gates | {"bench.md": markdown.render(bench_report())}


@pytest.mark.parametrize("name", ["bench.md", "gate-pass.md", "gate-fail.md", "gate-inconclusive.md"])
def test_the_summary_is_the_golden_one(name: str) -> None:
    assert golden()[name] == (GOLDEN / name).read_text("utf-8")


def test_a_summary_is_short_enough_for_a_jobs_page() -> None:
    assert all(len(text) < 20_000 for text in golden().values())


def test_where_the_twin_is_slower_stands_in_plain_sight() -> None:
    report = bench_report()
    assert report.tone == "warn"
    assert "slower in 1 of 12 steps" in report.headline
    (section,) = [section for section in report.sections if section.heading == "Where it is slower"]
    assert section.brief, "it is in the short summary too"
    text = markdown.render(report)
    assert "| batch-1 | twin (torch) | step | float32 | steady | 7.00 | 7.70 | ⚠ 0.909 | 0.873 | ✗ 0.945 |" in text


def test_a_run_in_which_nothing_is_slower_says_so() -> None:
    rows = [MADE | {"device": "cpu"} | row for row in bench_rows() if row["workload"] != "batch-1"]
    report = build_bench(validated(pd.DataFrame(rows), BENCH_SCHEMA, Path("rows.parquet")), diff_rows=Path("none"))
    assert report.tone == "good"
    assert "Nowhere: no phase of any workload took longer" in markdown.render(report)


def test_what_could_not_be_measured_is_named() -> None:
    text = markdown.render(bench_report())
    assert (
        "| coco | float32 | steady | mine:make (own) | `TypeError: no` |" in text
        or "| coco | float32 | steady | mine:make | `TypeError: no` |" in text
    )
    assert "CUDA was not measured" in text


def test_colours_of_the_gate() -> None:
    assert [gate_report(outcome).tone for outcome in ("PASS", "FAIL", "INCONCLUSIVE")] == ["good", "bad", "warn"]


def test_a_run_of_one_workload_is_a_report_too() -> None:
    rows = [MADE | {"device": "cpu"} | row for row in bench_rows() if row["workload"] == "gwhd" and row["heap"] == "steady"]
    report = build_bench(validated(pd.DataFrame(rows), BENCH_SCHEMA, Path("rows.parquet")), diff_rows=Path("none"))
    assert "The C library's default heap was not measured." in markdown.render(report)
    assert "<svg" in page.render(report)


def test_both_kinds_are_registered() -> None:
    assert {"bench", "gate"} <= set(KINDS)


REPORTS: dict[str, Callable[[], Report]] = {"bench": bench_report, "gate": functools.partial(gate_report, "FAIL")}


@pytest.mark.parametrize("name", REPORTS)
def test_the_page_is_self_contained(name: str) -> None:
    assert_self_contained(page.render(REPORTS[name]()))


@pytest.mark.parametrize("name", REPORTS)
def test_the_page_opens_in_a_browser(tmp_path: Path, name: str) -> None:
    assert_opens_in_a_browser(page.render(REPORTS[name]()), tmp_path, height=6000)


def test_the_pictures_of_the_readme_stand_alone_and_follow_light_and_dark(tmp_path: Path) -> None:
    rows = pd.DataFrame([MADE | {"device": "cpu"} | row for row in bench_rows()])
    rows.to_csv(tmp_path / "bench.csv", index=False)
    drawn = dict(pictures.pictures(tmp_path / "bench.csv"))
    assert set(drawn) == {"ratios", "boxes"}
    for figure in drawn.values():
        text = pictures.standalone(figure)
        root = ET.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        used, defined = set(re.findall(r"var\((--[\w-]+)\)", text)), set(re.findall(r"(--[\w-]+):", text))
        assert used <= defined
        assert "prefers-color-scheme: dark" in text
        assert 'href="http' not in text
