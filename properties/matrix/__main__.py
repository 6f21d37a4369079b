"""``python -m properties.matrix``: asks every implementation of the matrix, and writes its cells.

Exit codes: 0 done, 1 a cell of an implementation that ran before is different with ``--compare``, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

import twinloss
from oracle.tools.atomic_files import write_frame
from oracle.tools.options import QUIET
from oracle.tools.progress import Progress
from properties.matrix.answers import conduct, half_replies, replies, usual_definition
from properties.matrix.attribution import attributed
from properties.matrix.cells import Cell, cannot_run, conduct_cell, feature_cell, half_cell
from properties.matrix.columns import CannotRunError, Column, all_columns
from properties.matrix.features import FEATURES
from properties.matrix.newest import newest_packages

ROWS = Path("reports", "out", "matrix", "rows.parquet")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _options(arguments)
    torch.set_num_threads(1)
    columns = all_columns(newest_packages()) if options.newest else all_columns()
    chosen = [column for column in columns if options.only in column.name]
    if not chosen:
        print(
            f"matrix: no column's name contains {options.only!r}; there are {', '.join(column.name for column in columns)}", file=sys.stderr
        )
        return 2
    made = {"torch": torch.__version__, "twinloss": twinloss.__version__, "python": sys.version.split()[0]}
    found: list[Cell] = []
    with Progress("implementations asked", quiet=options.quiet) as progress:  # each column's line says what differs
        progress.plan({"implementation": len(chosen)})
        for column in chosen:
            start = time.monotonic()
            cells = cells_of(column)
            found += cells
            progress.done("implementation")
            progress.print_line(f"  {column.name:<28} {summary(cells)} ({time.monotonic() - start:.0f} s)")
            write_frame(pd.DataFrame([asdict(cell) | made for cell in found]), options.rows)
    return 0


def cells_of(column: Column) -> list[Cell]:
    """Returns the cells of one column."""
    try:
        contender = column.open()
    except CannotRunError as error:
        return cannot_run(column, FEATURES, str(error))
    spec = usual_definition(contender)
    asked = replies(contender, spec)
    found = attributed({feature.name: [one.answer for one in group if one.answer] for feature, group in asked.items()})
    variants = found.variants
    cells = [feature_cell(column, feature, group, found) for feature, group in asked.items()]
    return [*cells, half_cell(column, half_replies(contender, spec), variants), conduct_cell(column, list(conduct(contender, spec)))]


def summary(cells: Sequence[Cell]) -> str:
    """Returns the numbers of cells by verdict, for a line of progress."""
    verdicts = [cell.verdict for cell in cells]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("matrix", description="Which features of the definition do implementations in the field compute?")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only columns whose name contains TEXT, such as kyolo or ultralytics@8.4"
    )
    parser.add_argument("--newest", action="store_true", help="ask the newest version of each package instead of the pinned one")
    parser.add_argument("--rows", type=Path, default=ROWS, metavar="FILE", help="file for the cells (default: %(default)s)")
    QUIET.add_to(parser.add_argument)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
