"""The report of the memory traffic of a step's kernels, counted on compiled code, without a GPU."""

from __future__ import annotations

import pandas as pd

from reports.document import Kind, Report, Section
from reports.gpu.provenance import provenance
from reports.rows import Schema
from reports.tables import Column, Table

SCHEMA = Schema(
    required={
        "workload": "text",
        "dtype": "text",
        "capability": "count",  # × 10
        "kernel": "text",  # in the order of the launches
        "asked_bytes": "count",  # bytes that threads read or write
        "sector_bytes": "count",  # bytes of the sectors that contain them
        "floor_bytes": "count",  # bytes that every implementation of the whole step moves
    },
    optional={"commit": "text", "written": "text"},
    written_by="nox -s kernels",
)

HOW = (
    "Compiled code ran on the host, and every access was counted: the counts are not measured on a GPU, and give no times. A GPU accesses "
    "memory in sectors of 32 bytes: an instruction of a warp costs the sectors that contain its bytes. Caches are not modelled: a sector "
    "counts for each warp that accesses it. The floor is the traffic that every implementation needs: it reads all logits, reads the class "
    "logits again backward, and writes both gradients."
)
KEYS = ["workload", "dtype", "capability"]


def build(rows: pd.DataFrame) -> Report:
    """Returns the report of these rows, which have the columns of :data:`SCHEMA`."""
    steps = by_step(rows)
    over = dict(zip(steps["workload"] + " in " + steps["dtype"], steps["over_floor"], strict=True))
    first, most = next(iter(over)), max(over, key=lambda step: over[step])
    headline = f"A step on {first} moves {over[first]:.2f} times the floor; most on {most}: {over[most]:.2f} times"
    columns = (*_keys(), Column("asked_bytes", "accessed", "bytes"), Column("sector_bytes", "sectors", "bytes"))
    floor = (Column("floor_bytes", "floor", "bytes"), Column("over_floor", "sectors / floor", "ratio"))
    summary = Table("By step", (*columns, *floor), steps)
    every = Table("By kernel", (*_keys(), Column("kernel", "kernel", "code"), *columns[2:]), rows)
    sections = (Section("By step", (summary, HOW)), Section("By kernel", (every,)))
    return Report("traffic", "What a step of the Triton kernels moves", headline, "plain", provenance(rows, "counted"), sections, summary)


def by_step(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns one row for each step: the sums over its kernels, and sectors ÷ floor."""
    grouped = rows.groupby(KEYS, sort=False)
    steps = grouped.agg(asked_bytes=("asked_bytes", "sum"), sector_bytes=("sector_bytes", "sum"), floor_bytes=("floor_bytes", "first"))
    return steps.reset_index().assign(over_floor=lambda frame: frame["sector_bytes"] / frame["floor_bytes"])


def _keys() -> tuple[Column, ...]:
    return Column("workload", "workload"), Column("dtype", "logits")


KIND = Kind("traffic", SCHEMA, build)
