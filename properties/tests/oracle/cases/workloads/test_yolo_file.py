"""YOLO label files are read as the reference reads them, and a bad line is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oracle.cases.workloads import load_labels, real_batches
from oracle.cases.workloads.image_sizes import Pictures
from oracle.cases.workloads.yolo_file import Format, read_lines, rows_of
from properties.tests.oracle.cases.workloads.label_files import BOX, pictured, yolo


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
        ("0 0.5 0.5 0.1 0.1 0.1", r"6 values; expected .*remove the sixth value, the confidence"),
        ("0 0.5 0.5 0.1 0.1 0.1 0.2 0.3", r"8 values; expected .*If it has keypoints, put the dataset's data\.yaml"),
        ("0 0.5 x 0.1 0.1", r"'x'"),
        ("cat 0.5 0.5 0.1 0.1", r"'cat'"),
        ("0,0.5,0.5,0.1,0.1", r"could not convert string to float: '0,0"),
        ("0.5 0.5 0.5 0.1 0.1", r"class 0.5 is not a whole number"),
        ("-1 0.5 0.5 0.1 0.1", r"class -1 is not"),
        ("nan 0.5 0.5 0.1 0.1", r"class nan is not"),
        ("inf 0.5 0.5 0.1 0.1", r"class inf is not"),
        ("1" * 400 + " 0.5 0.5 0.1 0.1", r"class inf is not"),
        ("1e9 0.5 0.5 0.1 0.1", r"class 1000000000: at most 16,384 classes .*number the classes from 0"),
        ("16384 0.5 0.5 0.1 0.1", r"class 16384: at most"),
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
        ("0 nan 0.1 0.2 0.2 0.3 0.3", r"a polygon's coordinate is not a finite number"),
        ("0 0.1 0.1 0.2 0.2 1.3 0.3", r"coordinate 1.2 is not between"),
        ("3.5 0.1 0.1 0.2 0.2 0.3 0.3", r"class 3.5 is not"),
        ("0 0.5 0.5 0.1 0.1", r"a box in a file that begins with polygons"),
    ],
)
def test_a_bad_polygon_is_named(line: str, message: str, tmp_path: Path) -> None:
    folder = yolo(tmp_path, fine="0 0.5 0.5 0.1 0.1", worse=f"0 0.1 0.1 0.2 0.2 0.3 0.3\n{line}")
    with pytest.raises(ValueError, match=rf"worse\.txt, line 2, .*: {message}"):
        load_labels(folder)


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
        (b"\n" + BOX.decode().encode("utf-16-le"), r"a\.txt, line 2: a zero byte: .*save it as UTF-8"),
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
    assert "4 files; 4 without a picture, taken as square; 2 repeated lines left out" in pack.origin


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
            rows = [row for row, _ in rows_of(file, read_lines(file, told), told)]
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
    np.testing.assert_allclose([row for row, _ in rows_of(file, read_lines(file, told), told)], kept.rows, rtol=0, atol=1e-7)
    assert len(kept.rows) == 2


# COCO-style files.
