"""``python -m reports.matrix``: write the committed texts of the matrix from the rows of the last run.

``matrix.md`` is the page, ``cells.csv`` every cell, ``history.csv`` every change of a cell with its date, ``badges/COLUMN.json`` a badge. A
run of some columns leaves the others as they were.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reports import markdown
from reports.matrix.report import badge, build
from reports.matrix.schema import SCHEMA
from reports.rows import RowsError, read, validated

HERE = Path(__file__).parent
ROWS = HERE.parent / "out" / "matrix" / "rows.parquet"
HISTORY = ["date", "column", "feature", "before", "after", "what"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the texts; returns 1 with ``--exit-code`` if a cell changed, and 2 if the rows cannot be read."""
    parser = argparse.ArgumentParser("python -m reports.matrix", description="Write the committed texts of the matrix.")
    parser.add_argument("--rows", type=Path, default=ROWS, help="default: those of the last `nox -s matrix`")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the texts")
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 if a cell changed")
    options = parser.parse_args(arguments)
    try:
        new = read(options.rows, SCHEMA)
        old = _committed(options.out)
    except RowsError as error:
        print(f"reports.matrix: {error}", file=sys.stderr)
        return 2
    rows = merged(old, new)
    changed = changes(old, rows, dt.datetime.now(dt.timezone.utc).date().isoformat())
    _write(options.out, rows, changed)
    print(f"{rows['column'].nunique()} columns, {len(changed)} cells changed: {options.out}")
    return int(options.exit_code and len(changed) > 0)


def merged(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Returns the new rows, and the old rows of other columns, in the order of kinds."""
    kept = old[~old["column"].isin(new["column"])]
    rows = pd.concat([new, kept], ignore_index=True) if len(kept) else new
    order = rows["kind"].map(["twin", "package", "release"].index)
    return rows.assign(order=order).sort_values("order", kind="stable").drop(columns="order").reset_index(drop=True)


def changes(old: pd.DataFrame, new: pd.DataFrame, date: str) -> pd.DataFrame:
    """Returns the cells whose verdict or difference is another, those of new columns included."""
    keys, shown = ["column", "feature"], ["column", "feature", "verdict", "what"]
    both = new[shown].merge(old[shown], on=keys, how="left", suffixes=("", "_before"))
    both = both.fillna({"verdict_before": "", "what_before": "", "what": ""})
    other = both[(both["verdict"] != both["verdict_before"]) | (both["what"] != both["what_before"])]
    return pd.DataFrame(
        {
            "date": date,
            "column": other["column"],
            "feature": other["feature"],
            "before": other["verdict_before"],
            "after": other["verdict"],
            "what": other["what"],
        },
        columns=HISTORY,
    )


def _committed(folder: Path) -> pd.DataFrame:
    path = folder / "cells.csv"
    if not path.exists():
        return pd.DataFrame(columns=list(SCHEMA.required))
    return validated(pd.read_csv(path, keep_default_na=False, na_values={"before": "", "after": ""}, dtype={"version": str}), SCHEMA, path)


def _write(folder: Path, rows: pd.DataFrame, changed: pd.DataFrame) -> None:
    report = build(rows)
    badges = folder / "badges"
    badges.mkdir(parents=True, exist_ok=True)
    for name, own in rows.groupby("column", sort=False):
        path = badges / (re.sub(r"[^\w.]+", "-", str(name)) + ".json")
        path.write_text(json.dumps(badge(own), indent=1) + "\n", "utf-8")
    (folder / "matrix.md").write_text(markdown.render(report), "utf-8")
    counts = {name: "Int64" for name, kind in SCHEMA.required.items() if kind == "count"}
    rows.astype(counts).to_csv(folder / "cells.csv", index=False, lineterminator="\n", float_format="%.2g")
    history = folder / "history.csv"
    header = not history.exists()
    with history.open("a", encoding="utf-8") as file:
        changed.to_csv(file, index=False, header=header, lineterminator="\n")


if __name__ == "__main__":
    sys.exit(main())
