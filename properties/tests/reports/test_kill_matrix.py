"""The kill matrix: what finds nothing, and what is found by one property alone."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports.faults.kill_matrix import SOUND, alone, build, by_task
from reports.faults.report import SCHEMA
from reports.faults.report import build as report
from reports.rows import Schema


def row(fault: str, found_by: str = "", looked: str = "", mode: str = "stages") -> dict[str, Any]:
    schema: Schema = SCHEMA
    empty: dict[str, Any] = {name: "" if kind == "text" else 1 for name, kind in schema.required.items()}
    return {**empty, "fault": fault, "mode": mode, "caught": int(bool(found_by)), "found_by": found_by, "looked": looked, "task": "detect"}


ROWS = pd.DataFrame(
    [
        row("one", "assign: holders; loss: loss"),
        row("two", "loss: loss"),
        row("two", "loss: loss", mode="end to end"),
        row(SOUND, looked="anchors: centres; assign: holders; loss: loss"),
    ]
)


def test_a_property_that_finds_nothing_comes_first_and_one_that_is_needed_is_named() -> None:
    properties, lone = (block.frame for block in build(ROWS))  # type: ignore[union-attr]
    shown = properties[properties["mode"] == "stages"].set_index("property")
    assert shown.index[0] == "anchors: centres"
    assert shown["faults"].to_dict() == {"anchors: centres": 0, "assign: holders": 1, "loss: loss": 2}
    assert shown["alone"].to_dict() == {"anchors: centres": 0, "assign: holders": 0, "loss: loss": 1}
    assert shown["nothing"].tolist() == [True, False, False]
    assert list(zip(lone["fault"], lone["property"], strict=True)) == [("two", "loss: loss")]


def test_the_table_of_all_tasks_counts_each_task_apart_and_has_what_finds_nothing_first() -> None:
    other = ROWS.assign(task="pose")
    other = other[other["fault"] != "two"].assign(looked=other["looked"].str.replace("anchors: centres; ", ""))
    frame = by_task(pd.concat([ROWS, other], ignore_index=True)).frame.set_index("property")
    assert frame["detect"].to_dict() == {"anchors: centres": "0", "assign: holders": "1", "loss: loss": "2 (1 alone)"}
    assert frame["pose"].to_dict() == {"anchors: centres": "–", "assign: holders": "1", "loss: loss": "1"}
    assert by_task(ROWS).frame.set_index("property")["detect"].iloc[-1] == "2 (1 alone)"


def test_the_report_has_it_where_the_rows_tell() -> None:
    assert "Which property finds which fault" in [section.heading for section in report(ROWS).sections]
    older = ROWS.drop(columns=["found_by", "looked"])
    assert "Which property finds which fault" not in [section.heading for section in report(older).sections]
    assert build(older) == ()


def test_nothing_is_needed_alone_where_two_find_every_fault() -> None:
    assert alone(pd.DataFrame([{**row("one"), "property": "a", "properties": 2}])).frame.empty
