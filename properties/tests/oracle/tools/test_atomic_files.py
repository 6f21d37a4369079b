"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from oracle.tools.atomic_files import atomic_file, write_frame, write_text


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.parquet"
    write_frame(pd.DataFrame({"a": [1]}), file)

    def fail() -> None:
        with atomic_file(file) as unfinished:
            unfinished.write_bytes(b"PAR1 half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert pd.read_parquet(file)["a"].tolist() == [1]
    assert list(file.parent.iterdir()) == [file]


def test_what_is_written_may_be_read_by_whom_the_mask_allows(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_text("é", tmp_path / "text")
    finally:
        os.umask(before)
    assert (tmp_path / "text").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "text").read_text("utf-8") == "é"


def test_every_file_of_rows_is_written_so() -> None:
    root = Path(__file__).parents[4]
    rooms = ("oracle", "properties", "benches")
    writers = [path for room in rooms for path in (root / room).rglob("*.py") if ".to_parquet(" in path.read_text("utf-8")]
    own = [path.relative_to(root).as_posix() for path in writers if not path.name.startswith("test_")]
    assert own == ["oracle/tools/atomic_files.py"]
