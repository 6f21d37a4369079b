"""``python -m reports.ladder``: write the committed texts of the ladder from the rows of the last run, for each task that it asked about.

Their lines can be compared between revisions: ``ladder.md`` is the summary, ``changes.csv`` every change, ``matrix.csv`` kinds of case by
releases, ``definitions.csv`` the definition that each release computes, ``asked.txt`` the releases that were asked. Those of other tasks
than detection are in folders of their own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from reports import markdown, tasks
from reports.ladder import tables
from reports.ladder.report import build
from reports.ladder.schema import SCHEMA, UNASKED
from reports.rows import RowsError, read

HERE = Path(__file__).parent
ROWS = HERE.parent / "out" / "ladder" / "rows.parquet"
CHANGE = ["release", "before", "adjacent", "kind", "opening", "dtype", "verdict", "array", "size", "message"]


def texts(rows: pd.DataFrame) -> dict[str, str]:
    """Returns the texts of the committed files by path; rows of releases that could not be asked belong to every task."""
    found: dict[str, str] = {}
    for task in rows[rows["kind"] != UNASKED][tasks.TASK].unique():
        own = rows[(rows[tasks.TASK] == task) | (rows["kind"] == UNASKED)].assign(task=task)
        folder = "" if task == tasks.DETECT else f"{task}/"
        found |= {f"{folder}{name}": text for name, text in of_task(own).items()}
    return found


def of_task(rows: pd.DataFrame) -> dict[str, str]:
    """Returns the texts of one task by name."""
    changed = tables.changes(rows)
    largest = changed.sort_values("size", ascending=False, kind="stable").drop_duplicates(
        ["release", "kind", "opening", "dtype", "verdict"]
    )
    largest = largest.sort_index()[CHANGE].astype({"adjacent": int})
    return {
        "ladder.md": markdown.render(build(rows)),
        "changes.csv": largest.to_csv(index=False, lineterminator="\n", float_format="%.1e"),
        "matrix.csv": tables.matrix(rows).frame.to_csv(index=False, lineterminator="\n"),
        "definitions.csv": tables.definitions(rows).frame.to_csv(index=False, lineterminator="\n", float_format="%.1e"),
        "asked.txt": "\n".join(tables.in_order(tables.asked(rows)["release"])) + "\n",
    }


def main() -> int:
    """Write the texts; returns 2 when there are no rows, else 0."""
    try:
        rows = read(ROWS, SCHEMA)
    except RowsError as error:
        print(f"reports.ladder: {error}", file=sys.stderr)
        return 2
    for name, text in texts(rows).items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_text(text, "utf-8")
        print(f"reports/ladder/{name}: {len(text.splitlines())} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
