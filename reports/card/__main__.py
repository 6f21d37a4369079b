"""``python -m reports.card``: a conformance card for every contender of a differential run, as Markdown, as a page, and as a badge.

Beside ``card-NAME.md`` and ``card-NAME.html`` stands ``card-NAME.json``, which https://shields.io/badges/endpoint-badge reads where it is
published. Of a task other than detection a contender has a card of its own, ``card-NAME-TASK``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import markdown, page
from reports.card.report import badge, build, named
from reports.card.text import inserted
from reports.diff.schema import SCHEMA
from reports.escape import plain
from reports.rows import RowsError, read
from reports.tasks import DETECT

OUT = Path(__file__).parents[1] / "out" / "diff"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the cards; returns 2 if the rows cannot be read."""
    parser = argparse.ArgumentParser("python -m reports.card", description="Conformance cards of the contenders of a differential run.")
    parser.add_argument("--rows", type=Path, default=OUT / "rows.parquet", help="default: those of the last `nox -s diff`")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the cards")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="also write the cards as text between the marks of this file")
    options = parser.parse_args(arguments)
    try:
        rows = read(options.rows, SCHEMA)
        explanations = explanations_beside(options.rows)
    except RowsError as error:
        print(f"reports.card: {error}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    for earlier in options.out.glob("card-*"):  # these rows may lack their contenders
        earlier.unlink()
    for (name, task), mine in rows.groupby(["contender", "task"], sort=True):
        card = options.out / f"card-{slug(str(name))}{'' if task == DETECT else f'-{task}'}"
        report = build(mine, explanations.get((str(name), str(task)), ""))
        card.with_suffix(".md").write_text(markdown.render(report), "utf-8")
        card.with_suffix(".html").write_text(page.render(report), "utf-8")
        card.with_suffix(".json").write_text(json.dumps(badge(mine), indent=1) + "\n", "utf-8")
        print(plain(f"{named(mine)}: {report.headline}"))
    if options.readme is not None:
        options.readme.write_text(inserted(options.readme.read_text("utf-8"), rows, explanations), "utf-8")
    return 0


def explanations_beside(rows: Path) -> dict[tuple[str, str], str]:
    """Returns the sentences by contender and task that the run wrote beside its rows; empty where it explained nothing.

    Raises:
        RowsError: the file is not as the run writes it.
    """
    path = rows.with_name("explanations.json")
    if not path.exists():
        return {}
    try:
        return {(str(one["contender"]), str(one["task"])): str(one["sentence"]) for one in json.loads(path.read_text("utf-8"))}
    except (ValueError, KeyError, TypeError) as error:
        raise RowsError(f"{path} is not a list of explanations ({error}); run nox -s diff again, or remove the file") from error


def slug(name: str) -> str:
    """Returns a contender's name as part of a file name."""
    return re.sub(r"\W+", "-", name).strip("-")


if __name__ == "__main__":
    sys.exit(main())
