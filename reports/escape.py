"""What a contender says, made harmless for the format that it is written in: one function a format; HTML has markupsafe's own.

Names, versions, reasons and the texts of exceptions are a stranger's: none of it may end a fence, begin a heading, or move a cursor.
"""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of Unicode that a terminal or page obeys, hides or cannot show: control and format characters, halves of pairs."""

_ACTIVE = re.compile(
    r"[\\`*<>|~$]|\](?=[(\[])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|^[-+#=:\[]|(?<=ttp):(?=//)|(?<=ttps):(?=//)|(?<=www)\.", re.IGNORECASE
)
"""What is markup in the middle of a line of Markdown as GitHub reads it, or makes a link; or begins a block at the start of one."""


def plain(text: str) -> str:
    """Text for a terminal or a file of text: line breaks stay, other characters that are not seen are written as their escapes."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _INVISIBLE else _named(c) for c in text)


def _named(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def markdown(text: str) -> str:
    """Text within a line of Markdown, a cell of a table included: nothing in it is markup, a link, or the end of the line."""
    return _ACTIVE.sub(lambda found: f"\\{found[0]}", plain(" ".join(text.split())))


def code(text: str) -> str:
    """Text as code within a line of Markdown: between more backticks than it holds in a row."""
    text = plain(" ".join(text.split()))
    ticks = "`" * (_longest(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def fenced(text: str) -> str:
    """Text as a block of Markdown, as it is: in a fence that is longer than any row of backticks in it."""
    text = plain(text)
    fence = "`" * max(3, _longest(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _longest(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)
