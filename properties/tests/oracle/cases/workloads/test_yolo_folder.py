"""Which files of a folder are labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from oracle.cases.workloads import load_labels
from properties.tests.oracle.cases.workloads.label_files import BOX


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
    with pytest.raises(ValueError, match=r"b\.txt is a broken link; repair or remove it"):
        load_labels(folder)


def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by the system, as tests may run as a user who may read everything."""
    (tmp_path / "a.txt").write_bytes(BOX)

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    for method in ("read_bytes", "iterdir"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, denied)
            with pytest.raises(ValueError, match=r" cannot be read \(Permission denied\); (make it|give a file)"):
                load_labels(tmp_path)


# Pictures beside label files.
