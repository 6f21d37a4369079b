"""Tables of the release ladder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from reports.ladder.schema import ACCEPTANCE, MARKS, QUIET, UNASKED, VALUES
from reports.tables import Column, Table, Tone
from reports.tasks import TASK, keys

GRAVITY = list(MARKS)
STAGE_ENTRY_POINTS = ("anchors", "ground truth", "decoding", "assignment", "overlap", "distances", "distribution")


def asked(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of releases that answered."""
    return rows[rows["kind"] != UNASKED]


def changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows with a change beyond rounding."""
    return asked(rows)[~asked(rows)["verdict"].isin(QUIET)]


def in_order(releases: pd.Series) -> list[str]:
    """Returns the releases, oldest first."""
    return sorted(releases.dropna().unique(), key=lambda release: tuple(map(int, release.split("."))))


def stages_of(changed: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Returns the names of the stages that changed, where the release exposes its stages."""
    values = changed[changed["verdict"].isin(VALUES)]
    stages = values[values["opening"].isin(STAGE_ENTRY_POINTS)]["opening"].unique()
    if len(stages):
        alone = set(values["dtype"]) == {"float64"}
        return ", ".join(sorted(stages)) + (", in float64 alone: a precision, not the definition" if alone else "")
    if values.empty:
        return ""
    same = (rows["release"] == changed["release"].iloc[0]) & (rows[TASK] == changed[TASK].iloc[0])
    asked_too = rows[same & rows["kind"].isin(changed["kind"])]
    staged = asked_too[asked_too["opening"].isin(STAGE_ENTRY_POINTS) & (asked_too["outcome"] == "answered")]
    return "none of those exposed: the terms" if len(staged) else "not exposed"


def smallest(changed: pd.DataFrame) -> pd.Series:
    """Returns the row with the smallest case of a change: values before acceptance before interface, valid input before invalid."""
    gravity = changed["verdict"].map(GRAVITY.index)
    bad = changed["kind"].str.startswith("input:")
    order = changed.assign(gravity=-gravity, bad=bad, whole=changed["opening"] != "loss", nothing=changed["boxes"] == 0)
    keys = ["gravity", "bad", "whole", "nothing", "boxes", "images", "anchors", "question"]
    return order.sort_values(keys, kind="stable").iloc[0]


