"""Rectangles of least area, and a user's label files as oriented boxes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.cases.workloads import load_labels
from oracle.cases.workloads.rectangles import oriented_labels, rectangle
from oracle.cases.workloads.task_packs import oriented_images
from properties.tests.oracle.cases.workloads.label_files import yolo


def corners(x: float, y: float, w: float, h: float, angle: float) -> np.ndarray:
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array(
        [
            [x + a * w * cosine - b * h * sine, y + a * w * sine + b * h * cosine]
            for a, b in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
        ]
    )


@given(st.floats(0, 600), st.floats(0, 600), st.floats(3, 90), st.floats(1.05, 30), st.floats(-7, 7), st.permutations(range(5)))
def test_the_corners_of_a_rectangle_give_it_back(x: float, y: float, h: float, ratio: float, angle: float, order: list[int]) -> None:
    w = h * ratio
    points = np.concatenate([corners(x, y, w, h, angle), [[x, y]]])[order]
    found = rectangle(points)
    np.testing.assert_allclose(found[:4], (x, y, w, h), rtol=1e-9, atol=1e-9)
    assert -math.pi / 4 <= found[4] < 3 * math.pi / 4
    assert abs(math.sin(found[4] - angle)) < 1e-9


@pytest.mark.parametrize(("points", "expected"), [([[3.0, 4.0]] * 4, (3, 4, 0, 0)), ([[0.0, 0.0], [4.0, 0.0]] * 2, (2, 0, 4, 0))])
def test_points_on_a_line_or_in_one_place(points: list[list[float]], expected: tuple[float, ...]) -> None:
    assert rectangle(np.array(points))[:4] == pytest.approx(expected)


def test_a_line_of_eight_values_is_a_rectangle_and_one_of_five_an_upright_box(tmp_path: Path) -> None:
    turned = corners(0.5, 0.5, 0.4, 0.2, 0.3).reshape(-1).tolist()
    folder = yolo(tmp_path, a="0 " + " ".join(map(str, turned)), b="1 0.25 0.5 0.1 0.2")
    images = oriented_labels(load_labels(folder))
    assert images.labels.tolist() == [0, 1]
    np.testing.assert_allclose(images.boxes, np.array([[0.5, 0.5, 0.4, 0.2], [0.25, 0.5, 0.2, 0.1]]) * 640)
    assert images.extras["angle"] == pytest.approx((0.3, math.pi / 2))
    assert oriented_images(f"labels:{folder}").boxes.tolist() == images.boxes.tolist()
