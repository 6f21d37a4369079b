"""The gate: is this checkout's twin slower, heavier or less exact than another revision's?"""

from __future__ import annotations

from reports.gate.report import build
from reports.gate.schema import SCHEMA
from reports.kind import Kind

KIND = Kind("gate", SCHEMA, build)
