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
from oracle.cases.workloads.image_sizes import Pictures
from oracle.cases.workloads.synthetic import QUANTILES
from oracle.cases.workloads.yolo_file import Format, read_lines, rows_of
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
    for imgsz in (650, 0, -64):
        with pytest.raises(ValueError, match=f"imgsz {imgsz} is not a multiple of the coarsest stride, 32"):
            next(real_batches("synthetic-bccd", imgsz=imgsz))
    with pytest.raises(ValueError, match="batch 0 is no number of images"):
        next(real_batches("synthetic-bccd", batch=0))


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
        ("0 0.5 0.5 0.1 0.1 0.1", r"6 values; expected .*The sixth is a confidence"),
        ("0 0.5 0.5 0.1 0.1 0.1 0.2 0.3", r"8 values; expected .*If it has keypoints, put the dataset's data\.yaml"),
        ("0 0.5 x 0.1 0.1", r"'x'"),
        ("cat 0.5 0.5 0.1 0.1", r"'cat'"),
        ("0,0.5,0.5,0.1,0.1", r"could not convert string to float: '0,0"),
        ("0.5 0.5 0.5 0.1 0.1", r"class 0.5 is not a whole number"),
        ("-1 0.5 0.5 0.1 0.1", r"class -1 is not"),
        ("nan 0.5 0.5 0.1 0.1", r"class nan is not"),
        ("inf 0.5 0.5 0.1 0.1", r"class inf is not"),
        ("1" * 400 + " 0.5 0.5 0.1 0.1", r"class inf is not"),
        ("1e9 0.5 0.5 0.1 0.1", r"class 1000000000: a head scores every class .*number the classes anew"),
        ("16384 0.5 0.5 0.1 0.1", r"class 16384: a head"),
        ("0 320 240 64 64", r"coordinate 320 is not between 0 and 1; divide by"),
        ("0 0.5 nan 0.1 0.1", r"coordinate nan is not"),
        ("0 0.5 1e400 0.1 0.1", r"coordinate inf is not"),
        ("0 0.5 0.5 -0.1 0.1", r"coordinate -0.1 is not"),
        ("0 0.5 0.5 -0.005 0.1", r"width -0.005 and height 0.1 must not be negative"),
        ("0 1.02 0.5 0.1 0.1", r"coordinate 1.02 is not"),
        ("0 0.5 0.5 0.1 0.1\x00", r"zero byte"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3", r"a polygon in a file that begins with boxes; make all lines"),
    ],
)
def test_a_bad_yolo_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    folder = yolo(tmp_path, fine="0 0.5 0.5 0.1 0.1", worse=f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(ValueError, match=rf"worse\.txt, line 2(, .*)?: .*{message}"):
        load_labels(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 nan 0.1 0.2 0.2 0.3 0.3", r"a polygon's coordinate is no number"),
        ("0 0.1 0.1 0.2 0.2 1.3 0.3", r"coordinate 1.2 is not between"),
        ("3.5 0.1 0.1 0.2 0.2 0.3 0.3", r"class 3.5 is not"),
        ("0 0.5 0.5 0.1 0.1", r"a box in a file that begins with polygons"),
    ],
)
def test_a_bad_polygon_is_named(line: str, message: str, tmp_path: Path) -> None:
    folder = yolo(tmp_path, fine="0 0.5 0.5 0.1 0.1", worse=f"0 0.1 0.1 0.2 0.2 0.3 0.3\n{line}")
    with pytest.raises(ValueError, match=rf"worse\.txt, line 2, .*: {message}"):
        load_labels(folder)


BOX = b"0 0.5 0.5 0.25 0.5"


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + BOX,
        BOX + b"\r\n",
        BOX + b"\r1 0.5 0.5 0.25 0.5\r",
        b"\n \n\t0.0\t0.5  .5 2.5e-1 +0.5 \n\n",
        b"0 0.5 0.5 0.25 0.5\x0c1 0.5 0.5 0.25 0.5",
    ],
)
def test_ways_to_write_a_line_that_the_reference_reads_too(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    pack = load_labels(tmp_path)
    assert pack.labels.tolist() == list(range(len(pack.labels)))
    assert {tuple(box) for box in pack.boxes.tolist()} == {(320, 320, 160, 320)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOX.decode().encode("utf-16"), r"a\.txt is UTF-16 text; save it as UTF-8"),
        (BOX.decode().encode("utf-32"), r"a\.txt is UTF-32 text; save it as UTF-8"),
        (b"\n" + BOX.decode().encode("utf-16-le"), r"a\.txt, line 2: a zero byte; .*save it as UTF-8"),
        (BOX + b"\n# caf\xe9", r"a\.txt, line 2: byte 0xe9 is not UTF-8; save"),
    ],
)
def test_another_encoding_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_labels(tmp_path)


