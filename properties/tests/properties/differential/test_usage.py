"""Files that a differential run is given and that cannot be read: one usage error, before any worker starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from oracle.cases.case import Setting
from oracle.cases.workloads.small_dense import small_dense
from properties.differential.plan import real
from properties.differential.plugin import check_files, pytest_addoption
from properties.differential.saved_cases import SavedCase

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


GIVEN = (
    (["--labels", "{folder}/bad"], "line 1, '0 0.5': 2 values; expected class"),
    (["--replay", "../broken.json"], "'../broken.json' names no file in {folder}/cases; give a digest"),
    (["--labels", "{folder}/good", "--labels", "{folder}/broken.json"], "broken.json: not JSON"),
    (["--labels", "{folder}/nowhere"], "no labels at {folder}/nowhere; give a COCO-style instances_*.json, a folder"),
    (["--labels", ""], "workload 'labels:' is unknown"),
    (["--replay", "ffff"], "there is no saved case 'ffff' in {folder}/cases; saved are: 0123"),
    (["--replay", "0123"], "0123.json is not a saved case of this version of the suite: "),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("bad/a.txt", "0 0.5"), ("good/a.txt", "0 0.5 0.5 0.1 0.1"), ("broken.json", "{"), ("cases/0123.json", "{}")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(("arguments", "message"), GIVEN)
def test_a_file_that_cannot_be_read_is_named(arguments: list[str], message: str, folder: Path) -> None:
    parser = pytest.Parser(_ispytest=True)
    pytest_addoption(parser)
    given = [argument.format(folder=folder) for argument in arguments]
    option = parser.parse(["--cases", str(folder / "cases"), *given])
    with pytest.raises(ValueError, match=re.escape(message.format(folder=folder))):
        check_files(option)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_case_of_a_device_that_is_not_here_is_named(folder: Path) -> None:
    path = SavedCase(small_dense(2), Setting("float32", device="cuda:0"), "twin", "", {}).write(folder / "cases")
    parser = pytest.Parser(_ispytest=True)
    pytest_addoption(parser)
    with pytest.raises(ValueError, match=rf"case {path.stem} was found on cuda:0, and there is no CUDA device here"):
        check_files(parser.parse(["--cases", str(folder / "cases"), "--replay", path.stem]))


@pytest.mark.parametrize(("arguments", "message"), GIVEN[:2])
def test_a_file_that_cannot_be_read_is_one_usage_error(arguments: list[str], message: str, folder: Path) -> None:
    ended = run(folder, *(argument.format(folder=folder) for argument in arguments))
    said = ended.stdout + ended.stderr
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR, said
    assert message.format(folder=folder) in said
    assert said.count("ERROR") == 1
    assert "Traceback" not in said
    assert "workers" not in said.replace(str(folder), ""), "no worker has started"


def test_folders_of_labels_may_have_the_same_name() -> None:
    names = [share.name for share in real(1.0, [], ["one/labels", "two/labels"])]
    assert len(set(names)) == len(names)
