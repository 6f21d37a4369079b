"""The register as Markdown, and its place in the README between two markers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from properties.divergences import REGISTER
from properties.divergences.divergence import Divergence

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- register: begin; written by python -m properties.divergences -->", "<!-- register: end -->"


def markdown(entries: Iterable[Divergence] = REGISTER) -> str:
    """A table with a row for each entry."""
    lines = ["| what | definition | reference | twin | to be preferred, and why | § |", "| --- | --- | --- | --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(entry))} |" for entry in entries)])


def _cells(entry: Divergence) -> Iterator[str]:
    link = f" ([upstream]({entry.link}))" if entry.link else ""
    since = f" Since {entry.since}." if entry.since else ""
    expected = f" One would expect {_code(entry.expected)}." if entry.expected else ""
    yield f"{entry.what}{expected}{since}{link}"
    for name in ("definition", "reference"):
        yield _code(entry.says[name])
    options = "".join(f"; {name.removeprefix('twin, ')}: {_code(said)}" for name, said in entry.says.items() if name.startswith("twin,"))
    yield _code(entry.says["twin"]) + options
    yield f"{entry.right}: {entry.why}"
    yield entry.section


def _code(text: str) -> str:
    return f"`{text}`"


def inserted(readme: str, table: str) -> str:
    """The README's text with the table between the markers.

    Raises:
        ValueError: the markers are missing.
    """
    if BEGIN not in readme or END not in readme:
        raise ValueError(f"the README lacks the markers of the register: {BEGIN} and {END}")
    before, _, rest = readme.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"
