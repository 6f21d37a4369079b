"""Rows of several tasks: every table names the task, and each contender has a card of each; rows without the column are detection's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from properties.tests.reports.test_reports import rows
from reports import markdown, page
from reports.card.__main__ import main
from reports.diff.report import KIND
from reports.document import Figure, Report
from reports.faults.report import KIND as FAULTS
from reports.hook.report import KIND as HOOK
from reports.rows import validated
from reports.tables import Table


def several() -> pd.DataFrame:
    """The rows of a run of detection, older than the column, beside those of a run of segmentation that found a difference."""
    segment = rows(differing=True)
    segment["case"] = segment["case"].str.replace("a", "c").str.replace("b", "d")
    return pd.concat([rows(differing=False), segment.assign(task="segment")], ignore_index=True)


def report(frame: pd.DataFrame) -> Report:
    return KIND.build(validated(frame, KIND.schema, Path("rows.parquet")))


def tables(found: Report) -> list[Table]:
    return [block for section in found.sections for block in section.blocks if isinstance(block, Table)]


def test_every_table_of_results_names_the_task() -> None:
    made = report(several())
    without = {table.title for table in tables(made) if table.columns[0].key != "task"}
    assert without == {"Made with"}
    stages = made.console
    assert stages.frame["task"].astype(str).tolist() == sorted(stages.frame["task"].astype(str))
    assert set(stages.frame["task"].astype(str)) == {"detect", "segment"}
    assert "segment · wrong · loss · box" in markdown.render(made)
    titles = [block.title for section in made.sections for block in section.blocks if isinstance(block, Figure)]
    assert [title.rpartition("(")[2] for title in titles[:2]] == ["detect)", "segment)"]
    assert page.render(made)


def test_one_task_is_not_named() -> None:
    assert all(table.columns[0].key != "task" for table in tables(report(rows(differing=True))))
    assert all(table.columns[0].key != "task" for table in tables(report(rows(differing=True).assign(task="pose"))))


def test_a_contender_has_a_card_of_each_task(tmp_path: Path) -> None:
    several().to_parquet(tmp_path / "rows.parquet")
    assert main(["--rows", str(tmp_path / "rows.parquet"), "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.glob("card-*.json")} == {"card-twin.json", "card-twin-segment.json", "card-wrong-segment.json"}
    assert "# Conformance card: twin (twinloss" in (tmp_path / "card-twin.md").read_text("utf-8")
    assert "# Conformance card: twin, segmentation loss (twinloss" in (tmp_path / "card-twin-segment.md").read_text("utf-8")
    assert json.loads((tmp_path / "card-wrong-segment.json").read_text("utf-8"))["label"] == "segmentation loss"


def test_faults_and_trials_of_releases_are_listed_by_task() -> None:
    fault = (
        dict.fromkeys(FAULTS.schema.required, "x")
        | dict.fromkeys(("caught", "examples", "images", "boxes", "levels"), 1)
        | {"seconds": 0.5}
    )
    trial: dict[str, Any] = dict.fromkeys(HOOK.schema.required, "x") | dict.fromkeys(
        ("training_calls", "validation_calls", "verifications"), 1
    )
    trial |= {"difference": 1e-7, "verdict": "verified"}
    for kind, record in ((FAULTS, fault), (HOOK, trial)):
        frame = pd.DataFrame([record, record | {"task": "oriented"}])
        made = kind.build(validated(frame, kind.schema, Path("rows.parquet")))
        assert all(table.columns[0].key == "task" for table in tables(made))
        assert tables(made)[0].frame["task"].astype(str).tolist() == ["detect", "oriented"]
