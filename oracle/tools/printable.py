"""Text that a stranger's code made, made fit to be printed and stored: an exception's message may be anything, or not be there at all."""

from __future__ import annotations

import builtins
import re

MOST = 2000
"""Characters of a message that are kept."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str, most: int = MOST) -> str:
    """The text in characters that every file and terminal takes: lone surrogates and control characters are escaped, a long one is cut."""
    # By str's own methods, since the text may be of a subclass that has others.
    kept = str.encode(str.__getitem__(text, slice(most)), "utf-8", "backslashreplace").decode("utf-8")
    kept = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", kept)
    return f"{kept} … ({str.__len__(text):,} characters)" if str.__len__(text) > most else kept


def described(error: BaseException) -> str:
    """An exception's type and message, those of the first of a group too; one that cannot be shown says so."""
    try:
        text = str(error)
    except BaseException as fault:
        text = f"(its message cannot be shown: __str__ raised {type(fault).__name__})"
    said = f"{type(error).__name__}: {plain(text)}"
    group = getattr(builtins, "BaseExceptionGroup", None)  # of Python 3.11
    if group is None or not isinstance(error, group):
        return plain(said, 2 * MOST)
    within: tuple[BaseException, ...] = group.exceptions.__get__(error)
    return plain(f"{said}, the first of them {described(within[0])}", 2 * MOST)
