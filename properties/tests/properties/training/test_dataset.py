"""Data sets that are missing or unusable are refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from properties.training.dataset import DatasetError, open_dataset
from properties.training.synthetic_images import make_images


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


def test_without_bccd_images_are_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("properties.training.dataset.data_folder", lambda: None)
    opened = open_dataset(None, tmp_path)
    assert opened.origin.startswith("generated")
    assert len(list(opened.yaml.parent.glob("images/train/*.png"))) == 200


def test_nothing_is_written_beside_bccd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images(tmp_path / "data" / "bccd", train=1, val=1)
    monkeypatch.setattr("properties.training.dataset.data_folder", lambda: tmp_path / "data")
    (tmp_path / "scratch").mkdir()
    opened = open_dataset(None, tmp_path / "scratch").yaml.read_text("utf-8")
    assert f"path: {tmp_path / 'scratch' / 'bccd'}" in opened
