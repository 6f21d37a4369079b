"""What is trained on: the blood cells of BCCD where they are, a data set that the user names, or made-up pictures."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs would be one more dependency

from oracle.cases.workloads.labelled_images import data_folder
from properties.training.synthetic_images import make_pictures, write_yaml

BCCD_NAMES = ("RBC", "WBC", "Platelets")
SPLITS = ("train", "val")
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class DatasetError(ValueError):
    """There is no usable data set at a path; the message says what is missing there, and what to do."""


@dataclass(frozen=True)
class Dataset:
    """A data set in the layout that trainers read.

    Attributes:
        yaml: its description.
        origin: what it is, for the report.
    """

    yaml: Path
    origin: str


def open_dataset(named: str | None, scratch: Path) -> Dataset:
    """The data set to train on.

    Args:
        named: the YAML that the user gave, or its folder; ``None`` for BCCD, or made-up pictures where that is absent.
        scratch: a folder to write into; beside pictures that ``named`` leads to, a trainer keeps its own cache of their labels.

    Raises:
        DatasetError: ``named`` leads nowhere, or to something that cannot be trained on.
    """
    if named is not None:
        return Dataset(_rewritten(Path(named), scratch), f"the data set {Path(named).name} given with --data")
    folder = data_folder()
    if folder is None or not (folder / "bccd" / "images").is_dir():
        return Dataset(
            make_pictures(scratch / "pictures", train=200, val=80, side=160, cells=8), "generated: made-up cells, as BCCD is absent"
        )
    for part in (f"{kind}/{split}" for kind in ("images", "labels") for split in SPLITS):
        # Copies of single files, since a trainer writes its label cache beside where the files really are.
        shutil.copytree(folder / "bccd" / part, scratch / "bccd" / part)
    return Dataset(write_yaml(scratch / "bccd", BCCD_NAMES), "BCCD: pictures of blood cells, boxes drawn by people")


def read_yaml(path: Path) -> dict[str, Any]:
    """The description of the data set at a path, with its root made absolute, if a trainer can use it.

    Raises:
        DatasetError: it cannot.
    """
    path = path / "data.yaml" if path.is_dir() else path
    if not path.is_file():
        raise DatasetError(f"there is no data set at {path}: give --data the YAML of one, with the keys path, train, val and names")
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not YAML: {error}") from error
    missing = [key for key in (*SPLITS, "names") if not isinstance(described, dict) or not described.get(key)]
    if missing:
        raise DatasetError(f"{path} has no {' and no '.join(missing)}; a data set's YAML has path, train, val and names")
    root = (path.parent / (described.get("path") or ".")).resolve()
    for split in SPLITS:
        for named in described[split] if isinstance(described[split], list) else [described[split]]:
            _check_split(path, split, root / str(named))
    return {**described, "path": str(root)}


def _rewritten(path: Path, scratch: Path) -> Path:
    """The same description elsewhere, in which nothing depends on where it lies, and nothing is named to be downloaded."""
    described = read_yaml(path)
    described.pop("download", None)
    (scratch / "data.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
    return scratch / "data.yaml"


def _check_split(path: Path, split: str, folder: Path) -> None:
    if folder.is_file():
        return  # A list of files: the trainer reads it itself.
    if not folder.is_dir():
        raise DatasetError(f"{path} says that {split} is at {folder}, but there is no such folder; mend path or {split} in it")
    if not any(file.suffix.lower() in SUFFIXES for file in folder.rglob("*")):
        raise DatasetError(f"{path} says that {split} is at {folder}, which holds no pictures ({', '.join(sorted(SUFFIXES))})")
