"""The page of the matrix, and the badge of each of its columns."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from reports.document import Fact, Kind, Report, Section
from reports.matrix import tables
from reports.matrix.schema import CANNOT_RUN, CONDUCT, DIFFERS, HALF, NOT_OFFERED, SAME, SCHEMA


def build(rows: pd.DataFrame) -> Report:
    """Returns the report of these rows."""
    return Report(
        kind="matrix",
        title="The matrix of implementations",
        headline=headline(rows),
        tone="plain",
        facts=tuple(facts(rows)),
        sections=tuple(sections(rows)),
        console=tables.implementations(rows),
    )


def headline(rows: pd.DataFrame) -> str:
    """Returns the outcome as one sentence."""
    packages = rows[rows["kind"] == "package"]
    ran = packages.groupby("column")["verdict"].agg(lambda found: not (found == CANNOT_RUN).all())
    same = packages.groupby("column")["verdict"].agg(lambda found: not found.isin((DIFFERS, CANNOT_RUN)).any())
    return f"{int(ran.sum())} of {len(ran)} third-party packages ran; {int(same.sum())} of them compute the definition as it is"


def facts(rows: pd.DataFrame) -> Iterator[Fact]:
    """Yields the figures at the top."""
    yield Fact("third-party packages", str(rows.loc[rows["kind"] == "package", "column"].nunique()))
    yield Fact("releases of the reference", str(rows.loc[rows["kind"] == "release", "column"].nunique()))
    counts = rows["verdict"].value_counts()
    for verdict in (SAME, DIFFERS, NOT_OFFERED, CANNOT_RUN):
        yield Fact(verdict, str(counts.get(verdict, 0)))
    compared = rows[(rows["verdict"] == DIFFERS) & ~rows["feature"].isin((CONDUCT, HALF))]
    whole = int((compared["proved"] == compared["answered"]).sum())
    yield Fact("differences with a whole counter-proof", f"{whole} of {len(compared)}")


def sections(rows: pd.DataFrame) -> Iterator[Section]:
    """Yields the sections."""
    legend = "– : not offered. Every column is asked with the newest definition."
    yield Section("Third-party packages", (tables.matrix(rows, ("twin", "package"), "Features by package", legend),))
    if (rows["kind"] == "release").any():
        yield Section("Releases of the reference", (tables.matrix(rows, ("release",), "Features by release", legend),))
    if (rows["verdict"] == DIFFERS).any():
        yield Section("Differences", (tables.differences(rows),))
    yield Section("What is not compared as numbers", (tables.others(rows),))
    yield Section("Implementations", (tables.implementations(rows),))
    made = ", ".join(f"{name} {', '.join(sorted(rows[name].dropna().unique()))}" for name in ("twinloss", "torch", "python"))
    yield Section(
        "Made with", (f"Every implementation ran with {made}, on the CPU with one thread, in a process of its own but the twin.",)
    )


def badge(rows: pd.DataFrame) -> dict[str, object]:
    """Returns the JSON of shields.io's endpoint badge for the rows of one column."""
    counts = rows["verdict"].value_counts()
    same, differs = int(counts.get(SAME, 0)), int(counts.get(DIFFERS, 0))
    message = f"{same} of {same + differs} features" if same + differs else CANNOT_RUN
    color = "lightgrey" if not same + differs else "brightgreen" if not differs else "orange"
    return {"schemaVersion": 1, "label": str(rows["column"].iloc[0]), "message": message, "color": color}


KIND = Kind("matrix", SCHEMA, build)
