"""The committed texts of the matrix: merged runs, changes of cells, badges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from reports.matrix.__main__ import changes, main, merged
from reports.matrix.report import badge, build
from reports.matrix.schema import CANNOT_RUN, DIFFERS, SAME, SCHEMA


def cell(column: str = "mine@1.0", feature: str = "top-k", verdict: str = SAME, **more: Any) -> dict[str, Any]:
    package, version = column.split("@")
    texts = {name: "" for name, kind in SCHEMA.required.items() if kind == "text"}
    numbers = {name: 0.0 for name, kind in SCHEMA.required.items() if kind != "text"}
    own = {"column": column, "package": package, "version": version, "kind": "package", "feature": feature, "verdict": verdict}
    return {**texts, **numbers, **own, **more}


def test_a_run_of_one_column_keeps_the_others_and_tells_what_changed() -> None:
    old = pd.DataFrame([cell(), cell("other@2.0")])
    new = pd.DataFrame([cell(verdict=DIFFERS, what="K - 1 instead of K [5.4]")])
    rows = merged(old, new)
    assert list(rows["column"]) == ["mine@1.0", "other@2.0"]
    changed = changes(old, rows, "2026-01-01")
    assert changed.to_dict("records") == [
        {
            "date": "2026-01-01",
            "column": "mine@1.0",
            "feature": "top-k",
            "before": SAME,
            "after": DIFFERS,
            "what": "K - 1 instead of K [5.4]",
        }
    ]


def test_the_texts_are_written_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    rows = [cell("twinloss@0.1", kind="twin"), cell(), cell(feature="conflicts", verdict=DIFFERS, what="contested anchors dropped [5.5]")]
    pd.DataFrame([*rows, cell("broken@1.0", verdict=CANNOT_RUN, what="it needs mmcv")]).to_parquet(tmp_path / "rows.parquet")
    arguments = ["--rows", str(tmp_path / "rows.parquet"), "--out", str(tmp_path / "texts"), "--exit-code"]
    assert main(arguments) == 1
    assert main(arguments) == 0
    page = (tmp_path / "texts" / "matrix.md").read_text("utf-8")
    assert "differs: contested anchors dropped [5.5]" in page
    assert "cannot run" in page
    made = json.loads((tmp_path / "texts" / "badges" / "mine-1.0.json").read_text("utf-8"))
    assert (made["message"], made["color"]) == ("1 of 2 features", "orange")
    assert len((tmp_path / "texts" / "history.csv").read_text("utf-8").splitlines()) == 1 + 4


def test_a_badge_of_what_cannot_run_and_a_headline() -> None:
    broken = pd.DataFrame([cell(verdict=CANNOT_RUN)])
    assert badge(broken)["message"] == CANNOT_RUN
    assert build(pd.DataFrame([cell(), cell("broken@1.0", verdict=CANNOT_RUN)])).headline.startswith(
        "1 of 2 third-party packages ran; 1 of them"
    )