def test_slack_is_that_of_the_reference(tmp_path: Path) -> None:
    pack = load_labels(yolo(tmp_path, a="0 -0.005 1.005 1.005 0", b="0 -0.02 0.1 0.2 0.2 0.3 1.02"))
    assert pack.boxes / 640 == pytest.approx(np.array([[-0.005, 1.005, 1.005, 0], [0.14, 0.56, 0.32, 0.92]]))


def test_of_lines_that_stand_twice_one_is_kept_and_all_are_sorted(tmp_path: Path) -> None:
    """As the reference has it: boxes by their numbers in float32, polygons by the bytes of all their numbers."""
    boxes = "2 .1 .1 .1 .1\n0 .5 .5 .2 .2\n2 .1000000001 .1 .1 .1\n1 .3 .3 .1 .1\n1 .3 .2 .1 .1\n"
    polygon, other = ".5 .5 .6 .6 .5 .7\n", ".3 .3 .6 .6 .5 .7\n"
    polygons = f"2 {polygon}1 {other}1 {polygon}0 {other}2 {polygon}"
    once = "2 .1 .1 .1 .1\n0 .5 .5 .2 .2\n"
    same_bounds = "1 .2 .2 .4 .2 .4 .6 .2 .6\n1 .4 .2 .4 .6 .2 .6 .2 .2\n"
    pack = load_labels(yolo(tmp_path, a=boxes, b=polygons, c=once, d=same_bounds))
    assert pack.counts.tolist() == [4, 4, 2, 2]
    assert pack.labels.tolist() == [0, 1, 1, 2, 0, 2, 1, 1, 2, 0, 1, 1]
    assert (pack.boxes[:4, 1] / 640).round(3).tolist() == [0.5, 0.2, 0.3, 0.1]
    assert (pack.boxes[4:8, 0] / 640).round(3).tolist() == [0.45, 0.55, 0.55, 0.45]
    assert "4 files; 4 without a picture, taken as square; 2 lines left out that stand twice" in pack.origin


POSE = "0 0.5 0.5 0.4 0.4 0.5 0.5 0.5 0.6 0.6 0.6\n"


def described(folder: Path, **files: str) -> Path:
    """A dataset with a description in its root and label files of one part."""
    description = files.pop("description")
    labels = yolo(folder, **files)
    (folder / "data.yaml").write_text(description)
    return labels


def test_keypoints_are_no_polygon(tmp_path: Path) -> None:
    """A line of three keypoints has as many numbers as a polygon of five points: only the dataset's description tells."""
    with pytest.raises(ValueError, match=r"a\.txt, line 1: every line in .* has 11 values, as polygons may and boxes with keypoints; put"):
        load_labels(yolo(tmp_path / "set", a=POSE, b=POSE))
    with pytest.raises(
        ValueError, match=r"a\.txt, line 1, .*: coordinate 1.2 is not .*; if it has keypoints, put the dataset's data\.yaml"
    ):
        load_labels(yolo(tmp_path / "other", a="0 0.5 0.5 0.4 0.4 0.5 0.5 2 0.5 0.6 1"))
    (tmp_path / "set" / "data.yaml").write_text("kpt_shape: [3, 2]\nnames: [cat, dog]\n")
    labels = tmp_path / "set" / "labels"
    for place in (labels, labels / "train", tmp_path / "set"):
        pack = load_labels(place)
        assert pack.boxes.tolist() == [[320, 320, 256, 256]] * 2
        assert pack.num_classes == 2
    (labels / "train" / "c.txt").write_text("0 0.1 0.1 0.2 0.2 0.3 0.3")
    with pytest.raises(ValueError, match=r"c\.txt, line 1, .*: 7 values; .*data\.yaml has kpt_shape \[3, 2\]: expected 11, or 5 for a box"):
        load_labels(labels)


