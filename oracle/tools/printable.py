"""Makes texts from a candidate's code fit to be printed and stored.

Unlike :func:`reports.escape.plain`, which escapes what a terminal or page would obey, this works on strings of any subclass, and cuts them.
"""

from __future__ import annotations

import builtins
import re

MOST_CHARACTERS = 2000
"""Largest number of characters of a message."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str, most: int = MOST_CHARACTERS) -> str:
    """Returns the text with lone surrogates and control characters escaped, cut to ``most`` characters."""
    # With the methods of str, since a subclass may override them.
    kept = str.encode(str.__getitem__(text, slice(most)), "utf-8", "backslashreplace").decode("utf-8")
    kept = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", kept)
    return f"{kept} … ({str.__len__(text):,} characters)" if str.__len__(text) > most else kept


def exception_text(error: BaseException) -> str:
    """Returns the type and message of an exception, and for a group those of its first exception too."""
    try:
        text = str(error)
    except BaseException as fault:
        text = f"(its message cannot be shown: __str__ raised {type(fault).__name__})"
    described = f"{type(error).__name__}: {printable(text)}"
    group = getattr(builtins, "BaseExceptionGroup", None)  # of Python 3.11
    if group is None or not isinstance(error, group):
        return printable(described, 2 * MOST_CHARACTERS)
    members: tuple[BaseException, ...] = group.exceptions.__get__(error)
    return printable(f"{described}, the first of them {exception_text(members[0])}", 2 * MOST_CHARACTERS)
