"""The register as a Markdown table for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from properties.divergences import REGISTER
from properties.divergences.divergence import Divergence


def markdown(entries: Iterable[Divergence] = REGISTER) -> str:
    """Returns a table with a row for each entry."""
    lines = ["| what | definition | reference | twin | preferred answer, and why | § |", "| --- | --- | --- | --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(entry))} |" for entry in entries)])


def _cells(entry: Divergence) -> Iterator[str]:
    link = f" ([upstream]({entry.link}))" if entry.link else ""
    since = f" Since {entry.since}." if entry.since else ""
    expected = f" The expected answer is {_code(entry.expected)}." if entry.expected else ""
    yield f"{entry.what}{expected}{since}{link}"
    for name in ("definition", "reference"):
        yield _code(entry.answers[name])
    options = "".join(f"; {name.removeprefix('twin, ')}: {_code(text)}" for name, text in entry.answers.items() if name.startswith("twin,"))
    yield _code(entry.answers["twin"]) + options
    yield f"{entry.preferred}: {entry.why}"
    yield entry.section


def _code(text: str) -> str:
    return f"`{text}`"