def test_polygons_are_known_by_a_description_or_by_lines_of_another_length(tmp_path: Path) -> None:
    quadrangle = "0 0.1 0.1 0.2 0.1 0.2 0.3 0.1 0.3\n"
    expected = pytest.approx(np.array([0.15, 0.2, 0.1, 0.2]) * 640)
    assert load_labels(described(tmp_path / "said", a=quadrangle, description="names: {0: a}")).boxes[0] == expected
    assert load_labels(yolo(tmp_path / "seen", a=quadrangle, b="0 0.1 0.1 0.2 0.1 0.2 0.3\n")).boxes[0] == expected
    assert load_labels(yolo(tmp_path / "beside", a=quadrangle, b="0 0.1 0.1 0.2 0.1\n")).boxes[0] == expected


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("names: [a]", r"a\.txt, line 1, .*: class 1 is not one of the dataset's 1; correct it, or nc and names"),
        ("nc: 1", r"class 1 is not one of the dataset's 1"),
        ("nc: 0", r"data\.yaml: nc: expected `int` >= 1; write the number of classes"),
        ("nc: 99999999", r"data\.yaml: nc: expected `int` <= 16384; write the number"),
        ("nc: many", r"data\.yaml: nc: expected `int \| null`, got `str`; write the number"),
        ("nc: 3\nnames: [a, b]", r"data\.yaml: nc is 3 and names has 2; they must be as many"),
        ("names: {0: a, 5: b}", r"data\.yaml: names has the numbers \[0, 5\]; number the classes from 0"),
        ("names: cat", r"data\.yaml: names: .*; write a list of names"),
        ("kpt_shape: 17", r"data\.yaml: kpt_shape: .*; write \[K, 2\] or \[K, 3\]"),
        ("kpt_shape: [17, 4]", r"data\.yaml: kpt_shape\[1\]: .*; write \[K, 2\]"),
        ("- a", r"data\.yaml: expected `object`, got `array`"),
        ("a: [", r"data\.yaml: not YAML"),
        ("[" * 10_000, r"data\.yaml: nested too deeply"),
        ("!!python/name:os.system x", r"data\.yaml: not YAML"),
    ],
)
def test_a_bad_description_is_named(description: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_labels(described(tmp_path, a="1 0.5 0.5 0.1 0.1", description=description))


def test_a_file_that_describes_no_dataset_says_nothing(tmp_path: Path) -> None:
    labels = described(tmp_path, a="0 0.1 0.1 0.2 0.1 0.2 0.3 0.1 0.3", description="owner: me")
    with pytest.raises(ValueError, match=r"every line in .* has 9 values, as polygons may and boxes with keypoints"):
        load_labels(labels)


def test_a_dataset_by_its_description(tmp_path: Path) -> None:
    """Parts as a list, as a list of pictures, and written from one folder too high, as exports have it."""
    for part in ("train", "extra", "valid"):
        (tmp_path / part / "images").mkdir(parents=True)
        (tmp_path / part / "labels").mkdir()
        (tmp_path / part / "labels" / f"{part}.txt").write_text("2 0.5 0.5 0.1 0.1")
    (tmp_path / "test.txt").write_text("./valid/images/valid.JPG\n./valid/images/background.jpg\n")
    yaml = tmp_path / "data.yaml"
    yaml.write_text("train: [../train/images, extra/images]\nval: extra/images\ntest: test.txt\nnc: 4\n")
    pack = load_labels(yaml)
    assert pack.name == "labels:data"
    assert pack.num_classes == 4
    assert len(pack) == 3
    yaml.write_text("train: train/images\nval: nowhere/images\n")
    with pytest.raises(ValueError, match=r"data\.yaml names images in nowhere/images, but there is no .*nowhere/images; correct the path"):
        load_labels(yaml)
    (tmp_path / "nowhere" / "images").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"whose labels belong in .*nowhere/labels: there is no such folder"):
        load_labels(yaml)


