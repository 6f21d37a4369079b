"""The bench run: what the loss costs, of every contender on the same batches."""

from __future__ import annotations

from reports.bench.report import build
from reports.bench.schema import SCHEMA
from reports.kind import Kind

KIND = Kind("bench", SCHEMA, build)
