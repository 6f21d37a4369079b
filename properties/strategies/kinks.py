"""Batches at kinks of the loss: predicted sides on the truth's, borders that touch, boxes of size 0, to within a few last bits.

All anchors of an image predict the same box, so that all anchors that hold it are at a kink, with different rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from oracle.cases.case import Box, Case, Prediction
from oracle.cases.logits import inline_text, two_bin_logits
from twinloss import LossSpec

# Sides of boxes in pixels: 0, far below and just below a pixel, ordinary, and about the length below which a side is lengthened.
LENGTHS = (24.0, 0.0, 0.01, 0.3, 0.9, 1.0, 8.0, 1e-4, 16.1)
# Distance of a predicted side beyond the truth's, in shares of the box's side; -1 is the opposite side, so that borders touch.
BEYOND = (0.0, -1.0, 0.0, 0.1, -0.1, 0.0, 1.0)
SIZES = ((64, 64), (96, 80), (16, 1024))
LAST_BITS = (0, 0, 0, 1, -1, 2, -3, 40)


@dataclass(frozen=True)
class Kinked:
    """One image with a box, and the box that all its anchors predict.

    Attributes:
        centre: centre of the box in quarters or tenths of a pixel; quarters are exact in float32.
        tenths: whether the unit is a tenth.
        lengths: width and height in pixels.
        beyond: distance of each predicted side beyond the truth's, in shares of the box's side.
        bits: additional distance of each side in last bits of float32.
        copies: number of copies of the box, with all classes in turn.
    """

    centre: tuple[int, int]
    tenths: bool
    lengths: tuple[float, float]
    beyond: tuple[float, float, float, float]
    bits: tuple[int, int, int, int]
    copies: int

    def boxes(self, image: int, size: tuple[int, int], classes: int) -> list[Box]:
        """Returns the box and its copies; the centre is inside the image of ``size`` (height, width)."""
        step = 10 if self.tenths else 4
        cx, cy = (number % (side * step) / step for number, side in zip(self.centre, size[::-1], strict=True))
        return [Box(image, copy % classes, cx, cy, *self.lengths) for copy in range(self.copies)]

    def distances(self, box: Box, size: tuple[int, int], centres: NDArray[np.float32], strides: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the predicted distances (4, A) in cells."""
        width_height = np.array([size[1], size[0]], dtype=np.float32)
        centre, length = (np.array(pair, dtype=np.float32) / width_height * width_height for pair in ((box.cx, box.cy), (box.w, box.h)))
        low, high = ((centre + sign * length / 2) / strides[:, None] for sign in (-1, 1))
        target = np.concatenate([centres - low, high - centres], axis=1)
        out = target + np.array(self.beyond, dtype=np.float32) * np.tile(length, 2) / strides[:, None]
        nudged: NDArray[np.float32] = (out + np.array(self.bits, dtype=np.float32) * np.spacing(np.abs(out))).T.astype(np.float32)
        return nudged


_COORDINATE, _LENGTH = st.integers(0, 10_240), st.sampled_from(LENGTHS)
_BEYOND, _BITS = st.sampled_from(BEYOND), st.sampled_from(LAST_BITS)
_KINKED = st.builds(
    Kinked,
    centre=st.tuples(_COORDINATE, _COORDINATE),
    tenths=st.booleans(),
    lengths=st.tuples(_LENGTH, _LENGTH),
    beyond=st.tuples(_BEYOND, _BEYOND, _BEYOND, _BEYOND),
    bits=st.tuples(_BITS, _BITS, _BITS, _BITS),
    copies=st.sampled_from((1, 1, 2)),
)
_DEFINITIONS = st.builds(
    LossSpec,
    num_classes=st.just(2),
    reg_max=st.sampled_from((1, 16, 4)),
    strides=st.sampled_from(((8,), (16,), (8, 16))),
    gains=st.sampled_from(((7.5, 0.5, 1.5), (1.0, 1.0, 1.0))),
    topk=st.sampled_from((10, 1, 3)),
    # With a power of 1 a very small overlap still gives a weight.
    alpha=st.just(1.0),
    beta=st.sampled_from((6.0, 1.0)),
)


@st.composite
def kinked_cases(draw: st.DrawFn) -> Case:
    """Batches of one or two images at kinks."""
    spec, size = draw(_DEFINITIONS), draw(st.sampled_from(SIZES))
    images = draw(st.lists(_KINKED, min_size=1, max_size=2))
    boxes = [kinked.boxes(image, size, spec.num_classes) for image, kinked in enumerate(images)]
    case = Case(spec, size, len(images), tuple(box for group in boxes for box in group), workload="generated-kinks")
    centres, strides = anchors_of(case)
    distances = np.stack([kinked.distances(group[0], size, centres, strides) for kinked, group in zip(images, boxes, strict=True)])
    scores = np.full((len(images), spec.num_classes, len(strides)), -2.0, np.float32)
    scores[:, 0] = 1.5
    prediction = Prediction("inline", inline=inline_text(two_bin_logits(distances, spec.reg_max), scores))
    return Case(case.spec, case.image_size, case.batch_size, case.boxes, prediction, case.workload)


def anchors_of(case: Case) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the centres (A, 2) in cells and strides (A,) in pixels of a case's anchors."""
    centres = [(x + 0.5, y + 0.5) for rows, columns in case.grids for y in range(rows) for x in range(columns)]
    strides = [stride for (rows, columns), stride in zip(case.grids, case.spec.strides, strict=True) for _ in range(rows * columns)]
    return np.array(centres, dtype=np.float32), np.array(strides, dtype=np.float32)
