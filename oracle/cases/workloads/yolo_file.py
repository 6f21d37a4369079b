"""Reads a YOLO label file: rows of class and box as the reference's reader makes them, or an error that names the line.

That reader leaves out an image with an invalid line, with a warning; here the line is an error. The lines of this module's tests were given
to the reference as a black box.
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
from oracle.tools.parsing import read_text

SLACK = 0.01  # Label tools round, so a box may exceed its image by a pixel.
_BOX = 5  # values of a line
_KINDS = {"box": "boxes", "polygon": "polygons", "keypoints": "keypoints"}

Kind = Literal["box", "polygon", "keypoints"]


@dataclass(frozen=True)
class Format:
    """Format of label files by the dataset's description.

    Attributes:
        file: path of the description, if there is one.
        num_classes: C, if the description gives it.
        keypoints: K and the count of numbers for each (x, y and perhaps visibility) of a pose dataset.
        posed: whether keypoints count, so that every line must have them.
    """

    file: Path | None = None
    num_classes: int | None = None
    keypoints: tuple[int, int] | None = None
    posed: bool = False

    @property
    def columns(self) -> int | None:
        """Number of values of a line with keypoints."""
        return _BOX + math.prod(self.keypoints) if self.keypoints else None


class Line(NamedTuple):
    """A line that is not blank: number from 1, text, values, and what the values describe."""

    number: int
    text: str
    values: tuple[float, ...]
    kind: Kind


def ring_of(line: Line) -> tuple[float, ...]:
    """Returns x and y in turn, in shares of the image's sides, of a line's polygon, or of the corners of its box."""
    if line.kind == "polygon":
        return line.values[1:]
    x, y, w, h = line.values[1:5]
    return x - w / 2, y - h / 2, x + w / 2, y - h / 2, x + w / 2, y + h / 2, x - w / 2, y + h / 2


def keypoints_of(line: Line, keypoints: tuple[int, int]) -> tuple[tuple[float, float, float], ...]:
    """Returns x and y in shares of the image's sides and the visibility of a line's keypoints.

    Where labels have no visibility, the reference's reader makes one: 0 where a coordinate is negative, 1 elsewhere.
    """
    count, numbers = keypoints
    points = np.reshape(line.values[_BOX:], (count, numbers)).tolist()
    return tuple((x, y, further[0] if further else float(min(x, y) >= 0)) for x, y, *further in points)


class LineError(ValueError):
    """A line of a label file is invalid."""


def read_lines(file: Path, format_: Format) -> list[Line]:
    """Reads the lines of a file.

    Raises:
        ValueError: the file cannot be read, a line is neither a box, a polygon nor, if the format has them, a box with keypoints, or boxes
            and polygons are mixed.
    """
    lines = []
    for number, text in enumerate(read_text(file).splitlines(), start=1):
        if text.strip():
            try:
                values = tuple(float(word) for word in text.split())
                lines.append(Line(number, text.strip(), values, _kind(values, format_)))
            except ValueError as error:
                raise _bad(file, number, text, error) from error
    for line in lines:
        if "polygon" in {line.kind, lines[0].kind} and line.kind != lines[0].kind:
            reason = f"a {line.kind} in a file that begins with {_KINDS[lines[0].kind]}; make all lines of a file boxes, or all polygons"
            raise _bad(file, line.number, line.text, reason)
    return lines


def rows_of(file: Path, lines: Sequence[Line], format_: Format) -> list[tuple[Row, Line]]:
    """Returns rows of class and box in shares of the image's sides, each with its line.

    Repetitions are left out; if there are any, the rows are in the order of the reference.

    Raises:
        ValueError: a class or a coordinate is invalid; the message names the line.
    """
    rows: dict[tuple[float, ...] | bytes, tuple[Row, Line]] = {}
    for line in lines:
        try:
            row = _row(line, format_)
            _check_keypoints(line, format_)
        except ValueError as error:
            raise _bad(file, line.number, line.text, error) from error
        # The reference compares boxes and keypoints as float32 numbers, and polygons by their float32 bytes.
        numbers = line.values if format_.posed else row
        seen = _single(line.values).tobytes() if line.kind == "polygon" else tuple(_single(numbers).tolist())
        rows.setdefault(seen, (row, line))
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


def _kind(values: Sequence[float], format_: Format) -> Kind:
    count = len(values)
    if count == _BOX and not format_.posed:
        return "box"
    if format_.columns is not None:
        if count == format_.columns:
            return "keypoints"
        source = f"{format_.file} has" if format_.file else "there is"
        box = "; write zeros for the keypoints of a box that has none" if format_.posed else ", or 5 for a box"
        raise ValueError(f"{count} values; {source} kpt_shape {list(format_.keypoints or ())}: expected {format_.columns}{box}")
    if count >= 7 and count % 2:
        return "polygon"
    expected = "expected class, centre x, centre y, width, height, or a class and a polygon's x and y"
    if count == 6:
        raise ValueError(f"6 values; {expected}. If these are predictions, remove the sixth value, the confidence")
    raise ValueError(f"{count} values; {expected}" + (f". If it has keypoints, {_describe(format_)}" if count > 6 else ""))


def _describe(format_: Format) -> str:
    return f"set kpt_shape in {format_.file}" if format_.file else "put the dataset's data.yaml, with kpt_shape, beside the labels"


def _row(line: Line, format_: Format) -> Row:
    label, *places = line.values
    if not (label >= 0 and math.isfinite(label) and label == int(label)):
        raise ValueError(f"class {label:g} is not a whole number from 0")
    if format_.num_classes is not None and label >= format_.num_classes:
        raise ValueError(
            f"class {label:.10g} is not one of the dataset's {format_.num_classes}; correct it, or nc and names in its data.yaml"
        )
    if label >= MOST_CLASSES:
        raise ValueError(f"class {label:.10g}: at most {MOST_CLASSES:,} classes fit into memory; number the classes from 0")
    x, y, w, h = _bounds(places) if line.kind == "polygon" else places[:4]
    for value in (x, y, w, h):
        if not -SLACK <= value <= 1 + SLACK:
            keypoints = f"; if it has keypoints, {_describe(format_)}" if line.kind == "polygon" else ""
            raise ValueError(f"coordinate {value:g} is not between 0 and 1; divide by the image's width and height{keypoints}")
    if min(w, h) < 0:
        raise ValueError(f"width {w:g} and height {h:g} must not be negative; write centre x, centre y, width, height")
    return int(label), x, y, w, h


def _check_keypoints(line: Line, format_: Format) -> None:
    """Coordinates, also of a keypoint that is not labelled, lie in the image, and visibilities are those of the definition."""
    if not (format_.posed and format_.keypoints):
        return
    for k, (x, y, visibility) in enumerate(keypoints_of(line, format_.keypoints)):
        if not (-SLACK <= x <= 1 + SLACK and -SLACK <= y <= 1 + SLACK):
            raise ValueError(f"keypoint {k} at {x:g}, {y:g} is not between 0 and 1; divide by the image's width and height")
        if visibility not in (0, 1, 2):
            raise ValueError(f"keypoint {k} has visibility {visibility:g}; write 0 (not labelled), 1 (hidden) or 2 (visible)")


def _bounds(places: Sequence[float]) -> tuple[float, float, float, float]:
    if not all(map(math.isfinite, places)):
        raise ValueError("a polygon's coordinate is not a finite number; write shares of the image's width and height")
    left, right, top, bottom = min(places[::2]), max(places[::2]), min(places[1::2]), max(places[1::2])
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
