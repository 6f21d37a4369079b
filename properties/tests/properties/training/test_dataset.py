"""Data sets that are missing or unusable are refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from properties.training.dataset import DatasetError, copied, open_dataset, read_yaml
from properties.training.synthetic_images import make_images
from properties.training.tasks import TRAINED


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no data set at"),
        ("a: [", "is not YAML"),
        ("- a list", "has no train and no val and no names"),
        ("train: images/train\nval: images/val\n", "has no names"),
        ("train: images/absent\nval: images/val\nnames: [cell]\n", "gives .*absent for train, but there is no such folder"),
        ("train: [images/val, images/gone]\nval: images/val\nnames: [cell]\n", "gives .*gone for train, but there is no such folder"),
        ("train: labels/train\nval: images/val\nnames: [cell]\n", "labels.train for train, which holds no images"),
    ],
)
def test_is_refused(text: str | None, said: str, tmp_path: Path) -> None:
    make_images(tmp_path, train=1, val=1)
    named = tmp_path / "mine.yaml"
    if text is not None:
        named.write_text(text)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(DatasetError, match=said):
        open_dataset(str(named), tmp_path / "scratch")


def test_depends_on_no_folder_and_names_nothing_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images(tmp_path / "set", train=1, val=1)
    described = "path: ../set\ntrain: images/train\nval: images/val\nnames: [cell]\ndownload: https://example.org/set.zip\n"
    (tmp_path / "set" / "data.yaml").write_text(described)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    opened = open_dataset("set", tmp_path / "scratch").yaml.read_text("utf-8")
    assert f"path: {(tmp_path / 'set').resolve()}" in opened
    assert "download" not in opened


NUMBERS = {"detect": 4, "segment": 2 * 16, "oriented": 2 * 4, "pose": 4 + 3 * 5}
"""Numbers after the class in a row of a generated label, by task."""


@pytest.mark.parametrize("task", TRAINED)
def test_without_the_task_s_own_images_are_generated(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("properties.training.dataset.data_folder", lambda: None)
    opened = open_dataset(None, tmp_path, task)
    assert opened.origin == f"generated: synthetic cells, because {TRAINED[task].folder} is absent"
    assert len(list(opened.yaml.parent.glob("images/train/*.png"))) == 200
    rows = [row.split() for path in opened.yaml.parent.glob("labels/val/*.txt") for row in path.read_text().splitlines()]
    assert {len(row) for row in rows} == {1 + NUMBERS[task]}
    assert "kpt_shape" in read_yaml(opened.yaml) or task != "pose"


def test_nothing_is_written_beside_bccd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images(tmp_path / "data" / "bccd", train=1, val=1)
    monkeypatch.setattr("properties.training.dataset.data_folder", lambda: tmp_path / "data")
    (tmp_path / "scratch").mkdir()
    opened = open_dataset(None, tmp_path / "scratch").yaml.read_text("utf-8")
    assert f"path: {tmp_path / 'scratch' / 'bccd'}" in opened


def test_a_few_images_of_each_split_may_be_copied(tmp_path: Path) -> None:
    make_images(tmp_path / "set", train=3, val=3, task="oriented")
    described = read_yaml(copied(tmp_path / "set", tmp_path / "few", {"train": 2, "val": 1}))
    assert described["path"] == str(tmp_path / "few")
    assert [len(list((tmp_path / "few" / "labels" / split).glob("*.txt"))) for split in ("train", "val")] == [2, 1]
