"""Writes example pages for the documentation from the rows committed in ``reports/measured``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports import page
from reports.registry import KINDS
from reports.rows import validated

MEASURED = Path(__file__).parent / "measured"


def write_examples(out: Path) -> None:
    """Write the page of every kind of report whose rows are committed, as ``KIND.html`` in the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted([*MEASURED.glob("*.csv"), *MEASURED.glob("*.parquet")]):
        kind = KINDS[path.stem]
        (out / f"{kind.name}.html").write_text(page.render(kind.build(committed(path))), "utf-8")


def committed(path: Path) -> pd.DataFrame:
    """Returns the rows of a file of :data:`MEASURED`, which is named after their kind of report."""
    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    return validated(frame, KINDS[path.stem].schema, path)
