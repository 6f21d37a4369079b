"""A report as Markdown, short enough for the summary of a CI job."""

from __future__ import annotations

from reports import escape
from reports.document import Block, Entry, Listing, Report
from reports.tables import Table, Tone

MARKS: dict[Tone, str] = {"plain": "", "good": "", "warn": "⚠ ", "bad": "✗ "}
OUTCOMES: dict[Tone, str] = {"plain": "", "good": "✓ ", "warn": "⚠ ", "bad": "✗ "}


def render(report: Report) -> str:
    """Returns the report's headline, facts and brief sections."""
    parts = [f"# {escape.markdown(report.title)}", f"**{OUTCOMES[report.tone]}{escape.markdown(report.headline)}**"]
    parts.append(" · ".join(f"{MARKS[fact.tone]}{fact.value} {fact.label}" for fact in report.facts))
    for section in report.sections:
        if section.brief:
            parts += [f"## {section.heading}", *filter(None, map(_block, section.blocks))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case str():
            return block
        case Table():
            return table(block)
        case Listing():
            more = [f"{block.left_out:,} more are in the rows."] if block.left_out else []
            return "\n\n".join([*map(_entry, block.entries), *more])
        case _:
            return ""  # drawings are on the page only


def table(given: Table) -> str:
    """Returns a table, and its note."""
    lines = ["| " + " | ".join(column.title for column in given.columns) + " |"]
    lines.append("| " + " | ".join("--:" if column.numeric else ":--" for column in given.columns) + " |")
    for cells in given.cells():
        written = zip(given.columns, cells, strict=True)
        lines.append("| " + " | ".join(_cell(text, tone, code=column.form == "code") for column, (text, tone) in written) + " |")
    return "\n".join(lines) + (f"\n\n{given.note}" if given.note else "")


def _cell(text: str, tone: Tone, *, code: bool) -> str:
    # A bar ends a cell, also within code.
    return MARKS[tone] + (escape.code(text).replace("|", "\\|") if code else escape.markdown(text))


def _entry(entry: Entry) -> str:
    lines = [f"**{escape.markdown(entry.heading)}**", "", escape.fenced(entry.detail)]
    return "\n".join(lines + (["", f"Replay: {escape.code(entry.command)}"] if entry.command else []))
