"""A dataset's description, ``data.yaml``: the folders of its images, the number of classes, and the shape of its keypoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from oracle.cases.workloads.image_sizes import with_last_part
from oracle.cases.workloads.labelled_images import MOST_CLASSES
from oracle.cases.workloads.yolo_file import Format
from oracle.tools.parsing import parse_yaml, read_text

_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_REMEDIES = {
    "kpt_shape": "write [K, 2] or [K, 3]: how many keypoints, and numbers for each",
    "nc": f"write the number of classes, at most {MOST_CLASSES:,}",
    "names": "write a list of names, or names by number from 0",
} | dict.fromkeys(("path", "train", "val", "validation", "test"), "write a folder of images, or a list of folders")

Places = str | list[str] | None


class _Fields(msgspec.Struct):
    path: str | None = None
    train: Places = None
    val: Places = None
    validation: Places = None
    test: Places = None
    nc: Annotated[int, msgspec.Meta(ge=1, le=MOST_CLASSES)] | None = None
    names: Annotated[list[Any], msgspec.Meta(min_length=1, max_length=MOST_CLASSES)] | dict[Any, Any] | None = None
    kpt_shape: tuple[Annotated[int, msgspec.Meta(ge=1, le=10_000)], Annotated[int, msgspec.Meta(ge=2, le=3)]] | None = None


@dataclass(frozen=True)
class Dataset:
    """The contents of a description.

    Attributes:
        file: path of the description.
        format: format of the label files.
        places: folders of images, or files that list images, as the description writes them.
        root: folder that the places are relative to.
    """

    file: Path
    format: Format
    places: tuple[str, ...]
    root: Path

    @property
    def describes(self) -> bool:
        """Whether the file describes a dataset; other programs use files of these names too."""
        return bool(self.places or self.format.num_classes or self.format.keypoints)

    def label_folders(self) -> Iterator[Path]:
        """Yields the folders of label files: the folder of images with its last ``images`` replaced by ``labels``, or that folder itself.

        Raises:
            ValueError: a folder of images or of labels does not exist.
        """
        for place in map(self._found, self.places):
            if place.is_dir():
                labels = with_last_part(place.absolute(), "images", "labels") or place
                if not labels.is_dir():
                    raise ValueError(f"{self.file} has images in {place}; create {labels} with their labels, or leave the line out")
                yield labels

    def listed_labels(self) -> Iterator[Path]:
        """Yields the label files of the pictures in lists."""
        for place in map(self._found, self.places):
            if place.is_file():
                for line in read_text(place).splitlines():
                    if line.strip():
                        picture = (place.parent / line.strip()).absolute()
                        folder = with_last_part(picture.parent, "images", "labels") or picture.parent
                        yield folder / f"{picture.stem}.txt"

    def _found(self, place: str) -> Path:
        tried = [self.root / place]
        if place.startswith("../"):
            tried.append(self.root / place.removeprefix("../"))  # as exports write it, and the reference reads it
        for path in tried:
            if path.exists():
                return path
        raise ValueError(f"{self.file} names images in {place}, but there is no {tried[0]}; correct the path, or leave the line out")


def find_dataset(folder: Path) -> Dataset | None:
    """Returns the description in a folder or, if the folder is within ``labels``, in one of the two above it; ``None`` if there is none.

    Raises:
        ValueError: the description is invalid.
    """
    folder = folder.absolute()
    above = [folder.parent, folder.parent.parent] if "labels" in (folder.name, folder.parent.name) else []
    for place in (folder, *above):
        for name in _NAMES:
            if (place / name).is_file():
                dataset = read_dataset(place / name)
                if dataset.describes:
                    return dataset
    return None


def read_dataset(file: Path) -> Dataset:
    """Reads a description.

    Raises:
        ValueError: the file cannot be read, or a field is invalid; the message names both.
    """
    fields = parse_yaml(read_text(file), _Fields, file, _REMEDIES)
    names = fields.names if isinstance(fields.names, list) else list((fields.names or {}).values())
    if isinstance(fields.names, dict) and set(fields.names) != set(range(len(names))):
        raise ValueError(f"{file}: names has the numbers {list(fields.names)[:20]}; number the classes from 0 without a gap")
    if len(names) > MOST_CLASSES or (fields.nc and names and fields.nc != len(names)):
        raise ValueError(f"{file}: nc is {fields.nc} and names has {len(names)}; they must be as many, and at most {MOST_CLASSES:,}")
    written = (fields.train, fields.val if fields.val is not None else fields.validation, fields.test)
    places = [place for part in written for place in ([part] if isinstance(part, str) else part or ())]
    root = file.parent / fields.path if fields.path and (file.parent / fields.path).is_dir() else file.parent
    label_format = Format(file, fields.nc or len(names) or None, fields.kpt_shape)
    return Dataset(file, label_format, tuple(dict.fromkeys(places)), root)
