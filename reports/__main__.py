"""``python -m reports [KIND ...]``: rebuild reports from the rows of runs, without torch.

Exit codes: 0 built, 1 built with ``--exit-code`` and a report shows a failure, 2 wrong rows or arguments.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import console, markdown, page
from reports.document import Kind, Report
from reports.registry import KINDS
from reports.rows import RowsError, read

OUT = Path(__file__).parent / "out"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _options(arguments)
    kinds = [KINDS[name] for name in options.kinds] or [kind for kind in KINDS.values() if _rows(kind).exists()]
    if not kinds:
        print(f"reports: there are no rows under {_relative(OUT)}; write some, for example with `nox -s diff`", file=sys.stderr)
        return 2
    try:
        reports = [_rebuild(kind, options.rows or _rows(kind), options.out or OUT / kind.name) for kind in kinds]
    except RowsError as error:
        print(f"reports: {error}", file=sys.stderr)
        return 2
    return int(options.exit_code and any(report.tone == "bad" for report in reports))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m reports", description="Rebuild reports from rows; without KIND, every report whose rows exist."
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--rows", type=Path, help="read these rows instead of reports/out/KIND/rows.parquet")
    parser.add_argument("--out", type=Path, help="write summary.md and index.html into this folder instead of reports/out/KIND")
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 when a report shows a failure")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.kinds if name not in KINDS]:
        parser.error(f"there is no report {unknown[0]!r}; there are {', '.join(KINDS)}")
    if (options.rows or options.out) and len(options.kinds) != 1:
        parser.error("--rows and --out go with exactly one KIND")
    return options


def _rows(kind: Kind) -> Path:
    return OUT / kind.name / "rows.parquet"


def _rebuild(kind: Kind, rows: Path, out: Path) -> Report:
    report = kind.build(read(rows, kind.schema))
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.md").write_text(markdown.render(report), "utf-8")
    (out / "index.html").write_text(page.render(report), "utf-8")
    console.show(report)
    print(f"Report: {_relative(out / 'index.html')}")
    return report


def _relative(path: Path) -> str:
    """Returns a path relative to the working folder where it lies in it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
