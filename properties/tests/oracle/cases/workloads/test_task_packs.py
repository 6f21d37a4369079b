"""Packs with masks, angles and keypoints: each box has its own extra ground truth, which a layout scales and shifts with the box."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from oracle.cases.workloads import LabelledImages
from oracle.cases.workloads.batches import PLACED, Fit
from oracle.cases.workloads.labelled_images import data_folder
from oracle.cases.workloads.task_packs import KEYPOINTS, MASKS, ORIENTED, keypoint_images, mask_images, oriented_images

Open = Callable[[str], LabelledImages]
PACKS: list[tuple[Open, str, str]] = [
    *((mask_images, name, "polygons") for name in MASKS),
    *((oriented_images, name, "angle") for name in ORIENTED),
    *((keypoint_images, name, "keypoints") for name in KEYPOINTS),
]
IDS = [f"{extra}-{name}" for _, name, extra in PACKS]
packs = pytest.mark.parametrize(("images", "name", "extra"), PACKS, ids=IDS)


@packs
def test_every_box_has_its_entry(images: Open, name: str, extra: str) -> None:
    pack = images(name)
    assert set(pack.extras) == {extra}
    assert len(pack.extras[extra]) == len(pack.boxes) == pack.starts[-1]
    assert len(pack) == len(pack.sizes)
    assert pack.labels.max() < pack.num_classes
    assert (pack.boxes[:, 2:] > 0).all()
    assert pack.name.startswith("synthetic-") == pack.origin.startswith("generated") == (data_folder() is None)


@packs
def test_without_the_pack_the_images_are_generated_and_say_so(
    images: Open, name: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINLOSS_DATA", str(tmp_path))
    pack = images(name)
    assert pack.name.startswith(f"synthetic-{name}")
    assert pack.origin.startswith("generated")
    assert len(pack.extras[extra]) == len(pack.boxes) > 1000


@pytest.mark.parametrize("name", MASKS)
def test_a_polygon_fills_its_box_to_the_bounds(name: str) -> None:
    pack = mask_images(name)
    bounds = np.array([_bounds(rings) for rings in pack.extras["polygons"]])
    corners = np.concatenate([pack.boxes[:, :2] - pack.boxes[:, 2:] / 2, pack.boxes[:, :2] + pack.boxes[:, 2:] / 2], axis=1)
    slack = 0.25 * pack.boxes[:, 2:].max() if pack.name.startswith("synthetic") else 0.01
    assert np.abs(bounds - corners).max() < slack


def test_angles_and_points_are_those_of_the_specification() -> None:
    assert all(-np.pi / 4 - 1e-6 <= angle < 3 * np.pi / 4 + 1e-6 for name in ORIENTED for angle in oriented_images(name).extras["angle"])
    for name, count in (("coco", 17), ("mouse", 7)):
        points = np.array(keypoint_images(name).extras["keypoints"])
        assert points.shape[1] == 3 * count
        assert set(np.unique(points[:, 2::3])) <= {0, 1, 2}


def test_an_unknown_pack_is_named() -> None:
    with pytest.raises(ValueError, match="pack 'nothing' is unknown; choose one of coco, mouse"):
        keypoint_images("nothing")


def test_extras_follow_the_scale_and_the_shift_of_their_box() -> None:
    fit = Fit(0, 2.0, np.array([10.0, 20.0]))
    assert PLACED["angle"](0.5, fit) == 0.5
    assert PLACED["keypoints"]((1.0, 2.0, 1.0, 3.0, 4.0, 2.0), fit) == (12.0, 24.0, 1.0, 16.0, 28.0, 2.0)
    assert PLACED["polygons"](((0.0, 0.0, 1.0, 0.0, 1.0, 1.0), (5.0, 5.0)), fit) == ((10.0, 20.0, 12.0, 20.0, 12.0, 22.0), (20.0, 30.0))


def _bounds(rings: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    flat = list(itertools.chain(*rings))
    return min(flat[::2]), min(flat[1::2]), max(flat[::2]), max(flat[1::2])
