"""A dataset's description: classes, keypoints and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oracle.cases.workloads import load_labels
from properties.tests.oracle.cases.workloads.label_files import POSE, described, yolo


def test_keypoints_are_no_polygon(tmp_path: Path) -> None:
    """A line of three keypoints has as many numbers as a polygon of five points: only the dataset's description tells."""
    with pytest.raises(ValueError, match=r"a\.txt, line 1: every line in .* has 11 values: polygons, or boxes with keypoints; put"):
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
    with pytest.raises(ValueError, match=r"every line in .* has 9 values: polygons, or boxes with keypoints"):
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
    with pytest.raises(ValueError, match=r"create .*nowhere/labels with their labels, or leave the line out"):
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
