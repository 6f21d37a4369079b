"""Which revision rows are of, and when they were made."""

from __future__ import annotations

import pandas as pd

from reports.document import Fact


def provenance(rows: pd.DataFrame, written: str) -> tuple[Fact, ...]:
    """Revision and time, as far as the rows tell; ``written`` says what was done then."""
    return tuple(
        Fact(label, ", ".join(sorted(rows[name].dropna().unique())))
        for name, label in (("commit", "revision"), ("written", written))
        if rows[name].notna().any()
    )
