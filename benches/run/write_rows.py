"""Writes the rows of a bench run as parquet and as CSV, and all samples as parquet."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benches.run.campaign import Campaign
from benches.run.rows import rows

OUT = Path("reports", "out", "bench")


def write(campaign: Campaign, folder: Path) -> None:
    """Write ``rows.parquet``, ``rows.csv`` and ``samples.parquet``; write nothing when nothing was measured."""
    frame = pd.DataFrame(list(rows(campaign)))
    if frame.empty:
        return
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "rows.parquet", index=False)
    frame.to_csv(folder / "rows.csv", index=False)
    samples = [
        {"unit": unit.name, "process": process, "round": at, "contender": label} | sample
        for unit, results in campaign.results.items()
        for process, rounds in enumerate(results.rounds)
        for at, one in enumerate(rounds)
        for label, sample in one.items()
    ]
    pd.DataFrame(samples).to_parquet(folder / "samples.parquet", index=False)
