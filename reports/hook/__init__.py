"""The drop-in inside releases of the reference: how it was tried in each, and what came of it."""

from __future__ import annotations

from reports.hook.report import SCHEMA, build
from reports.kind import Kind

KIND = Kind("hook", SCHEMA, build)
