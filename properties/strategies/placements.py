"""Places of generated boxes. Each record is one way to place a box; it gives centre and size when the image is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hypothesis import strategies as st

from oracle.cases.case import Box
from properties.strategies.profiles import Frame

Place = tuple[float, float, float, float]  # centre x, centre y, width, height in pixels

# Sides about 0, about a pixel, and about the lengths below which the inside test lengthens a box.
SIDES = (8.0, 16.0, 0.0, 0.9, 7.9, 8.1, 15.9, 16.1, 31.9, 32.1)
SLIGHT = (0.3, 0.0, 1.0)
# Distances from an anchor's centre in cells, and distances from the largest bin.
DISTANCES = (1.0, 0.0, 0.5, 2.0, 3.0, 0.01, 1.999, 2.001)
FROM_LARGEST = (0.0, -0.01, -0.02, 0.5, 3.0)
# Distance of a box's side beyond the image's border, in pixels plus a share of the box.
BEYOND = ((0.0, 0.0), (0.5, 0.0), (0.01, 0.0), (0.0, 0.5), (0.0, 0.9), (0.0, 1.0), (4.0, 1.0))


class Placement(Protocol):
    """A way to place a box."""

    def place(self, frame: Frame, earlier: Sequence[Box]) -> Place:
        """Returns centre and size in pixels; ``earlier`` are the earlier boxes of the image."""


def _between(x1: float, y1: float, x2: float, y2: float) -> Place:
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


@dataclass(frozen=True)
class Lattice:
    """Corners at multiples of 1/64 of the image, which are exact in float32; a quarter of each side when all fields are 0."""

    left: int
    top: int
    wider: int
    taller: int

    def place(self, frame: Frame, earlier: Sequence[Box]) -> Place:
        """Returns a box inside the image."""
        x1, y1 = self.left * frame.width / 64, self.top * frame.height / 64
        w = min(1 + (15 + self.wider) % 64, 64 - self.left) * frame.width / 64
        h = min(1 + (15 + self.taller) % 64, 64 - self.top) * frame.height / 64
        return _between(x1, y1, x1 + w, y1 + h)


@dataclass(frozen=True)
class Anywhere:
    """Centre and size in ten-thousandths of the image, as in label files."""

    cx: int
    cy: int
    w: int
    h: int

    def place(self, frame: Frame, earlier: Sequence[Box]) -> Place:
        """Returns a box whose centre is inside the image."""
        width, height = frame.width / 10_000, frame.height / 10_000
        return self.cx * width, self.cy * height, self.w * width, self.h * height


@dataclass(frozen=True)
class Sided:
    """A given width and height in pixels, such as a length at which a rule changes."""

    at: Lattice
    w: float
    h: float

    def place(self, frame: Frame, earlier: Sequence[Box]) -> Place:
        """Returns a box about the centre of a lattice box."""
        cx, cy, *_ = self.at.place(frame, earlier)
        return cx, cy, self.w, self.h


@dataclass(frozen=True)
class OnCentres:
    """All four borders on anchor centres of one level."""

    level: int
    column: int
    row: int
    columns: int
    rows: int

    def place(self, frame: Frame, earlier: Sequence[Box]) -> Place:
        """Returns a box from one anchor's centre to another's, which may lie outside the grid."""
        level = self.level % len(frame.grids)
        rows, columns = frame.grids[level]
        stride = frame.spec.strides[level]
        x, y = self.column % columns + 0.5, self.row % rows + 0.5
        return _between(x * stride, y * stride, (x + self.columns) * stride, (y + self.rows) * stride)


@dataclass(frozen=True)
class AtDistances:
    """Four distances from an anchor's centre: (False, d) is d cells, (True, d) is the largest bin plus d cells."""

    level: int
    column: int
    row: int
    distances: tuple[tuple[bool, float], ...]

    def place(self, frame: Frame, earlier: Sequence[Box]) -> Place:
        """Returns a box about one anchor."""
        level = self.level % len(frame.grids)
        rows, columns = frame.grids[level]
        stride = frame.spec.strides[level]
        x, y = self.column % columns + 0.5, self.row % rows + 0.5
        left, top, right, bottom = (max(d + (frame.spec.reg_max - 1) * largest, 0.0) for largest, d in self.distances)
        return _between((x - left) * stride, (y - top) * stride, (x + right) * stride, (y + bottom) * stride)


