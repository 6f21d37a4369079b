"""The reports of the Triton kernels: they show failures and what was not measured, and keep only rows of a GPU as measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reports import markdown, page
from reports.gpu import __main__ as keeping
from reports.gpu.compiled import KIND as COMPILED
from reports.gpu.report import KIND
from reports.gpu.traffic import KIND as TRAFFIC
from reports.registry import KINDS
from reports.rows import RowsError, validated

HERE = Path("rows.parquet")
RUN = {"gpu": "NVIDIA H200", "torch": "2.15.0", "triton": "3.9.0", "commit": "0123abcd+", "written": "2026-02-03T04:05:06+00:00"}
NONE = "There is no GPU here"


def _finding(check: str, verdict: str, value: float | None = None, limit: float | None = None, **other: str) -> dict[str, Any]:
    named = {"what": "a step", "unit": "times", "workload": "coco", "dtype": "float16", "detail": ""}
    return {"check": check, "verdict": verdict, "value": value, "limit": limit} | named | RUN | other


def _kernel(name: str, spills: int = 0, **other: Any) -> dict[str, Any]:
    numbers = {"warps": 4, "registers": 62, "stack_bytes": 0, "shared_bytes": 32, "resident_warps": 32, "instructions": 700}
    words = {"kernel": name, "variant": "coco", "dtype": "float16", "capability": 90, "triton": "3.9.0"}
    return words | numbers | {"spills": spills} | other


def _rows(kind: Any, rows: list[dict[str, Any]]) -> pd.DataFrame:
    return validated(pd.DataFrame(rows), kind.schema, HERE)


MEASURED = [
    _finding("counts", "passed", 11, 12, what="launches"),
    _finding("speed", "passed", 41.5, 30),
    _finding("bits", "passed", what="100 runs are equal"),
    _finding("kernels", "measured", 7.5, unit="µs", what="candidates_and_softplus_kernel"),
    _finding("sanitizer", "not measured", what="racecheck", detail="compute-sanitizer is not installed"),
]
MISSING = [_finding(check, "not measured", None, 30.0, detail=NONE, gpu="none") for check in ("speed", "counts")]


def test_all_kinds_are_known() -> None:
    assert KINDS["gpu"] is KIND
    assert KINDS["kernels"] is COMPILED
    assert KINDS["traffic"] is TRAFFIC


def test_without_a_gpu_the_report_says_so_in_plain_words() -> None:
    report = KIND.build(_rows(KIND, MISSING))
    text = markdown.render(report)
    assert report.headline.startswith("Not measured on a GPU")
    assert report.tone == "warn"
    assert text.count(NONE) == 2
    assert "not measured" in page.render(report)


def test_what_holds_and_what_was_not_measured() -> None:
    report = KIND.build(_rows(KIND, MEASURED))
    text = markdown.render(report)
    assert report.headline == "Every check passed; 1 findings were not measured"
    kernel = "candidates_and_softplus_kernel"
    for shown in ("launches", "100 runs are equal", kernel, "compute-sanitizer is not installed", "NVIDIA H200", "0123abcd+"):
        assert shown in text


def test_a_failure_is_red_and_comes_first() -> None:
    report = KIND.build(_rows(KIND, [*MEASURED, _finding("counts", "failed", 3, 0, what="synchronisations", detail="loss.py:12")]))
    assert report.tone == "bad"
    assert report.sections[0].heading == "What failed"
    assert "loss.py:12" in markdown.render(report).split("## Limits")[0]


def test_a_kernel_that_spills_is_red() -> None:
    sound = [
        _kernel("candidates_and_softplus", registers=58),
        _kernel("candidates_and_softplus", registers=60, variant="odd"),
        _kernel("held_terms", capability=80),
    ]
    report = COMPILED.build(_rows(COMPILED, sound))
    assert report.tone == "good"
    assert report.headline == "No kernel spills: 2 kernels, compiled for sm_80 and sm_90"
    table = report.console.frame
    assert table.loc[table["kernel"] == "candidates_and_softplus", "registers"].tolist() == [60]
    spoilt = COMPILED.build(_rows(COMPILED, [*sound, _kernel("merge", spills=4)]))
    assert spoilt.tone == "bad"
    assert spoilt.headline == "1 of 3 kernels spill"
    assert spoilt.sections[0].heading == "What spills"


def _moved(kernel: str, sectors: int, **other: Any) -> dict[str, Any]:
    step = {"workload": "coco", "dtype": "float16", "capability": 90, "floor_bytes": 1000}
    return step | {"kernel": kernel, "asked_bytes": 500, "sector_bytes": sectors} | other


def test_what_a_step_moves_is_held_against_the_floor() -> None:
    rows = [
        _moved("candidates_and_softplus", 700),
        _moved("held_terms", 450),
        _moved("candidates_and_softplus", 3300, workload="boxes-300"),
    ]
    report = TRAFFIC.build(_rows(TRAFFIC, rows))
    assert report.headline == "A step on coco in float16 moves 1.15 times the floor; most on boxes-300 in float16: 3.30 times"
    text = markdown.render(report)
    assert "the counts are not measured on a GPU" in text
    assert report.console.frame["asked_bytes"].tolist() == [1000, 500]
    assert set(keeping.texts(None, None, _rows(TRAFFIC, rows))) == {"traffic.md", "traffic.csv"}


def test_only_what_ran_on_a_gpu_is_kept_as_measured() -> None:
    kept = keeping.texts(_rows(KIND, MEASURED), None)
    assert set(kept) == {"gpu.md", "measured/2026-02-03-nvidia-h200-0123abcd.csv"}
    assert set(keeping.texts(_rows(KIND, MISSING), _rows(COMPILED, [_kernel("candidates_and_softplus")]))) == {
        "gpu.md",
        "kernels.md",
        "kernels.csv",
    }
    for mixed in ([*MEASURED, _finding("speed", "passed", 2, 1, gpu="none")], [_finding("speed", "passed", 2, 1, gpu="none")]):
        with pytest.raises(RowsError, match="nox -s gpu"):
            keeping.texts(_rows(KIND, mixed), None)


def test_the_committed_texts_are_those_of_their_rows() -> None:
    folder = Path(keeping.__file__).parent
    compiled, traffic = (
        validated(pd.read_csv(folder / f"{kind.name}.csv"), kind.schema, folder / f"{kind.name}.csv") for kind in (COMPILED, TRAFFIC)
    )
    for kind, rows in ((COMPILED, compiled), (TRAFFIC, traffic)):
        assert (folder / f"{kind.name}.md").read_text("utf-8") == markdown.render(kind.build(rows))
    assert not compiled["spills"].any()
    assert {80, 90} <= set(compiled["capability"])
    measured = sorted((folder / "measured").glob("*.csv"))
    summary = (folder / "gpu.md").read_text("utf-8")
    assert measured or "Not measured on a GPU" in summary
    for file in measured:
        assert f"{keeping.run_name(pd.read_csv(file, dtype={'commit': str}).query('verdict != @keeping.MISSING'))}.csv" == file.name
