"""Paths that hold no labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from oracle.cases.workloads import load_labels, open_images


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no labels at .*nowhere; give a COCO-style"):
        open_images(f"labels:{tmp_path / 'nowhere'}")
    with pytest.raises(FileNotFoundError, match=r"no \*\.txt label file in"):
        load_labels(tmp_path)
    (tmp_path / "labels.csv").write_text("0,1,2")
    with pytest.raises(ValueError, match=r"labels\.csv is no label file of a known kind; give a COCO-style"):
        load_labels(tmp_path / "labels.csv")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match=r"there is no box in any of its 1 images"):
        load_labels(tmp_path)
