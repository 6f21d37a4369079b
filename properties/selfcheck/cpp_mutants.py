"""Mutants of C++ sources: one operator, comparison, constant or bound changed, in code alone.

Comments, texts and preprocessor lines are left as they are. The sources are formatted, so that a binary operator stands between spaces, and
the angle brackets of a template do not. What does not compile is no mutant; who runs it finds out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_NO_CODE = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|^[ \t]*#[^\n]*(?:\\\n[^\n]*)*", re.DOTALL | re.MULTILINE
)
_SWAPS = {
    "comparison": {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="},
    "arithmetic": {"+": "-", "-": "+", "*": "/", "/": "*", "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*="},
    "logic": {"&&": "||", "||": "&&", "&": "|", "|": "&"},
}
_BOUNDS = {"min": "max", "max": "min", "smaller": "larger", "larger": "smaller"}
_NUMBER = re.compile(r"(?<![\w.])(?:\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+)[fF]?(?![\w.])")
_BOUND = re.compile(rf"\b({'|'.join(_BOUNDS)})(?=\()")
OPERATORS = (*_SWAPS, "bound", "whole number", "real number")


@dataclass(frozen=True)
class Mutant:
    """A file with one mutation.

    Attributes:
        path: path of the file, relative to the project's root.
        operator: name of the mutation.
        difference: the changed lines.
        code: text of the whole file.
    """

    path: str
    operator: str
    difference: str
    code: str


class _Edit(NamedTuple):
    start: int
    end: int
    text: str


def mutants(root: Path, path: str, operator: str) -> Iterator[Mutant]:
    """Yields the mutants that an operator of :data:`OPERATORS` makes of a C++ file."""
    original = (root / path).read_text("utf-8")
    for edit in _edits(_code_alone(original), operator):
        code = original[: edit.start] + edit.text + original[edit.end :]
        lines = difflib.unified_diff(original.splitlines(), code.splitlines(), n=0, lineterm="")
        yield Mutant(path, operator, "\n".join(list(lines)[3:]), code)


def _code_alone(text: str) -> str:
    """Returns the text with everything that is no code blanked out, at the same positions."""
    return _NO_CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def _edits(code: str, operator: str) -> Iterator[_Edit]:
    if operator in _SWAPS:
        swaps = _SWAPS[operator]
        signs = "|".join(map(re.escape, sorted(swaps, key=len, reverse=True)))
        for found in re.finditer(rf"(?<= )({signs})(?= )", code):
            yield _Edit(found.start(), found.end(), swaps[found[0]])
    elif operator == "bound":
        for found in _BOUND.finditer(code):
            yield _Edit(found.start(), found.end(), _BOUNDS[found[0]])
    else:
        for found in _NUMBER.finditer(code):
            if found[0].isdigit() == (operator == "whole number"):
                yield _Edit(found.start(), found.end(), _other(found[0]))


def _other(number: str) -> str:
    """Returns another constant: a whole number plus 1, or 1 for 0 and 0 for 1; a real one 1 % larger, or 0.001 for 0."""
    if number.isdigit():
        return {"0": "1", "1": "0"}.get(number, str(int(number) + 1))
    suffix = "f" if number[-1] in "fF" else ""
    return f"0.001{suffix}" if float(number.rstrip("fF")) == 0 else f"({number} * 1.01{suffix})"
