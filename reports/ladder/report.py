"""The report of the release ladder: the changes, the first release of each, and the definition that each release computes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pandas as pd

from reports import tasks
from reports.document import Entry, Fact, Kind, Listing, Report, Section
from reports.ladder import tables
from reports.ladder.schema import ACCEPTANCE, SCHEMA, UNASKED, VALUES
from reports.tables import Tone


def build(rows: pd.DataFrame) -> Report:
    """Returns the report of these rows."""
    rows = tasks.ordered(rows)
    changed = tables.changes(rows)
    overview, unasked = tables.overview(rows), tables.unasked(rows)
    return Report(
        kind="ladder",
        title="The release ladder",
        headline=headline(rows, changed),
        tone="plain",
        facts=tuple(facts(rows, changed)),
        sections=tuple(sections(rows, changed)),
        console=overview if len(overview.frame) else unasked,
    )


def headline(rows: pd.DataFrame, changed: pd.DataFrame) -> str:
    """Returns the outcome as one sentence."""
    releases = tables.in_order(tables.asked(rows)["release"])
    values = changed[changed["verdict"].isin(VALUES)]["release"].nunique()
    others = changed["release"].nunique() - values
    span = f"from {releases[0]} to {releases[-1]}" if releases else "of none"
    return f"{len(releases)} releases {span}: values changed in {values}, only acceptance or interface in {others}"


def facts(rows: pd.DataFrame, changed: pd.DataFrame) -> Iterator[Fact]:
    """Yields the figures at the top."""
    frame = tables.asked(rows)
    yield Fact("releases asked", str(frame["release"].nunique()))
    yield Fact("questions each", str(frame["question"].nunique()))
    yield Fact("changed values", str(changed[changed["verdict"].isin(VALUES)]["release"].nunique()), "warn")
    yield Fact("changed what they accept", str(changed[changed["verdict"].isin(ACCEPTANCE)]["release"].nunique()))
    yield Fact("changed how they are called", str(changed[changed["verdict"] == "interface"]["release"].nunique()))
    failed = int((rows["kind"] == UNASKED).sum())
    yield Fact("could not be asked", str(failed), "warn" if failed else "plain")
    wrong = frame[frame["twin"] == "differs"]
    unknown = int((wrong["twin_why"] == "").sum())
    compared = int(frame["twin"].isin(["agrees", "differs"]).sum())
    yield Fact("answers from which the twin differs", f"{len(wrong)} of {compared:,}", "warn" if len(wrong) else "good")
    yield Fact("of these not explained", str(unknown), "bad" if unknown else "good")


def sections(rows: pd.DataFrame, changed: pd.DataFrame) -> Iterator[Section]:
    """Yields the sections."""
    if not len(changed):
        yield Section("What changed", ("Nothing: every release answers every question as the one before it does.",))
    else:
        entries = tuple(entry(own, rows) for _, _, own in tables.by_release(changed))
        yield Section("What changed", (tables.overview(rows), Listing(entries)))
    if len(tables.asked(rows)):
        yield Section("Kinds of case by release", (tables.matrix(rows),), brief=False)
        yield Section("Definitions", (tables.definitions(rows), tables.disagreements(rows), tables.refusals(rows)))
        yield Section("Interfaces", (tables.interfaces(rows),))
    if (rows["kind"] == UNASKED).any():
        yield Section("Not asked", (tables.unasked(rows),))
    made = ", ".join(f"{name} {', '.join(sorted(rows[name].dropna().unique()))}" for name in ("torch", "python"))
    yield Section("Made with", (f"Every release ran with {made}, on the CPU with one thread, in a process of its own.",))


def entry(changed: pd.DataFrame, rows: pd.DataFrame) -> Entry:
    """Returns one release's changes: kinds by verdict with the largest difference, stage, definition, and the smallest case."""
    release, before = changed["release"].iloc[0], changed["before"].iloc[0]
    least = tables.smallest(changed)
    lines = [*_by_verdict(changed), f"stage: {tables.stages_of(changed, rows) or 'none'}", *_definition(changed, rows)]
    lines += [f"smallest case: {least['question']}", f"of it: {least['case']}" if least["case"] else ""]
    command = f'python -m oracle.ladder {before} {release} --show "{least["question"]}"'
    tone: Tone = "bad" if changed["verdict"].isin(VALUES).any() else "warn"
    wrapped = (textwrap.fill(line, 120, initial_indent="", subsequent_indent="  ", break_on_hyphens=False) for line in lines if line)
    task = f"{changed[tasks.TASK].iloc[0]}: " if tasks.keys(rows) else ""
    return Entry(f"{task}{release}, after {before}", "\n".join(wrapped), command, tone)


def _by_verdict(changed: pd.DataFrame) -> Iterator[str]:
    for verdict in reversed(tables.GRAVITY):
        own = changed[changed["verdict"] == verdict]
        if verdict == "interface" and len(own):
            yield f"interface: {own['message'].iloc[0]}"
        elif len(own):
            yield f"{verdict}: {'; '.join(_kinds(own))}"


def _kinds(own: pd.DataFrame) -> Iterator[str]:
    for kind, group in own.groupby("kind", sort=False):
        sizes = group["size"][group["size"].abs() != float("inf")]
        size = f" by {sizes.max():.1e}" if sizes.notna().any() else ""
        dtypes = " (float64 alone)" if set(group["dtype"]) == {"float64"} else ""
        yield f"{kind}{dtypes}{size}"


def _definition(changed: pd.DataFrame, rows: pd.DataFrame) -> Iterator[str]:
    release, before = changed["release"].iloc[0], changed["before"].iloc[0]
    own = rows[rows[tasks.TASK] == changed[tasks.TASK].iloc[0]]
    of = own.drop_duplicates("release").set_index("release")["definition"]
    if of[release] != of[before]:
        yield f"definition: {of[before]} -> {of[release]}"


KIND = Kind("ladder", SCHEMA, build)
