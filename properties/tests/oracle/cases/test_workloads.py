"""Real boxes, and those made up where there are none: figures, layouts, and what a bad label file is answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from oracle.cases.case import Box, Case
from oracle.cases.workloads import FIGURES, Pack, data_folder, generate, load_labels, open_pack, real_batches
from oracle.cases.workloads.synthetic import QUANTILES
from twinloss import LossSpec

# Published share of the anchors in boxes that lie in two or more, letterboxed to 640 px.
CONTESTED = {"coco": 0.237, "gwhd": 0.091, "bccd": 0.082}
needs_data = pytest.mark.skipif(
    data_folder() is None, reason="no folder of real ground truth: set TWINLOSS_DATA, or put it at ../shared/data"
)


def letterboxed(pack: Pack, image: int, imgsz: int = 640) -> NDArray[np.float64]:
    """Boxes (n, 4) of one image in pixels of the network's input."""
    scale = imgsz / pack.sizes[image].max()
    boxes: NDArray[np.float64] = pack.boxes[pack.rows(image)] * scale
    boxes[:, :2] += (imgsz - pack.sizes[image] * scale) / 2
    return boxes


def contested(pack: Pack, images: int = 200) -> float:
    inside = in_two = 0
    for image in range(min(images, len(pack))):
        boxes = letterboxed(pack, image)
        for stride in (8, 16, 32):
            centres = (np.arange(640 // stride) + 0.5) * stride
            x, y = (np.abs(centres - boxes[:, axis, None]) < boxes[:, axis + 2, None] / 2 for axis in (0, 1))
            seen = (y[:, :, None] & x[:, None, :]).sum(0)
            inside, in_two = inside + (seen > 0).sum(), in_two + (seen > 1).sum()
    return float(in_two / inside)


@pytest.mark.parametrize("name", FIGURES)
def test_generated_boxes_have_the_published_figures(name: str) -> None:
    figures, pack = FIGURES[name], generate(name)
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
@pytest.mark.parametrize("name", FIGURES)
def test_real_boxes_have_the_published_figures(name: str) -> None:
    """The files are read right: the figures were published of them."""
    figures, pack = FIGURES[name], open_pack(name)
    assert pack.name == name
    assert pack.num_classes == figures.num_classes
    assert np.quantile(pack.counts, QUANTILES) == pytest.approx(figures.boxes_per_image, abs=0.02)
    areas = np.concatenate([letterboxed(pack, image)[:, 2:].prod(1) ** 0.5 for image in range(len(pack))])
    assert np.quantile(areas, QUANTILES)[1:-1] == pytest.approx(figures.root_area[1:-1], rel=0.02)


@pytest.mark.parametrize("name", ["coco", "gwhd", "bccd"])
def test_without_files_the_pack_says_that_it_is_made_up(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINLOSS_DATA", str(tmp_path))
    pack = open_pack(name)
    assert pack.name == f"synthetic-{name}"
    assert "generated on the published figures" in pack.origin
    (case,) = real_batches(f"{name}-crowded", imgsz=320, batch=2)
    assert case.workload == f"synthetic-{name}-crowded"


def test_a_data_folder_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TWINLOSS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"TWINLOSS_DATA is .*nowhere"):
        open_pack("coco")


def within(case: Case, slack: float = 1e-3) -> bool:
    height, width = case.image_size
    return all(
        b.cx - b.w / 2 > -slack and b.cy - b.h / 2 > -slack and b.cx + b.w / 2 < width + slack and b.cy + b.h / 2 < height + slack
        for b in case.boxes
    )


@pytest.mark.parametrize("layout", ["letterbox", "mosaic", "rect", "crowded"])
def test_layouts(layout: str) -> None:
    name = "synthetic-coco" if layout == "letterbox" else f"synthetic-coco-{layout}"
    batches = list(real_batches(name, count=3, seed=2))
    assert {case.workload for case in batches} == {name}
    assert [case.prediction.kind for case in batches] == ["early", "middle", "late"]
    for case in batches:
        assert case.batch_size == 16
        assert case.spec == LossSpec(num_classes=80)
        assert [box.image for box in case.boxes] == sorted(box.image for box in case.boxes)
        assert within(case)
        assert max(case.image_size) == 640
        assert Case.from_json(case.to_json()) == case
    boxes = np.mean([len(case.boxes) for case in batches])
    if layout == "letterbox":
        assert all(case.image_size == (640, 640) for case in batches)
        assert 60 < boxes < 180
    if layout == "mosaic":
        assert 300 < boxes < 650  # 464 in the median of the real ones.
    if layout == "crowded":
        assert boxes > 16 * 20
    if layout == "rect":
        assert {case.image_size for case in batches} <= {(480, 640), (448, 640), (640, 480), (640, 640)}
        assert any(case.image_size != (640, 640) for case in batches)


def pack_of(*images: tuple[tuple[int, int], list[tuple[int, float, float, float, float]]]) -> Pack:
    rows = [row for _, of_image in images for row in of_image]
    return Pack(
        name="made",
        origin="made here",
        num_classes=3,
        sizes=np.array([size for size, _ in images]),
        starts=np.concatenate([[0], np.cumsum([len(of_image) for _, of_image in images])]),
        labels=np.array([row[0] for row in rows]),
        boxes=np.array([row[1:] for row in rows]),
    )


def test_letterboxing_by_hand() -> None:
    """Twice as wide as high: halved, and moved down by a quarter of the square."""
    pack = pack_of(((1280, 640), [(2, 100, 50, 40, 20)]))
    (square,) = real_batches(pack, batch=1)
    assert square.boxes == (Box(0, 2, 50, 25 + 160, 20, 10),)
    (rectangle,) = real_batches(pack, batch=1, layout="rect")
    assert rectangle.image_size == (320, 640)
    assert rectangle.boxes == (Box(0, 2, 50, 25, 20, 10),)


def test_mosaic_keeps_the_four_images_apart() -> None:
    whole = [((100, 100), [(label, 50.0, 50.0, 100.0, 100.0)]) for label in (0, 1, 2, 0)]
    (case,) = real_batches(pack_of(*whole), batch=1, layout="mosaic")
    assert len(case.boxes) == 4
    corners = [(b.cx - b.w / 2, b.cy - b.h / 2, b.cx + b.w / 2, b.cy + b.h / 2) for b in case.boxes]
    for i, (left, top, right, bottom) in enumerate(corners):
        for x1, y1, x2, y2 in corners[i + 1 :]:
            assert min(right, x2) <= max(left, x1) + 1e-3 or min(bottom, y2) <= max(top, y1) + 1e-3


def test_every_image_comes_once_before_any_comes_twice() -> None:
    pack = pack_of(*[((64, 64), [(0, 1.0 + image, 32.0, 2.0, 2.0)]) for image in range(12)])
    seen = [box.cx for case in real_batches(pack, imgsz=64, batch=4, count=3) for box in case.boxes]
    assert len(set(seen)) == 12
    again = [box.cx for case in real_batches(pack, imgsz=64, batch=4, count=3) for box in case.boxes]
    other = [box.cx for case in real_batches(pack, imgsz=64, batch=4, count=3, seed=1) for box in case.boxes]
    assert seen == again != other
    # A batch larger than the pack goes round again.
    (large,) = real_batches(pack, imgsz=64, batch=30)
    assert len(large.boxes) == 30


def test_unknown_names_are_refused() -> None:
    for name in ("cocoa", "labels", "coco-tiles"):
        with pytest.raises(ValueError, match=rf"workload '{name}' is unknown; choose one of coco, gwhd, bccd"):
            next(real_batches(name))
    with pytest.raises(ValueError, match="layout 'tiles' is unknown"):
        next(real_batches("synthetic-bccd", layout="tiles"))
    with pytest.raises(ValueError, match="imgsz 650 is not a multiple of the coarsest stride, 32"):
        next(real_batches("synthetic-bccd", imgsz=650))


# Label files.


def yolo(folder: Path, **files: str) -> Path:
    labels = folder / "labels" / "train"
    labels.mkdir(parents=True)
    for name, text in files.items():
        (labels / f"{name}.txt").write_text(text)
    return folder / "labels"


def test_yolo_labels(tmp_path: Path) -> None:
    from PIL import Image

    folder = yolo(
        tmp_path, a="0 0.5 0.5 0.25 0.5\n\n2 0.1 0.2 0.1 0.1\n", b="", c="1 0.2 0.2 0.4 0.2 0.4 0.6 0.2 0.6", classes="cat\ndog\n"
    )
    (tmp_path / "images" / "train").mkdir(parents=True)
    Image.new("RGB", (200, 100)).save(tmp_path / "images" / "train" / "a.png")
    pack = load_labels(folder)
    assert pack.name == "labels:labels"
    assert "3 files" in pack.origin
    assert pack.counts.tolist() == [2, 0, 1]
    assert pack.sizes.tolist() == [[200, 100], [640, 640], [640, 640]]
    assert pack.labels.tolist() == [0, 2, 1]
    assert pack.num_classes == 3
    expected = [[100, 50, 50, 50], [20, 20, 20, 10], [192, 256, 128, 256]]
    assert pack.boxes == pytest.approx(np.array(expected))
    (case,) = real_batches(f"labels-mosaic:{folder}", imgsz=64, batch=2)
    assert case.workload == "labels:labels-mosaic"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", r"4 values; expected class, centre x"),
        ("0 0.5 0.5 0.1 0.1 0.1", r"6 values; expected"),
        ("0 0.5 x 0.1 0.1", r"'x'"),
        ("0.5 0.5 0.5 0.1 0.1", r"class 0.5 is not a whole number"),
        ("-1 0.5 0.5 0.1 0.1", r"class -1 is not"),
        ("nan 0.5 0.5 0.1 0.1", r"class nan is not"),
        ("0 320 240 64 64", r"coordinate 320 is not between 0 and 1; divide by"),
        ("0 0.5 nan 0.1 0.1", r"coordinate nan is not"),
        ("0 0.5 0.5 -0.1 0.1", r"coordinate -0.1 is not"),
    ],
)
def test_a_bad_yolo_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    folder = yolo(tmp_path, fine="0 0.5 0.5 0.1 0.1", worse=f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(ValueError, match=rf"worse\.txt, line 2, .*: .*{message}"):
        load_labels(folder)


def coco_file(folder: Path, **changes: Any) -> Path:
    record: dict[str, Any] = {
        "images": [{"id": 7, "width": 200, "height": 100}, {"id": 3, "width": 50, "height": 50}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 90, "bbox": [10, 10, 20, 30], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 200.5, 100]},
            {"id": 3, "image_id": 7, "category_id": 5, "bbox": [0, 0, 10, 10], "iscrowd": 1},
        ],
        "categories": [{"id": 90, "name": "b"}, {"id": 5, "name": "a"}, {"id": 6, "name": "unused"}],
    }
    record["annotations"][1] |= changes.pop("annotation", {})
    record["images"][0] |= changes.pop("image", {})
    file = folder / "instances_made.json"
    file.write_text(json.dumps({key: value for key, value in (record | changes).items() if value is not None}))
    return file


