"""The rows of a gate run: findings, notes and estimates."""

from __future__ import annotations

from reports import tasks
from reports.rows import Schema

PASS, FAIL, INCONCLUSIVE = OUTCOMES = ("PASS", "FAIL", "INCONCLUSIVE")

SCHEMA = Schema(
    required={
        "kind": "text",  # finding: a verdict on a row; note: why a pass is void; estimate: a measured ratio
        "row": "text",
        "outcome": "text",  # of the whole run
        "base": "text",
        "head": "text",
        "verdict": "text",
        "text": "text",
        "pass": "count",
        "clock": "text",  # cpu or wall
        "program": "text",  # twin or reference
        "ratio": "number",  # head / base: above 1 the head is slower
        "lo95": "number",
        "hi95": "number",
        "pairs": "count",
        "threshold": "number",
    },
    optional={"cpu": "text", "gpu": "text", "system": "text", "written": "text", **tasks.COLUMN},
    defaults=tasks.DEFAULT,
    choices={"outcome": OUTCOMES, "kind": ("finding", "note", "estimate")},
    written_by="nox -s gate -- --against REV",
)
