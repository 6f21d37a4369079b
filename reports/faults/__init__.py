"""The planted faults: what caught each of them, and how soon."""

from __future__ import annotations

from reports.faults.report import SCHEMA, build
from reports.kind import Kind

KIND = Kind("faults", SCHEMA, build)
