"""The training run: does a training change when the twin takes the reference's place?"""

from __future__ import annotations

from reports.kind import Kind
from reports.train.report import build
from reports.train.schema import SCHEMA

KIND = Kind("train", SCHEMA, build)