def by_release(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yields release, task and rows of each release and task, releases oldest first."""
    for release in in_order(rows["release"]):
        for task, own in rows[rows["release"] == release].groupby(TASK, observed=True):
            yield release, str(task), own


def overview(rows: pd.DataFrame) -> Table:
    """Returns the table of releases with a change, by task."""
    lines = []
    for release, task, own in by_release(changes(rows)):
        values = own[own["verdict"].isin(VALUES)]
        lines.append(
            {
                **({TASK: task} if keys(rows) else {}),
                "release": release,
                "before": own["before"].iloc[0],
                "values": values["kind"].nunique(),
                "size": _finite_max(values["size"]),
                "stage": stages_of(own, rows),
                "acceptance": own[own["verdict"].isin(ACCEPTANCE)]["kind"].nunique(),
                "interface": int((own["verdict"] == "interface").any()),
                "found": "first" if own["adjacent"].iloc[0] else "not narrowed down",
            }
        )
    columns = (
        *_task_column(rows),
        Column("release", "release", "code"),
        Column("before", "after", "code"),
        Column("values", "kinds whose values changed", "count", lambda value: "bad" if value else "plain"),
        Column("size", "largest, relative", "number"),
        Column("stage", "stage"),
        Column("acceptance", "kinds accepted or refused otherwise", "count", lambda value: "warn" if value else "plain"),
        Column("interface", "interface", "count", lambda value: "warn" if value else "plain"),
        Column("found", "is the"),
    )
    note = "A size of 1 is as large as the largest element of what was compared. The first release: none was published between the two."
    return Table("Releases that changed something", columns, pd.DataFrame(lines, columns=[c.key for c in columns]), note)


def _task_column(rows: pd.DataFrame) -> tuple[Column, ...]:
    return tuple(Column(name, name) for name in keys(rows))


def _finite_max(sizes: pd.Series) -> float:
    finite = sizes[sizes.abs() != float("inf")].max()
    return float("nan") if pd.isna(finite) else float(finite)


def matrix(rows: pd.DataFrame) -> Table:
    """Returns the table of kinds of case by releases, each compared with the previous release."""
    frame = asked(rows)
    by = [*keys(rows), "kind", "release"]
    worst = frame.assign(gravity=frame["verdict"].map(GRAVITY.index)).groupby(by, sort=False, observed=True)["gravity"].max().unstack()
    releases = in_order(frame["release"])
    marks = {at: MARKS[verdict][0] for at, verdict in enumerate(GRAVITY)}
    columns_of_marks = {release: [marks.get(gravity, "") for gravity in worst[release].tolist()] for release in releases}
    symbols = pd.DataFrame(columns_of_marks, index=worst.index, dtype="object")
    columns = [*_task_column(rows), Column("kind", "kind of case"), *[Column(release, release, "text", mark_tone) for release in releases]]
    legend = ", ".join(f"{mark} {verdict}" for verdict, (mark, _) in MARKS.items())
    return Table("Each release against the one before it", tuple(columns), symbols.reset_index(), f"{legend}.")


def mark_tone(mark: Any) -> Tone:
    """Returns the tone of a mark in the matrix."""
    return next((tone for symbol, tone in MARKS.values() if symbol == mark), "plain")


def definitions(rows: pd.DataFrame) -> Table:
    """Returns the table of definitions, with the releases of each and the comparison with its twin."""
    lines = []
    for (task, definition), own in asked(rows).groupby([TASK, "definition"], sort=False, observed=True):
        releases = in_order(own["release"])
        compared = own[own["twin"].isin(["agrees", "differs"])]
        lines.append(
            {
                **({TASK: task} if keys(rows) else {}),
                "definition": definition,
                "first": releases[0],
                "last": releases[-1],
                "releases": len(releases),
                "compared": len(compared),
                "differs": int((compared["twin"] == "differs").sum()),
                "worst": _finite_max(compared[compared["twin"] == "agrees"]["twin_size"]),
            }
        )
    columns = (
        *_task_column(rows),
        Column("definition", "for_release throws", "code"),
        Column("first", "first asked", "code"),
        Column("last", "last asked", "code"),
        Column("releases", "releases", "count"),
        Column("compared", "answers compared", "count"),
        Column("differs", "differ", "count", lambda value: "bad" if value else "good"),
        Column("worst", "farthest that agrees", "number"),
    )
    note = "Sum, items and gradients of every kind but bad input and two heads, in float32 and float64, ties as the reference breaks them."
    return Table("Which definition a release computes", columns, pd.DataFrame(lines, columns=[c.key for c in columns]), note)


def disagreements(rows: pd.DataFrame) -> Table:
    """Returns the table of answers from which the twin differs."""
    wrong = asked(rows)[asked(rows)["twin"] == "differs"]
    frame = (
        wrong.groupby([*keys(rows), "definition", "question", "twin_why"], sort=False, observed=True)
        .agg(releases=("release", "nunique"), worst=("twin_size", "max"))
        .reset_index()
    )
    frame["twin_why"] = frame["twin_why"].replace("", "not known")
    columns = (
        *_task_column(rows),
        Column("definition", "definition", "code"),
        Column("question", "question"),
        Column("releases", "releases", "count"),
        Column("worst", "by", "number"),
        Column("twin_why", "why", tone=lambda value: "bad" if value == "not known" else "plain"),
    )
    return Table("Where the twin differs", columns, frame)


def refusals(rows: pd.DataFrame) -> Table:
    """Returns the table of releases that ``for_release`` refuses, with the reasons; a reason's own release is left out of it."""
    frame = asked(rows)[asked(rows)["twin"] == "refused"]
    whys = [why.replace(f"release {release}", "the release") for why, release in zip(frame["twin_why"], frame["release"], strict=True)]
    lines = []
    for (task, why), own in frame.assign(why=whys).groupby([TASK, "why"], sort=False, observed=True):
        releases = in_order(own["release"])
        named = {TASK: task} if keys(rows) else {}
        lines.append({**named, "first": releases[0], "last": releases[-1], "questions": own["question"].nunique(), "why": why})
    columns = (
        *_task_column(rows),
        Column("first", "first asked", "code"),
        Column("last", "last asked", "code"),
        Column("questions", "questions", "count"),
        Column("why", "why"),
    )
    return Table("What for_release refuses", columns, pd.DataFrame(lines, columns=[c.key for c in columns]))


def interfaces(rows: pd.DataFrame) -> Table:
    """Returns the table of changes of the losses' interfaces."""
    frame = asked(rows)
    frame = frame[(frame["opening"] == "interface") & frame["verdict"].isin(["first", "interface", "offered"])]
    columns = (*_task_column(rows), Column("release", "since", "code"), Column("message", "what"))
    return Table("How the loss is called", columns, frame[frame["message"] != ""])


def unasked(rows: pd.DataFrame) -> Table:
    """Returns the table of releases that could not be asked, with the reasons."""
    frame = rows[rows["kind"] == UNASKED]
    return Table(
        "Releases that could not be asked",
        (Column("release", "release", "code"), Column("outcome", "outcome"), Column("message", "what was said")),
        frame,
    )
