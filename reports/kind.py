"""What a kind of report consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from reports.document import Report
from reports.rows import Schema


@dataclass(frozen=True)
class Kind:
    """A kind of report: its name, which is its folder's; the rows that it reads; and the function that makes the report of them."""

    name: str
    schema: Schema
    build: Callable[[pd.DataFrame], Report]
