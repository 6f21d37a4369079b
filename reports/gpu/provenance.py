"""Revision and time of rows."""

from __future__ import annotations

import pandas as pd

from reports.document import Fact


def provenance(rows: pd.DataFrame, written: str) -> tuple[Fact, ...]:
    """Returns revision and time, where the rows have them; ``written`` is the label of the time."""
    return tuple(
        Fact(label, ", ".join(sorted(rows[name].dropna().unique())))
        for name, label in (("commit", "revision"), ("written", written))
        if rows[name].notna().any()
    )
