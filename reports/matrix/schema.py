"""The rows of the matrix: one for each implementation and feature."""

from __future__ import annotations

from reports.rows import Schema
from reports.tables import Tone

SAME, DIFFERS, NOT_OFFERED, CANNOT_RUN = VERDICTS = ("same", "differs", "not offered", "cannot run")
TONES: dict[str, Tone] = {SAME: "good", DIFFERS: "bad", NOT_OFFERED: "plain", CANNOT_RUN: "warn"}
CONDUCT, HALF = "conduct", "half precision"

SCHEMA = Schema(
    required={
        "column": "text",  # package@version
        "package": "text",
        "version": "text",
        "licence": "text",
        "kind": "text",  # package, release, twin
        "feature": "text",
        "section": "text",  # of the specification
        "verdict": "text",
        "what": "text",  # what is otherwise, or why nothing is known
        "batches": "count",  # of the feature
        "answered": "count",
        "departing": "count",  # answers that are not the definition's
        "proved": "count",  # answers that the definition with all that is otherwise gives
        "proved_without": "count",  # the same without what this cell names
        "before": "number",  # largest relative difference without what this cell names
        "after": "number",  # and with it
        "remainder": "text",  # digests of the batches that are not proved
        "rounding": "number",  # largest relative difference that counts as rounding
        "torch": "text",
        "twinloss": "text",
        "python": "text",
    },
    choices={"verdict": VERDICTS},
    written_by="nox -s matrix",
)
