"""Sizes of pictures beside label files."""

from __future__ import annotations

from pathlib import Path

import pytest

from oracle.cases.workloads import load_labels
from properties.tests.oracle.cases.workloads.label_files import BOX, pictured, yolo


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
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a picture \(.*\); repair, convert or remove it"):
        load_labels(yolo(tmp_path, a=BOX.decode()))


def test_a_large_picture_is_read_where_the_reference_reads_it(tmp_path: Path) -> None:
    pictured(tmp_path, "a.png", mode="1", size=(10_000, 10_000))
    folder = yolo(tmp_path, a=BOX.decode())
    assert load_labels(folder).sizes.tolist() == [[10_000, 10_000]]
    pictured(tmp_path, "a.png", mode="1", size=(20_000, 20_000))
    with pytest.raises(ValueError, match=r"a\.png is too large to be read, by the reference too .*; scale it down"):
        load_labels(folder)
    pictured(tmp_path, "a.png", size=(200, 9))
    with pytest.raises(ValueError, match=r"a\.png has 200 × 9 pixels; the reference leaves out pictures below 10"):
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
