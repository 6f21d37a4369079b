"""``python -m reports.gpu``: write the committed texts from the rows of the last runs.

``gpu.md`` is the summary of the last run on a GPU, or states that there was none; ``kernels.md`` that of the last compilation, and
``traffic.md`` that of the memory traffic. Rows measured on a GPU are written to one file for each run, ``measured/DATE-GPU-REVISION.csv``;
rows without a GPU are not.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd

from reports import markdown
from reports.gpu.compiled import KIND as COMPILED
from reports.gpu.report import KIND, MISSING
from reports.gpu.traffic import KIND as TRAFFIC
from reports.rows import RowsError, read

HERE = Path(__file__).parent
OUT = HERE.parent / "out"


def texts(gpu: pd.DataFrame | None, compiled: pd.DataFrame | None, traffic: pd.DataFrame | None = None) -> dict[str, str]:
    """Returns the texts of the committed files by name, for the runs whose rows are given."""
    files = {}
    for kind, rows in ((COMPILED, compiled), (TRAFFIC, traffic)):
        if rows is not None:
            files[f"{kind.name}.md"] = markdown.render(kind.build(rows))
            files[f"{kind.name}.csv"] = rows.to_csv(index=False, lineterminator="\n")
    if gpu is not None:
        files["gpu.md"] = markdown.render(KIND.build(gpu))
        measured = gpu[gpu["verdict"] != MISSING]
        if len(measured):
            files[f"measured/{run_name(measured)}.csv"] = gpu.to_csv(index=False, lineterminator="\n")
    return files


def run_name(rows: pd.DataFrame) -> str:
    """Returns the name of a run: date, GPU and revision.

    Raises:
        RowsError: the rows are of several runs, or of a run without a GPU.
    """
    runs = rows[["written", "gpu", "commit"]].drop_duplicates()
    if len(runs) != 1:
        raise RowsError(f"the rows are of {len(runs)} runs; keep each by itself, as `nox -s gpu` writes it")
    written, gpu, commit = map(str, runs.iloc[0])
    if gpu == "none":
        raise RowsError("the rows have measurements without a GPU; write them anew with `nox -s gpu`")
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in (written[:10], gpu, commit))


def main() -> int:
    """Write the texts of the runs whose rows exist; returns 2 when there are none, or rows are wrong, else 0."""
    try:
        files = texts(*(read(_rows(kind.name), kind.schema) if _rows(kind.name).exists() else None for kind in (KIND, COMPILED, TRAFFIC)))
    except RowsError as error:
        print(f"reports.gpu: {error}", file=sys.stderr)
        return 2
    if not files:
        print("reports.gpu: there are no rows yet; write some with `nox -s gpu` or `nox -s kernels`", file=sys.stderr)
        return 2
    for name, text in files.items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_text(text, "utf-8")
        print(f"reports/gpu/{name}: {len(text.splitlines())} lines")
    return 0


def _rows(name: str) -> Path:
    return OUT / name / "rows.parquet"


if __name__ == "__main__":
    sys.exit(main())
