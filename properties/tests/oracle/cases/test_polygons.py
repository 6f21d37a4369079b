"""Masks of polygons: pixel centres inside by the even-odd rule."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from oracle.cases.noise import Noise
from oracle.cases.polygons import octagon, rasterised

SQUARE = (1.0, 1.0, 5.0, 1.0, 5.0, 4.0, 1.0, 4.0)


def test_a_rectangle_keeps_the_centres_inside() -> None:
    mask = rasterised([SQUARE], (6, 6), (6, 6))
    expected = np.zeros((6, 6), dtype=bool)
    expected[1:4, 1:5] = True
    assert np.array_equal(mask, expected)


def test_a_ring_inside_of_another_is_a_hole() -> None:
    mask = rasterised([SQUARE, (2.0, 2.0, 4.0, 2.0, 4.0, 3.0, 2.0, 3.0)], (6, 6), (6, 6))
    assert mask.sum() == 12 - 2
    assert not mask[2, 2]


def test_two_parts_are_one_mask() -> None:
    mask = rasterised([(0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0), (4.0, 4.0, 6.0, 4.0, 6.0, 6.0, 4.0, 6.0)], (6, 6), (6, 6))
    assert mask.sum() == 1 + 4


def test_a_polygon_beyond_the_image_is_cut() -> None:
    assert rasterised([(-9.0, -9.0, 99.0, -9.0, 99.0, 99.0, -9.0, 99.0)], (6, 6), (3, 2)).all()
    assert not rasterised([(7.0, 7.0, 9.0, 7.0, 9.0, 9.0)], (6, 6), (6, 6)).any()


@pytest.mark.parametrize(
    "rings", [[], [()], [(1.0, 1.0, 5.0, 5.0)], [(np.nan, 1.0, 5.0, 1.0, 5.0, 5.0)]], ids=["none", "empty", "line", "nan"]
)
def test_what_encloses_nothing_has_no_pixel(rings: list[tuple[float, ...]]) -> None:
    assert not rasterised(rings, (6, 6), (6, 6)).any()


def test_the_grid_may_have_other_factors_for_each_axis() -> None:
    mask = rasterised([(0.0, 0.0, 8.0, 0.0, 8.0, 4.0, 0.0, 4.0)], (8, 16), (4, 4))
    assert mask.astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_pillow_draws_the_same_except_at_borders() -> None:
    """Its polygons include their outline, so that only pixels on an edge may differ."""
    for seed in range(20):
        points = Noise(seed).uniform(7, 2) * 40
        ours = rasterised([tuple(points.reshape(-1).tolist())], (40, 40), (40, 40))
        size, image = 8, Image.new("1", (320, 320))
        ImageDraw.Draw(image).polygon([(float(x) * size, float(y) * size) for x, y in points], fill=1)
        theirs = np.asarray(image).reshape(40, size, 40, size).mean((1, 3))
        assert ours[theirs > 0.9].mean() > 0.95 if (theirs > 0.9).any() else True
        assert ours[theirs == 0].sum() <= 2


def test_an_octagon_fills_its_box() -> None:
    points = np.array(octagon(10, 20, 8, 4)).reshape(-1, 2)
    assert points.min(0).tolist() == [6, 18]
    assert points.max(0).tolist() == [14, 22]
