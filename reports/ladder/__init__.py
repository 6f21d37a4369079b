"""The release ladder: did the loss change between these two releases of the reference, since when, and how much?"""

from __future__ import annotations

from reports.kind import Kind
from reports.ladder.report import build
from reports.ladder.schema import SCHEMA

KIND = Kind("ladder", SCHEMA, build)
