"""The options that the differential run and the search share."""

from __future__ import annotations

from oracle.comparison.registry import TIME_LIMIT
from oracle.tools.options import Option
from properties.differential.recorder import SHRINK_S
from properties.differential.saved_cases import FOLDER

LIMIT = Option.of(
    "--time-limit",
    type=float,
    default=TIME_LIMIT,
    metavar="SECONDS",
    help="time limit of one call of a candidate (default: %(default)g)",
)
SHRINK = Option.of(
    "--shrink", type=float, default=SHRINK_S, metavar="SECONDS", help="time to make a failing batch smaller (default: %(default)g)"
)
CASES = Option.of("--cases", default=str(FOLDER), metavar="FOLDER", help="folder that failing batches are saved to, and replayed from")