def test_coco_style_labels(tmp_path: Path) -> None:
    pack = load_labels(coco_file(tmp_path))
    assert pack.name == "labels:instances_made"
    assert pack.num_classes == 3
    assert pack.counts.tolist() == [1, 1]
    assert pack.labels.tolist() == [0, 2]
    assert pack.boxes.tolist() == [[100.25, 50, 200.5, 100], [20, 25, 20, 30]]
    assert load_labels(coco_file(tmp_path, categories=None)).num_classes == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotation": {"bbox": [1, 2, 3]}}, r"annotation 2 has bbox \[1, 2, 3\]; expected \[left, top, width, height\]"),
        ({"annotation": {"bbox": [1, 2, -3, 4]}}, r"annotation 2 has bbox \[1, 2, -3, 4\]"),
        ({"annotation": {"bbox": [1, 2, float("nan"), 4]}}, r"annotation 2 has bbox \[1, 2, nan, 4\]"),
        ({"annotation": {"bbox": "1 2 3 4"}}, r"annotation 2 has bbox '1 2 3 4'"),
        ({"annotation": {"image_id": 8}}, r"annotation 2 has image_id 8 and category_id 5; the file lists no such image"),
        ({"annotation": {"category_id": 1}}, r"annotation 2 has image_id 7 and category_id 1"),
        ({"image": {"width": 0}}, r"image 7 has width 0 and height 100; both must be whole and positive"),
        ({"images": None}, r"not a COCO-style file"),
    ],
)
def test_a_bad_coco_entry_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"instances_made\.json: {message}"):
        load_labels(coco_file(tmp_path, **change))


def test_coco_entries_without_a_field_are_named(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": [{"id": 1, "height": 3}], "annotations": []}))
    with pytest.raises(ValueError, match=r"image 1 has no 'width'"):
        load_labels(file)
    file.write_text(
        json.dumps({"images": [{"id": 1, "width": 3, "height": 3}], "annotations": [{"id": 4, "category_id": 1, "bbox": [1, 1, 1, 1]}]})
    )
    with pytest.raises(ValueError, match=r"annotation 4 has no 'image_id'"):
        load_labels(file)


def test_coco_files_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"instances_made\.json: it lists no image"):
        load_labels(coco_file(tmp_path, images=[], annotations=[]))


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no labels at .*nowhere; give a COCO-style"):
        open_pack(f"labels:{tmp_path / 'nowhere'}")
    with pytest.raises(FileNotFoundError, match=r"no \*\.txt label file in"):
        load_labels(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json: not JSON"):
        load_labels(tmp_path / "broken.json")
