"""The data set of a training: one that the user names, or the task's own, such as BCCD, or synthetic images when that is absent."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs would be one more dependency

from oracle.cases.workloads.labelled_images import data_folder
from properties.training.synthetic_images import make_images
from properties.training.tasks import TRAINED

SPLITS = ("train", "val")
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class DatasetError(ValueError):
    """There is no usable data set at a path; the message names what is missing, and the remedy."""


@dataclass(frozen=True)
class Dataset:
    """A data set in the layout that trainers read.

    Attributes:
        yaml: path of its description.
        origin: its name in the report.
    """

    yaml: Path
    origin: str


def open_dataset(named: str | None, scratch: Path, task: str = "detect") -> Dataset:
    """Returns the data set to train on.

    Args:
        named: path of the user's YAML, or of its folder; ``None`` for the task's own, or synthetic images when that is absent.
        scratch: a folder to write into. A trainer writes its cache of labels beside the images, also beside those of ``named``.
        task: the task.

    Raises:
        DatasetError: there is nothing at ``named``, or nothing to train on.
    """
    if named is not None:
        return Dataset(_rewritten(Path(named), scratch), f"the data set {Path(named).name} given with --data")
    own, source = TRAINED[task], own_data(task)
    if source is None:
        made = make_images(scratch / "images", train=200, val=80, side=160, cells=8, task=task)
        return Dataset(made, f"generated: synthetic cells, because {own.folder} is absent")
    return Dataset(copied(source, scratch / own.folder), own.origin)


def own_data(task: str) -> Path | None:
    """Returns the folder of a task's own data set, or ``None`` where it is absent."""
    folder = data_folder()
    return folder / TRAINED[task].folder if folder is not None and (folder / TRAINED[task].folder / "images").is_dir() else None


def copied(source: Path, target: Path, counts: Mapping[str, int] | None = None) -> Path:
    """Copies a data set, of each split so many images, and returns the path of its YAML.

    Copies, not links: a trainer resolves links and writes its cache of labels beside the real files.
    """
    for split in SPLITS:
        for kind in ("images", "labels"):
            (target / kind / split).mkdir(parents=True)
        for image in sorted((source / "images" / split).iterdir())[: counts[split] if counts else None]:
            shutil.copy(image, target / "images" / split)
            shutil.copy(source / "labels" / split / f"{image.stem}.txt", target / "labels" / split)
    described = {name: value for name, value in read_yaml(source).items() if name != "test"} | {"path": str(target.resolve())}
    (target / "data.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
    return target / "data.yaml"


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the description of the data set at a path, with an absolute root.

    Raises:
        DatasetError: a trainer cannot use it.
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
    """Writes the description to ``scratch`` with an absolute root and without a download address; returns its path."""
    described = read_yaml(path)
    described.pop("download", None)
    (scratch / "data.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
    return scratch / "data.yaml"


def _check_split(path: Path, split: str, folder: Path) -> None:
    if folder.is_file():
        return  # The trainer reads a list of files itself.
    if not folder.is_dir():
        raise DatasetError(f"{path} gives {folder} for {split}, but there is no such folder; correct path or {split} in it")
    if not any(file.suffix.lower() in SUFFIXES for file in folder.rglob("*")):
        raise DatasetError(f"{path} gives {folder} for {split}, which holds no images ({', '.join(sorted(SUFFIXES))})")
