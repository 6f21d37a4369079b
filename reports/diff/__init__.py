"""The differential run: did every contender compute what the definition says, stage by stage, and how close was it?"""

from __future__ import annotations

from reports.diff.report import build
from reports.diff.schema import SCHEMA
from reports.kind import Kind

KIND = Kind("diff", SCHEMA, build)