@dataclass(frozen=True)
class Beyond:
    """A box moved to one side of the image or to its top-left corner, and beyond it by some pixels plus a share of the box."""

    at: Lattice
    side: Literal["left", "top", "right", "bottom", "corner"]
    out: tuple[float, float]

    def place(self, frame: Frame, earlier: Sequence[Box]) -> Place:
        """Returns a box that touches the border, crosses it, or lies outside."""
        cx, cy, w, h = self.at.place(frame, earlier)
        pixels, share = self.out
        out_x, out_y = pixels + share * w, pixels + share * h
        x = {"left": w / 2 - out_x, "corner": w / 2 - out_x, "right": frame.width - w / 2 + out_x}.get(self.side, cx)
        y = {"top": h / 2 - out_y, "corner": h / 2 - out_y, "bottom": frame.height - h / 2 + out_y}.get(self.side, cy)
        return x, y, w, h


@dataclass(frozen=True)
class Near:
    """A copy of the image's last box, moved by quarters of a cell, and shrunk by a factor."""

    right: int
    down: int
    shrunk: float

    def place(self, frame: Frame, earlier: Sequence[Box]) -> Place:
        """Returns the copy; a lattice box if the image has no box yet."""
        if not earlier:
            return Lattice(0, 0, 0, 0).place(frame, earlier)
        box, step = earlier[-1], frame.spec.strides[0] / 4
        return box.cx + self.right * step, box.cy + self.down * step, box.w * self.shrunk, box.h * self.shrunk


@dataclass(frozen=True)
class Whole:
    """A box of the size of the image."""

    def place(self, frame: Frame, earlier: Sequence[Box]) -> Place:
        """Returns the box of the whole image."""
        return frame.width / 2, frame.height / 2, float(frame.width), float(frame.height)


_SMALL, _SHARE, _CELL = st.integers(0, 63), st.integers(1, 10_000), st.integers(0, 31)
_LATTICE = st.builds(Lattice, _SMALL, _SMALL, _SMALL, _SMALL)
_ANYWHERE = st.builds(Anywhere, _SHARE, _SHARE, _SHARE, _SHARE)


def ordinary_placements() -> st.SearchStrategy[Placement]:
    """Strategy of ordinary boxes."""
    return st.one_of(_LATTICE, _ANYWHERE)


def placements() -> st.SearchStrategy[Placement]:
    """Strategy of all ways to place a box; it shrinks to a box in the image's top-left corner."""
    distance = st.sampled_from([(False, d) for d in DISTANCES] + [(True, d) for d in FROM_LARGEST])
    side, slight = st.sampled_from(SIDES), st.sampled_from(SLIGHT)
    return st.one_of(
        _LATTICE,
        _ANYWHERE,
        st.builds(Sided, _LATTICE, side, side),
        st.one_of(
            st.builds(Sided, _LATTICE, slight, side), st.builds(Sided, _LATTICE, side, slight), st.builds(Sided, _LATTICE, slight, slight)
        ),
        st.builds(Near, st.just(0), st.just(0), st.just(1.0)),
        st.builds(Near, st.integers(-2, 2), st.integers(-2, 2), st.sampled_from((1.0, 0.5, 0.9))),
        st.builds(OnCentres, st.integers(0, 3), _CELL, _CELL, st.integers(1, 6), st.integers(1, 6)),
        st.builds(AtDistances, st.integers(0, 3), _CELL, _CELL, st.tuples(distance, distance, distance, distance)),
        st.builds(Beyond, _LATTICE, st.sampled_from(("left", "corner", "top", "right", "bottom")), st.sampled_from(BEYOND)),
        st.just(Whole()),
    )
