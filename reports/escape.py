"""Escapes a candidate's texts for a format, with one function per format; for HTML, markupsafe does it.

Names, versions, reasons and messages of exceptions come from a candidate: none may end a fence, begin a heading, or move a cursor.
"""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of Unicode characters that are invisible or control a terminal or page: control, format, surrogate, private, unassigned."""

_ACTIVE = re.compile(
    r"[\\`*<>|~$]|\](?=[(\[])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|^[-+#=:\[]|(?<=ttp):(?=//)|(?<=ttps):(?=//)|(?<=www)\.", re.IGNORECASE
)
"""Characters that are markup or make a link within a line of GitHub's Markdown, or begin a block at the start of a line."""


def plain(text: str) -> str:
    """Escapes text for a terminal or a text file: every invisible character except line breaks and tabs."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _INVISIBLE else _named(c) for c in text)


def _named(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def markdown(text: str) -> str:
    """Escapes text for a line of Markdown or a cell of a table, without markup, links and line breaks."""
    return _ACTIVE.sub(lambda found: f"\\{found[0]}", plain(" ".join(text.split())))


def code(text: str) -> str:
    """Returns text as code within a line of Markdown, between more backticks than its longest row of them."""
    text = plain(" ".join(text.split()))
    ticks = "`" * (_longest(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def fenced(text: str) -> str:
    """Returns text as a block of Markdown, in a fence longer than any row of backticks in it."""
    text = plain(text)
    fence = "`" * max(3, _longest(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _longest(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)
