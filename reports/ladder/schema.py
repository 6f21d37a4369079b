"""The rows of the release ladder: one for each release and question, compared with the previous release."""

from __future__ import annotations

from reports import tasks
from reports.rows import Schema
from reports.tables import Tone

UNASKED = "release"  # the kind of the one row of a release that could not be asked

# From the lightest to the gravest: of several questions of one kind, the last counts.
MARKS: dict[str, tuple[str, Tone]] = {
    "first": ("·", "plain"),
    "same": ("=", "good"),
    "rounding": ("≈", "good"),
    "interface": ("i", "warn"),
    "offered": ("+", "plain"),
    "withdrawn": ("−", "warn"),
    "fails otherwise": ("f", "warn"),
    "accepts": ("a", "warn"),
    "raises": ("r", "bad"),
    "changed": ("≠", "bad"),
}
QUIET = ("first", "same", "rounding")
VALUES = ("changed",)
ACCEPTANCE = ("raises", "accepts", "fails otherwise", "offered", "withdrawn")

SCHEMA = Schema(
    required={
        "release": "text",
        "before": "text",  # the release that it is compared with, or empty
        "adjacent": "count",  # 1 when no release was published between the two
        "kind": "text",  # of case
        "question": "text",
        "opening": "text",  # entry point of the release: the whole loss, or a stage
        "dtype": "text",
        "outcome": "text",  # answered, raised, not offered, died, timed out; of a release: not installed and others
        "verdict": "text",
        "array": "text",  # what differs most
        "size": "number",  # by how much, relative to the largest element
        "message": "text",
        "boxes": "count",
        "images": "count",
        "anchors": "count",
        "case": "text",  # the batch in one line
        "definition": "text",  # the switches of the definition that the release should have
        "twin": "text",  # whether the twin of that definition agrees, differs, or refuses the release
        "twin_size": "number",
        "twin_why": "text",  # if it differs, and that is known, or if it refuses
        "torch": "text",
        "python": "text",
    },
    optional=tasks.COLUMN,
    defaults=tasks.DEFAULT,
    written_by="nox -s ladder",
)
