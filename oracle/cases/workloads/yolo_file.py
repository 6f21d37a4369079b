"""One YOLO label file: its lines become rows of class and box, as the reference's own reader makes them, or an error that names the line.

What that reader drops with a warning, the whole image of it, is refused here; what it takes is taken. It was asked, as a black box, with
every line that ``properties/tests/oracle/cases/test_workloads.py`` holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oracle.cases.workloads.labelled_images import MOST_CLASSES, Row
from oracle.tools.parsing import text_of

SLACK = 0.01  # Label tools round, so that a box may stick out of its image by a pixel.
_BOX = 5  # values of a line
_KINDS = {"box": "boxes", "polygon": "polygons", "keypoints": "keypoints"}

Kind = Literal["box", "polygon", "keypoints"]


@dataclass(frozen=True)
class Format:
    """What a dataset's own description says of its label files.

    Attributes:
        file: the description, if there is one.
        num_classes: C, if it says it.
        keypoints: K and the numbers for each (x, y and perhaps visibility) of a pose dataset.
    """

    file: Path | None = None
    num_classes: int | None = None
    keypoints: tuple[int, int] | None = None

    @property
    def columns(self) -> int | None:
        """Values of a line with keypoints."""
        return _BOX + math.prod(self.keypoints) if self.keypoints else None


class Line(NamedTuple):
    """A line that is not blank: its number from 1, its text, its values, and what these describe."""

    number: int
    text: str
    values: tuple[float, ...]
    kind: Kind


class LineError(ValueError):
    """A label file's line that cannot be used."""


def read_lines(file: Path, told: Format) -> list[Line]:
    """The file's lines.

    Raises:
        ValueError: the file cannot be read, or a line is neither a box, a polygon nor, where the format has them, a box with keypoints, or
            boxes and polygons are mixed.
    """
    lines = []
    for number, text in enumerate(text_of(file).splitlines(), start=1):
        if text.strip():
            try:
                values = tuple(float(word) for word in text.split())
                lines.append(Line(number, text.strip(), values, _kind(values, told)))
            except ValueError as error:
                raise _bad(file, number, text, error) from error
    for line in lines:
        if "polygon" in {line.kind, lines[0].kind} and line.kind != lines[0].kind:
            reason = f"a {line.kind} in a file that begins with {_KINDS[lines[0].kind]}; make all lines of a file boxes, or all polygons"
            raise _bad(file, line.number, line.text, reason)
    return lines


def rows_of(file: Path, lines: Sequence[Line], told: Format) -> list[Row]:
    """Rows of class and box, as shares of the image's sides; of rows that stand twice, one, and then in the order of the reference.

    Raises:
        ValueError: a class or a coordinate is not one; the message names the line.
    """
    rows: dict[tuple[float, ...] | bytes, Row] = {}
    for line in lines:
        try:
            row = _row(line, told)
        except ValueError as error:
            raise _bad(file, line.number, line.text, error) from error
        # The reference compares float32: of boxes the numbers, and of polygons all of their bytes.
        seen = _single(line.values).tobytes() if line.kind == "polygon" else tuple(_single(row).tolist())
        rows.setdefault(seen, row)
    if len(rows) == len(lines):
        return list(rows.values())
    return [rows[seen] for seen in _sorted(rows)]


def _sorted(seen: Iterable[tuple[float, ...] | bytes]) -> list[tuple[float, ...] | bytes]:
    return sorted(seen)  # a file's keys are all of one type


def _single(values: Sequence[float]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def _bad(file: Path, number: int, text: str, reason: object) -> LineError:
    shown = text.strip()
    return LineError(f"{file}, line {number}, {shown[:80] + '…' * (len(shown) > 80)!r}: {reason}")


def _kind(values: Sequence[float], told: Format) -> Kind:
    count = len(values)
    if count == _BOX:
        return "box"
    if told.columns is not None:
        if count == told.columns:
            return "keypoints"
        raise ValueError(f"{count} values; {told.file} has kpt_shape {list(told.keypoints or ())}: expected {told.columns}, or 5 for a box")
    if count >= 7 and count % 2:
        return "polygon"
    expected = "expected class, centre x, centre y, width, height, or a class and a polygon's x and y"
    if count == 6:
        raise ValueError(f"6 values; {expected}. The sixth is a confidence if these are predictions: leave it out")
    raise ValueError(f"{count} values; {expected}" + (f". If it has keypoints, {_describe(told)}" if count > 6 else ""))


def _describe(told: Format) -> str:
    return f"say kpt_shape in {told.file}" if told.file else "put the dataset's data.yaml, with kpt_shape, beside the labels"


def _row(line: Line, told: Format) -> Row:
    label, *places = line.values
    if not (label >= 0 and math.isfinite(label) and label == int(label)):
        raise ValueError(f"class {label:g} is not a whole number from 0")
    if told.num_classes is not None and label >= told.num_classes:
        raise ValueError(f"class {label:.10g} is not one of the dataset's {told.num_classes}; correct it, or nc and names in its data.yaml")
    if label >= MOST_CLASSES:
        raise ValueError(
            f"class {label:.10g}: a head scores every class from 0 on, more than {MOST_CLASSES:,} fill the memory; number the classes anew"
        )
    x, y, w, h = _bounds(places) if line.kind == "polygon" else places[:4]
    for value in (x, y, w, h):
        if not -SLACK <= value <= 1 + SLACK:
            keypoints = f"; if it has keypoints, {_describe(told)}" if line.kind == "polygon" else ""
            raise ValueError(f"coordinate {value:g} is not between 0 and 1; divide by the image's width and height{keypoints}")
    if min(w, h) < 0:
        raise ValueError(f"width {w:g} and height {h:g} must not be negative; write centre x, centre y, width, height")
    return int(label), x, y, w, h


def _bounds(places: Sequence[float]) -> tuple[float, float, float, float]:
    if not all(map(math.isfinite, places)):
        raise ValueError("a polygon's coordinate is no number; write shares of the image's width and height")
    left, right, top, bottom = min(places[::2]), max(places[::2]), min(places[1::2]), max(places[1::2])
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
