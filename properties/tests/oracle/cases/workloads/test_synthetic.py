"""Synthetic ground truth has the published statistics of its data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from oracle.cases.workloads import STATISTICS, LabelledImages, data_folder, generate, open_images, real_batches
from oracle.cases.workloads.synthetic import QUANTILES

# Published share of the anchors in boxes that lie in two or more, letterboxed to 640 px.
CONTESTED = {"coco": 0.237, "gwhd": 0.091, "bccd": 0.082}
needs_data = pytest.mark.skipif(
    data_folder() is None, reason="no folder of real ground truth: set TWINLOSS_DATA, or put it at ../shared/data"
)


def letterboxed(pack: LabelledImages, image: int, imgsz: int = 640) -> NDArray[np.float64]:
    """Boxes (n, 4) of one image in pixels of the network's input."""
    scale = imgsz / pack.sizes[image].max()
    boxes: NDArray[np.float64] = pack.boxes[pack.rows(image)] * scale
    boxes[:, :2] += (imgsz - pack.sizes[image] * scale) / 2
    return boxes


def contested(pack: LabelledImages, images: int = 200) -> float:
    inside = in_two = 0
    for image in range(min(images, len(pack))):
        boxes = letterboxed(pack, image)
        for stride in (8, 16, 32):
            centres = (np.arange(640 // stride) + 0.5) * stride
            x, y = (np.abs(centres - boxes[:, axis, None]) < boxes[:, axis + 2, None] / 2 for axis in (0, 1))
            seen = (y[:, :, None] & x[:, None, :]).sum(0)
            inside, in_two = inside + (seen > 0).sum(), in_two + (seen > 1).sum()
    return float(in_two / inside)


@pytest.mark.parametrize("name", STATISTICS)
def test_generated_boxes_have_the_published_figures(name: str) -> None:
    figures, pack = STATISTICS[name], generate(name)
    assert pack.num_classes == figures.num_classes
    areas = np.concatenate([letterboxed(pack, image)[:, 2:].prod(1) ** 0.5 for image in range(len(pack))])
    middle = slice(2, 9)  # From 5 to 95 %: the ends are single boxes.
    counts = np.quantile(pack.counts, QUANTILES)[middle]
    assert np.abs(counts - figures.boxes_per_image[middle]).max() <= 0.15 * max(figures.boxes_per_image[middle])
    assert np.abs(np.quantile(areas, QUANTILES)[middle] / figures.root_area[middle] - 1).max() < 0.2
    assert abs(contested(pack) - CONTESTED[name]) < 0.05
    share = np.bincount(pack.labels).max() / len(pack.labels)
    assert abs(share - figures.commonest) < 0.05


@needs_data
@pytest.mark.parametrize("name", STATISTICS)
def test_real_boxes_have_the_published_figures(name: str) -> None:
    """The files are read right: the figures were published of them."""
    figures, pack = STATISTICS[name], open_images(name)
    assert pack.name == name
    assert pack.num_classes == figures.num_classes
    assert np.quantile(pack.counts, QUANTILES) == pytest.approx(figures.boxes_per_image, abs=0.02)
    areas = np.concatenate([letterboxed(pack, image)[:, 2:].prod(1) ** 0.5 for image in range(len(pack))])
    assert np.quantile(areas, QUANTILES)[1:-1] == pytest.approx(figures.root_area[1:-1], rel=0.02)


@pytest.mark.parametrize("name", ["coco", "gwhd", "bccd"])
def test_without_files_the_pack_says_that_it_is_made_up(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLOSS_DATA", str(tmp_path))
    pack = open_images(name)
    assert pack.name == f"synthetic-{name}"
    assert "generated on the published figures" in pack.origin
    (case,) = real_batches(f"{name}-crowded", imgsz=320, batch=2)
    assert case.workload == f"synthetic-{name}-crowded"


def test_a_data_folder_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TWINLOSS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"TWINLOSS_DATA is .*nowhere"):
        open_images("coco")
