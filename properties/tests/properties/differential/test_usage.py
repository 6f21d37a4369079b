"""Files that a differential run is given and that cannot be read: one usage error, before any worker starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The differential run with two workers, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    paths = [str(ROOT / "impl"), str(ROOT), environment.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    fixed = ["-p", "properties.differential.plugin", "properties/differential", "-p", "no:cacheprovider", "-n", "2"]
    written = ["--rows", str(folder / "rows.parquet"), "--cases", str(folder / "cases")]
    command = [sys.executable, "-m", "pytest", *fixed, *written, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "{folder}/bad"], "line 1, '0 0.5': 2 values; expected class"),
        (["--labels", "{folder}/good", "--labels", "{folder}/broken.json"], "broken.json: not JSON"),
        (["--labels", "{folder}/nowhere"], "no labels at {folder}/nowhere; give a COCO-style instances_*.json, a folder"),
        (["--labels", ""], "workload 'labels:' is unknown"),
        (["--replay", "ffff"], "there is no saved case 'ffff' in {folder}/cases; saved are: 0123"),
        (["--replay", "0123"], "0123.json is not a saved case of this version of the suite: "),
        (["--replay", "../broken.json"], "'../broken.json' names no file in {folder}/cases; give a digest"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_usage_error(arguments: list[str], message: str, tmp_path: Path) -> None:
    for name, text in (("bad/a.txt", "0 0.5"), ("good/a.txt", "0 0.5 0.5 0.1 0.1"), ("broken.json", "{"), ("cases/0123.json", "{}")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    ended = run(tmp_path, *(argument.format(folder=tmp_path) for argument in arguments))
    said = ended.stdout + ended.stderr
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR, said
    assert message.format(folder=tmp_path) in said
    assert said.count("ERROR") == 1
    assert "Traceback" not in said
    assert "gw0" not in said, "no worker has started"


def test_folders_of_labels_may_have_the_same_name(tmp_path: Path) -> None:
    folders = [tmp_path / part / "labels" for part in ("one", "two")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    options = [option for folder in [*folders, folders[0]] for option in ("--labels", str(folder))]
    ended = run(tmp_path, *options, "--scale", "0.02", "-n", "0")
    assert ended.returncode == 0, ended.stdout
    assert "2 passed" in ended.stdout
