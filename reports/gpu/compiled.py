"""The report of the compiled kernels: registers, shared memory and spills on each architecture."""

from __future__ import annotations

import pandas as pd

from reports.document import Fact, Kind, Report, Section
from reports.gpu.provenance import provenance
from reports.rows import Schema
from reports.tables import Column, Table, bad_if_any

SCHEMA = Schema(
    required={
        "kernel": "text",
        "variant": "text",  # the call of the loss that launches it
        "dtype": "text",
        "capability": "count",  # × 10
        "warps": "count",
        "registers": "count",  # of a thread
        "spills": "count",  # instructions that move registers to and from memory
        "stack_bytes": "count",
        "shared_bytes": "count",  # of a program
        "resident_warps": "count",  # of 64
        "instructions": "count",
        "triton": "text",
    },
    optional={"commit": "text", "written": "text"},
    written_by="nox -s kernels",
)

HOW = (
    "Read from the machine code that Triton makes for each architecture. Nothing ran, so this says nothing about speed, which `nox -s gpu` "
    "measures. Warps that fit: those that the registers of one multiprocessor hold at once, of 64."
)


def build(rows: pd.DataFrame) -> Report:
    """Returns the report of these rows, which have the columns of :data:`SCHEMA`."""
    spilling = rows[rows["spills"] > 0]
    names, architectures = rows["kernel"].nunique(), [f"sm_{int(capability)}" for capability in sorted(rows["capability"].unique())]
    headline = (
        f"{spilling['kernel'].nunique()} of {names} kernels spill"
        if len(spilling)
        else f"No kernel spills: {names} kernels, compiled for {' and '.join(architectures)}"
    )
    facts = (
        Fact("kernels", str(names)),
        Fact("compilations", str(len(rows))),
        Fact("spilling", str(len(spilling)), "bad" if len(spilling) else "good"),
        Fact("registers at most", f"{int(rows['registers'].max())}"),
        Fact("shared memory at most", f"{int(rows['shared_bytes'].max())} bytes"),
        Fact("compiler", ", ".join(f"Triton {version}" for version in sorted(rows["triton"].unique()))),
        *provenance(rows, "compiled"),
    )
    by_kernel = widest(rows)
    sections = [Section("By kernel, architecture and dtype", (by_kernel, HOW)), Section("Every compilation", (every(rows),), brief=False)]
    if len(spilling):
        sections.insert(0, Section("What spills", (every(spilling),)))
    return Report(
        "kernels", "The Triton kernels as compiled", headline, "bad" if len(spilling) else "good", facts, tuple(sections), by_kernel
    )


def widest(rows: pd.DataFrame) -> Table:
    """Returns the table of the largest use of resources by kernel, architecture and dtype."""
    order = rows["kernel"].drop_duplicates().tolist()
    grouped = rows.groupby(["kernel", "capability", "dtype"], sort=True)
    frame = grouped.agg(
        calls=("variant", "size"),
        registers=("registers", "max"),
        shared_bytes=("shared_bytes", "max"),
        stack_bytes=("stack_bytes", "max"),
        spills=("spills", "max"),
        resident_warps=("resident_warps", "min"),
    ).reset_index()
    frame = frame.sort_values("kernel", key=lambda names: names.map(order.index), kind="stable")
    return Table("By kernel, architecture and dtype", (*_keys(), Column("calls", "calls", "count"), *_numbers()), _named(frame))


def every(rows: pd.DataFrame) -> Table:
    """Returns the table of compilations."""
    extra = (Column("variant", "call"), Column("warps", "warps", "count"))
    return Table("Every compilation", (*_keys(), *extra, *_numbers(), Column("instructions", "instructions", "count")), _named(rows))


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(architecture=frame["capability"].map(lambda capability: f"sm_{int(capability)}"))


def _keys() -> tuple[Column, ...]:
    return Column("kernel", "kernel", "code"), Column("architecture", "for"), Column("dtype", "logits")


def _numbers() -> tuple[Column, ...]:
    return (
        Column("registers", "registers", "count"),
        Column("shared_bytes", "shared, bytes", "count"),
        Column("stack_bytes", "stack, bytes", "count"),
        Column("spills", "spills", "count", bad_if_any),
        Column("resident_warps", "warps that fit", "count"),
    )


KIND = Kind("kernels", SCHEMA, build)