def test_an_exported_dataset_by_its_root(tmp_path: Path) -> None:
    """What tools put beside the labels is no label; what could be one is not passed over."""
    for part in ("train", "valid"):
        (tmp_path / part / "labels").mkdir(parents=True)
        (tmp_path / part / "labels" / "a.txt").write_text("1 0.5 0.5 0.1 0.1")
    (tmp_path / "train" / "labels" / "classes.txt").write_text("0\n1\n")
    (tmp_path / "train" / "labels" / "._a.txt").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "train" / "labels" / "x.txt").mkdir()
    (tmp_path / "README.roboflow.txt").write_text("exported\n")
    (tmp_path / "train.txt").write_text("images/a.jpg\n")
    (tmp_path / "runs" / "detect" / "labels").mkdir(parents=True)
    (tmp_path / "runs" / "detect" / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1 0.9")
    assert load_labels(tmp_path).labels.tolist() == [1, 1]
    (tmp_path / "lost.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(ValueError, match=r"lost\.txt is a label file outside of the folders called labels in .*; give the folder"):
        load_labels(tmp_path)


def test_texts_beside_labels_without_a_folder_called_labels(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("data/obj_train_data/one picture.JPG\ndata/b.png\n")
    (tmp_path / "list.txt").write_text("data/b.png\n")
    (tmp_path / "README.txt").write_bytes("exportiert für uns".encode("utf-16"))
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "test.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "obj_train_data").mkdir()
    (tmp_path / "obj_train_data" / "b.txt").write_text("1 0.5 0.5 0.1 0.1\n")
    assert load_labels(tmp_path).labels.tolist() == [1, 0], "what looks like labels is, whatever its name"
    (tmp_path / "test.txt").write_text("0 0.5 0.5 0.2\n")
    with pytest.raises(ValueError, match=r"test\.txt, line 1, .*: 4 values"):
        load_labels(tmp_path)


def test_a_link_is_followed_unless_it_leads_nowhere_or_round(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_bytes(BOX)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "part").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "round").symlink_to(folder, target_is_directory=True)
    assert len(load_labels(folder)) == 1
    (folder / "b.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(ValueError, match=r"b\.txt is a link that leads nowhere; mend or remove it"):
        load_labels(folder)


def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by the system, as tests may run as a user who may read everything."""
    (tmp_path / "a.txt").write_bytes(BOX)

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    for method in ("read_bytes", "iterdir"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, denied)
            with pytest.raises(ValueError, match=r" cannot be read \(Permission denied\); see that"):
                load_labels(tmp_path)


# Pictures beside label files.


def pictured(folder: Path, name: str, **options: Any) -> Path:
    from PIL import Image

    (folder / "images" / "train").mkdir(parents=True, exist_ok=True)
    path = folder / "images" / "train" / name
    mode, size = options.pop("mode", "RGB"), options.pop("size", (200, 100))
    Image.new(mode, size).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.JPG", "a.Jpeg", "a.png", "a.TIFF", "a.webp", "a.bmp"])
def test_a_picture_is_found_whatever_the_case_of_its_ending(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictured(tmp_path, name)
    folder = yolo(tmp_path, a=BOX.decode())
    assert load_labels(folder).sizes.tolist() == [[200, 100]]
    monkeypatch.chdir(folder / "train")
    assert load_labels(Path()).sizes.tolist() == [[200, 100]]


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(name: str, orientation: int, tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    pictured(tmp_path, name, exif=exif)
    pack = load_labels(yolo(tmp_path, a=BOX.decode()))
    assert pack.sizes.tolist() == [[100, 200] if orientation > 4 else [200, 100]]
    assert pack.boxes.tolist() == [[50, 100, 25, 100] if orientation > 4 else [100, 50, 50, 50]]


def test_exif_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    pictured(tmp_path, "a.jpg", exif=b"Exif\0\0garbage!")
    assert load_labels(yolo(tmp_path, a=BOX.decode())).sizes.tolist() == [[200, 100]]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\x00\x10JFIF"])
def test_a_broken_picture_is_named(content: bytes, tmp_path: Path) -> None:
    pictured(tmp_path, "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png is not a picture that can be read \(.*\); mend, convert or remove it"):
        load_labels(yolo(tmp_path, a=BOX.decode()))


def test_a_large_picture_is_read_where_the_reference_reads_it(tmp_path: Path) -> None:
    pictured(tmp_path, "a.png", mode="1", size=(10_000, 10_000))
    folder = yolo(tmp_path, a=BOX.decode())
    assert load_labels(folder).sizes.tolist() == [[10_000, 10_000]]
    pictured(tmp_path, "a.png", mode="1", size=(20_000, 20_000))
    with pytest.raises(ValueError, match=r"a\.png is larger than can be read, for the reference too .*; scale it down"):
        load_labels(folder)
    pictured(tmp_path, "a.png", size=(200, 9))
    with pytest.raises(ValueError, match=r"a\.png has 200 × 9 pixels; the reference leaves out what is smaller than 10"):
        load_labels(folder)


def test_two_pictures_of_one_name_must_be_of_one_size(tmp_path: Path) -> None:
    pictured(tmp_path, "a.png")
    pictured(tmp_path, "a.jpg")
    folder = yolo(tmp_path, a=BOX.decode())
    assert load_labels(folder).sizes.tolist() == [[200, 100]]
    pictured(tmp_path, "a.bmp", size=(100, 100))
    with pytest.raises(ValueError, match=r"a\.txt has pictures of different sizes: .*a\.bmp of 100 × 100, .*; keep the one"):
        load_labels(folder)


# What the reference reads of the same files.

LINES = (
    "0 .5 .5 .2 .2\n0 .5 .5 .2 .2",
    "2 .1 .1 .1 .1\n0 .5 .5 .2 .2\n2 .1000000001 .1 .1 .1\n1 .3 .3 .1 .1\n1 .3 .2 .1 .1",
    "2 .1 .1 .1 .1\n0 .5 .5 .2 .2",
    "1.0 .5 .5 .1 .1",
    "0.5 .5 .5 .1 .1",
    "-1 .5 .5 .1 .1",
    "nan .5 .5 .1 .1",
    "inf .5 .5 .1 .1",
    "0 nan .5 .1 .1",
    "0 1e400 .5 .1 .1",
    "5 .5 .5 .1 .1",
    "1e9 .5 .5 .1 .1",
    "0 .5 .5 0 .1",
    "0 .5 .5 -.005 .1",
    "0 -0.005 1.005 1.005 .1",
    "0 1.02 .5 .1 .1",
    "0 .9 .9 .4 .4",
    "0 .5 .5 .1",
    "0 .5 .5 .1 .1 .9",
    "0 .5 .5 .1 .1 .9 .3 .4",
    "cat .5 .5 .1 .1",
    "0,.5,.5,.1,.1",
    "\ufeff0 .5 .5 .2 .2",
    "0 .5 .5 .2 .2\r\n1 .1 .1 .1 .1\r\n",
    "0 .5 .5 .2 .2\r1 .1 .1 .1 .1\r",
    "0 .5 .5 .1 .1\x00",
    "0 .5 .5 .1 .1\x0c1 .1 .1 .1 .1",
    "0 .5\u2028.5 .1 .1",
    "\n \n0\t.5 .5  .1 .1 \n",
    "",
    "1 .2 .2 .4 .2 .4 .6 .2 .6\n1 .2 .2 .4 .2 .4 .6 .2 .6",
    "1 .2 .2 .4 .2 .4 .6 .2 .6\n1 .4 .2 .4 .6 .2 .6 .2 .2",
    "2 .5 .5 .6 .6 .5 .7\n1 .3 .3 .6 .6 .5 .7\n1 .5 .5 .6 .6 .5 .7\n0 .3 .3 .6 .6 .5 .7\n2 .5 .5 .6 .6 .5 .7",
    "1 .2 .2 .4 .2 .4 .6 .2 .6\n0 .5 .5 .2 .2",
    "0 -.02 .1 .2 .2 .3 1.02",
    "0 .1 .1 .2 .2 1.3 .3",
    "3.5 .1 .1 .2 .2 .3 .3",
)


def test_what_the_reference_keeps_is_read_alike_and_what_it_leaves_out_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    from oracle.reference.label_files import read_images

    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for index, text in enumerate(LINES):
        (tmp_path / "labels" / f"{index}.txt").write_bytes(text.encode())
        Image.new("RGB", (20 + index, 12)).save(tmp_path / "images" / f"{index}.jpg", exif=exif if index % 2 else Image.Exif())
    kept = read_images(tmp_path / "images", num_classes=5)
    told = Format(tmp_path / "data.yaml", 5)
    assert len(kept) == 17
    for index, text in enumerate(LINES):
        file = tmp_path / "labels" / f"{index}.txt"
        if str(index) in kept:
            rows = rows_of(file, read_lines(file, told), told)
            # A polygon's bounds are computed here in float64.
            np.testing.assert_allclose(np.reshape(rows, (-1, 5)), kept[str(index)].rows, rtol=0, atol=1e-7, err_msg=repr(text))
            assert Pictures().size(file) == kept[str(index)].size
        else:
            with pytest.raises(ValueError, match=rf"{index}\.txt, line \d"):
                rows_of(file, read_lines(file, told), told)


def test_the_reference_takes_keypoints_by_their_description_too(tmp_path: Path) -> None:
    from oracle.reference.label_files import read_images

    pictured(tmp_path, "a.png")
    point = "0.5 0.5 2"
    yolo(tmp_path, a=f"1 .5 .5 .4 .4 {point} {point}\n0 .5 .5 .4 .4 {point} 0.1 0.1 0\n0 .5 .5 .4 .4 {point} {point}\n")
    file = tmp_path / "labels" / "train" / "a.txt"
    told = Format(tmp_path / "data.yaml", 2, (2, 3))
    kept = read_images(tmp_path / "images", 2, told.keypoints)["a"]
    np.testing.assert_allclose(rows_of(file, read_lines(file, told), told), kept.rows, rtol=0, atol=1e-7)
    assert len(kept.rows) == 2


# COCO-style files.


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
        ({"annotation": {"bbox": [1, 2, 3]}}, r"annotations\[1\]\.bbox: expected `array` of length 4.*; give \[left, top, width, height\]"),
        ({"annotation": {"bbox": [1, 2, -3, 4]}}, r"annotations\[1\] has bbox \[1.0, 2.0, -3.0, 4.0\] in an image of 200 × 100; give"),
        ({"annotation": {"bbox": [1, 2, 300, 4]}}, r"annotations\[1\] has bbox .* within the image"),
        ({"annotation": {"bbox": [-300, 2, 4, 4]}}, r"annotations\[1\] has bbox .* within the image"),
        ({"annotation": {"bbox": [1, 2, float("nan"), 4]}}, r"not JSON \(line 1\)"),
        ({"annotation": {"bbox": "1 2 3 4"}}, r"annotations\[1\]\.bbox: expected `array`, got `str`; give \[left"),
        ({"annotation": {"bbox": ["1", 2, 3, 4]}}, r"annotations\[1\]\.bbox\[0\]: expected `float`, got `str`; give \[left"),
        ({"annotation": {"bbox": None}}, r"annotations\[1\]\.bbox: expected `array`, got `null`; give \[left"),
        ({"annotation": {"iscrowd": "0"}}, r"annotations\[1\]\.iscrowd: expected .*, got `str`; give 0 or 1, without quotes"),
        ({"annotation": {"image_id": 8}}, r"annotations\[1\] has image_id 8; images lists no such id: add it"),
        ({"annotation": {"image_id": "7"}}, r"annotations\[1\] has image_id '7'; the id in images is 7: write both as numbers"),
        ({"annotation": {"image_id": 7.0}}, r"annotations\[1\]\.image_id: expected `int \| str`, got `float`; give the id"),
        ({"annotation": {"category_id": 1}}, r"annotations\[1\] has category_id 1; categories lists no such id"),
        ({"annotation": {"category_id": "5"}}, r"annotations\[1\] has category_id '5'; the id in categories is 5"),
        ({"annotation": {"category_id": None}}, r"annotations\[1\]\.category_id: expected `int \| str`, got `null`"),
        ({"image": {"width": 0}}, r"images\[0\]\.width: expected `int` >= 1; give the image's width in pixels"),
        ({"image": {"width": 10**30}}, r"images\[0\]\.width: .*; give the image's width in pixels"),
        ({"image": {"height": "100"}}, r"images\[0\]\.height: expected `int`, got `str`; give the image's height"),
        ({"image": {"id": 3}}, r"images\[1\] has id 3 as one before it; give each image an id of its own"),
        ({"images": None}, r"object missing required field `images`; give a COCO-style instances"),
        ({"images": {}}, r"images: expected `array`, got `object`; give a COCO-style"),
        ({"annotations": ["a"]}, r"annotations\[0\]: expected `object`, got `str`; give a COCO-style"),
        ({"annotations": []}, r"there is no box in any of its 2 images; give labels of a part that has some"),
        ({"categories": [{"id": 5}, {"id": "90"}]}, r"ids of categories are numbers here and texts there, such as 5 and '90'; make all"),
        ({"categories": [{"id": 5}, {"id": 5}]}, r"categories has the id 5 twice"),
        ({"categories": [{"name": "a"}]}, r"categories\[0\]: object missing required field `id`; give each image and category"),
        ({"categories": "none"}, r"categories: expected `array \| null`, got `str`; give a list of objects with id"),
        ({"categories": [{"id": i} for i in range(20_000)]}, r"20,000 categories; a head of more than 16,384 classes fills the memory"),
    ],
)
def test_a_bad_coco_entry_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"instances_made\.json: {message}"):
        load_labels(coco_file(tmp_path, **change))


def test_coco_entries_without_a_field_are_named(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": [{"id": 1, "height": 3}], "annotations": []}))
    with pytest.raises(ValueError, match=r"images\[0\]: object missing required field `width`; give the image's width"):
        load_labels(file)
    file.write_text(
        json.dumps({"images": [{"id": 1, "width": 3, "height": 3}], "annotations": [{"id": 4, "category_id": 1, "bbox": [1, 1, 1, 1]}]})
    )
    with pytest.raises(ValueError, match=r"annotations\[0\]: object missing required field `image_id`; give the id of one of the images"):
        load_labels(file)


def test_null_categories_are_as_none_and_crowds_may_be_written_in_three_ways(tmp_path: Path) -> None:
    file = coco_file(tmp_path)
    record = json.loads(file.read_text())
    record["categories"] = None
    first, second = record["annotations"][:2]
    record["annotations"] = [
        first | {"iscrowd": None, "segmentation": {"counts": "xyz", "size": [50, 50]}},
        first | {"id": 9},
        second | {"iscrowd": False},
        second | {"iscrowd": True},
        second | {"bbox": [3, 3, 0, 5]},
    ]
    file.write_text("\ufeff" + json.dumps(record))
    pack = load_labels(file)
    assert pack.num_classes == 2
    assert pack.counts.tolist() == [1, 1], "a crowd, a box without area and one that is there twice are left out"
    assert "2 images; 3 annotations left out" in pack.origin


def test_ids_may_be_texts(tmp_path: Path) -> None:
    record = json.loads(coco_file(tmp_path).read_text())
    for image in record["images"]:
        image["id"] = f"img-{image['id']}"
    for annotation in record["annotations"]:
        annotation["image_id"] = f"img-{annotation['image_id']}"
    (tmp_path / "texts.json").write_text(json.dumps(record))
    assert load_labels(tmp_path / "texts.json").counts.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not JSON"),
        (b"[]", r"expected `object`, got `array`"),
        (b"null", r"expected `object`, got `null`"),
        (b'{"images": [],\n"annotations": [}', r"not JSON \(line 2\)"),
        (b'{"x": ' + b"[" * 100_000, r"nested too deeply"),
        (b'{"images": [{"id": 1, "width": 1e400, "height": 1}], "annotations": []}', r"images\[0\]\.width: .*; give the image's width"),
        ('{"images": []}'.encode("utf-16"), r"is UTF-16 text; save it as UTF-8"),
        (b"PK\x03\x04\x00", r"line 1: a zero byte"),
    ],
)
def test_a_file_that_is_no_coco_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"broken\.json.*{message}"):
        load_labels(tmp_path / "broken.json")


def test_coco_files_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"instances_made\.json: it lists no image"):
        load_labels(coco_file(tmp_path, images=[], annotations=[]))


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no labels at .*nowhere; give a COCO-style"):
        open_pack(f"labels:{tmp_path / 'nowhere'}")
    with pytest.raises(FileNotFoundError, match=r"no \*\.txt label file in"):
        load_labels(tmp_path)
    (tmp_path / "labels.csv").write_text("0,1,2")
    with pytest.raises(ValueError, match=r"labels\.csv is no kind of labels that is read; give a COCO-style"):
        load_labels(tmp_path / "labels.csv")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match=r"there is no box in any of its 1 images"):
        load_labels(tmp_path)
