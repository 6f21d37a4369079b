"""The report of what a step's kernels move through memory: counted on compiled code, without a GPU."""

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
        "capability": "count",  # times ten
        "kernel": "text",  # in the order of the launches
        "asked_bytes": "count",  # that threads read or wrote
        "sector_bytes": "count",  # of the sectors in which those lie
        "floor_bytes": "count",  # of the whole step: what any implementation moves
    },
    optional={"commit": "text", "written": "text"},
    written_by="nox -s kernels",
)

HOW = (
    "Compiled code ran on the host, and every access was counted: it was not measured on a GPU, and this says nothing about time. "
    "Memory is handed out in sectors of 32 bytes: what a warp asks for in one instruction costs the sectors in which it lies. No cache "
    "counts, so what several warps want counts for each. The floor is what any implementation moves: logits read forward, class logits "
    "again backward, both gradients written."
)
KEYS = ["workload", "dtype", "capability"]


def build(rows: pd.DataFrame) -> Report:
    """The report of these rows, which have the columns of :data:`SCHEMA`."""
    steps = by_step(rows)
    over = dict(zip(steps["workload"] + " in " + steps["dtype"], steps["over_floor"], strict=True))
    first, most = next(iter(over)), max(over, key=lambda step: over[step])
    headline = f"A step on {first} moves {over[first]:.2f} times the floor; most on {most}: {over[most]:.2f} times"
    columns = (*_keys(), Column("asked_bytes", "asked for", "bytes"), Column("sector_bytes", "sectors", "bytes"))
    floor = (Column("floor_bytes", "floor", "bytes"), Column("over_floor", "sectors / floor", "ratio"))
    summary = Table("By step", (*columns, *floor), steps)
    every = Table("By kernel", (*_keys(), Column("kernel", "kernel", "code"), *columns[2:]), rows)
    sections = (Section("By step", (summary, HOW)), Section("By kernel", (every,)))
    return Report("traffic", "What a step of the Triton kernels moves", headline, "plain", provenance(rows, "counted"), sections, summary)


def by_step(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a step: the sums over its kernels, and their sectors over the floor."""
    grouped = rows.groupby(KEYS, sort=False)
    steps = grouped.agg(asked_bytes=("asked_bytes", "sum"), sector_bytes=("sector_bytes", "sum"), floor_bytes=("floor_bytes", "first"))
    return steps.reset_index().assign(over_floor=lambda frame: frame["sector_bytes"] / frame["floor_bytes"])


def _keys() -> tuple[Column, ...]:
    return Column("workload", "workload"), Column("dtype", "logits")


KIND = Kind("traffic", SCHEMA, build)
