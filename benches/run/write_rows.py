"""Writes the rows of a bench run as parquet and as CSV, and all samples as parquet."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benches.run.campaign import Campaign
from benches.run.rows import rows
from oracle.tools.atomic_files import write_frame, write_text

OUT = Path("reports", "out", "bench")


def write(campaign: Campaign, folder: Path) -> None:
    """Write ``rows.parquet``, ``rows.csv`` and ``samples.parquet``; write nothing when nothing was measured."""
    frame = pd.DataFrame(list(rows(campaign)))
    if frame.empty:
        return
    write_frame(frame, folder / "rows.parquet")
    write_text(frame.to_csv(index=False), folder / "rows.csv")
    samples = [
        {"unit": unit.name, "process": process, "round": at, "contender": label} | sample
        for unit, results in campaign.results.items()
        for process, rounds in enumerate(results.rounds)
        for at, one in enumerate(rounds)
        for label, sample in one.items()
    ]
    write_frame(pd.DataFrame(samples), folder / "samples.parquet")
