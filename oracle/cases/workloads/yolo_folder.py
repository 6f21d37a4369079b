"""Reads folders of YOLO label files, and datasets of them."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oracle.cases.workloads.dataset_yaml import Dataset, find_dataset, read_dataset
from oracle.cases.workloads.image_sizes import PICTURE_SUFFIXES, Pictures
from oracle.cases.workloads.labelled_images import Image, LabelledImages, images_from_labels
from oracle.cases.workloads.yolo_file import Format, Line, LineError, keypoints_of, read_lines, ring_of, rows_of

Shape = tuple[int, int]
"""K keypoints of a box, and the count of numbers for each."""

_SQUARE = (640, 640)
# Names of texts that tools put beside labels. A file of such a name with lines like labels is read nevertheless.
_OTHER_TEXTS = re.compile(
    r"(attribution|autosplit|changelog|classes|labels?_?(map|list|names)|licen[cs]e|names|notes|obj|predefined_classes"
    r"|readme|requirements|test|train|trainval|val|valid|validation)([._ -].*|\d*)",
    re.IGNORECASE,
)
_NOT_ENTERED = {"__MACOSX", "runs"}  # added by archives of macOS; written by trainers, with predictions


def yolo_folder(folder: Path, keypoints: Shape | None = None, *, posed: bool = False) -> LabelledImages:
    """Reads each ``*.txt`` below the folder as an image: lines of class, centre x, centre y, width, height, or class and polygon.

    After the four numbers of a box a line may have keypoints, if their shape is given or described; ``posed`` asks for them.

    Coordinates are shares of the image's sides. The image's size is that of the picture of the same name beside the file, or under
    ``images`` if the file is under ``labels``; without a picture the image counts as square. If there are folders called ``labels``, only
    their files are read. A ``data.yaml`` in the folder or above ``labels`` gives the number of classes and the shape of keypoints.

    Raises:
        FileNotFoundError: the folder does not exist, or has no label file.
        ValueError: a file is invalid, or the shape of keypoints is wanted and not known; the message names the file, the line and the
            remedy.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give one that holds label files")
    dataset = find_dataset(folder)
    format_ = _told(folder, dataset.format if dataset else Format(), keypoints, posed)
    return _images(folder, label_files(folder), format_)


def yolo_dataset(file: Path, keypoints: Shape | None = None, *, posed: bool = False) -> LabelledImages:
    """Reads the label files of the images that a dataset's ``data.yaml`` lists under ``train``, ``val`` and ``test``.

    The shape of keypoints is that of the file, or the one given; ``posed`` asks for keypoints.

    Raises:
        FileNotFoundError: there is no label file.
        ValueError: a file is invalid; the message names the file, the field or line, and the remedy.
    """
    dataset: Dataset = read_dataset(file)
    files = [label for folder in dataset.label_folders() for label in label_files(folder)]
    format_ = _told(file, dataset.format, keypoints, posed)
    return _images(file, list(dict.fromkeys([*files, *(label for label in dataset.listed_labels() if label.is_file())])), format_)


def _told(source: Path, format_: Format, keypoints: Shape | None, posed: bool) -> Format:
    """Returns the format with what the user says of keypoints.

    Raises:
        ValueError: that is not what the description says, or the shape of keypoints is wanted and not known.
    """
    if keypoints and format_.keypoints and keypoints != format_.keypoints:
        raise ValueError(f"{format_.file} has kpt_shape {list(format_.keypoints)}, and the option {list(keypoints)}; correct one of them")
    shape = keypoints or format_.keypoints
    if posed and shape is None:
        raise ValueError(
            f"{source}: nothing says what keypoints its lines have; put the dataset's data.yaml, with kpt_shape, beside the labels, or "
            "give --kpt-shape K,2 or K,3"
        )
    return dataclasses.replace(format_, keypoints=shape, posed=posed)


def label_files(folder: Path) -> list[Path]:
    """Returns every ``*.txt`` below the folder or, if it has folders called ``labels``, below these; follows links to folders.

    Raises:
        ValueError: a folder cannot be listed, a link is broken, or there are labels beside folders called ``labels``.
    """
    found = _texts(folder)
    within = [file for file in found if "labels" in file.relative_to(folder).parts[:-1]]
    if not within or "labels" in folder.absolute().parts:
        return found
    for file in set(found) - set(within):
        if _looks_like_labels(file):
            raise ValueError(f"{file} is a label file outside of the folders called labels in {folder}; give the folder of the labels")
    return within


def _texts(folder: Path) -> list[Path]:
    found, entered = [], set()
    for path, folders, names in os.walk(folder, onerror=_unlisted, followlinks=True):
        here = Path(path)
        if here.resolve() in entered:
            folders.clear()  # a link to a folder above it
            continue
        entered.add(here.resolve())
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _NOT_ENTERED]
        texts = [here / name for name in names if name.endswith(".txt") and not name.startswith(".")]
        for text in texts:
            if not text.exists():
                raise ValueError(f"{text} is a broken link; repair or remove it")
        found += [text for text in texts if text.is_file()]
    return sorted(found)


def _unlisted(error: OSError) -> None:
    raise ValueError(f"{error.filename} cannot be listed ({error.strerror}); make the folder readable") from error


def _images(source: Path, files: Sequence[Path], format_: Format) -> LabelledImages:
    images: list[Image] = []
    column: list[tuple[Any, ...]] = []
    pictures, long_lines, guesses, twice = Pictures(), _LongLines(format_), 0, 0
    for file in files:
        lines = _lines(file, format_, pictures)
        if lines is None:
            continue
        long_lines.note(file, lines)
        size = pictures.size(file)
        guesses += size is None
        width, height = size or _SQUARE
        kept = rows_of(file, lines, format_)
        rows = [(label, x * width, y * height, w * width, h * height) for (label, x, y, w, h), _ in kept]
        column += [_entry(line, (width, height), format_) for _, line in kept]
        twice += len(lines) - len(rows)
        images.append(((width, height), rows))
    if not images:
        raise FileNotFoundError(f"no *.txt label file in {source}; give the folder that holds them, its dataset's root or data.yaml")
    long_lines.check(source)
    without = f"; {guesses:,} without a picture, taken as square" if guesses else ""
    repeated = f"; {twice:,} repeated lines left out" if twice else ""
    found = images_from_labels(
        source, f"YOLO labels in {source.name} ({len(images):,} files{without}{repeated})", images, format_.num_classes
    )
    if not format_.posed:
        return dataclasses.replace(found, extras={"polygons": tuple(column)})
    return dataclasses.replace(found, extras={"keypoints": tuple(column)}, keypoint_shape=format_.keypoints)


def _entry(line: Line, size: tuple[int, int], format_: Format) -> tuple[Any, ...]:
    """Returns a line's keypoints, or the rings of its polygon, in pixels, as :attr:`LabelledImages.extras` holds them."""
    width, height = size
    if format_.posed and format_.keypoints:
        return tuple(number for x, y, visibility in keypoints_of(line, format_.keypoints) for number in (x * width, y * height, visibility))
    return (tuple(share * size[place % 2] for place, share in enumerate(ring_of(line))),)


def _lines(file: Path, format_: Format, pictures: Pictures) -> list[Line] | None:
    """Reads the lines of a file; returns ``None`` for another text, such as a list of pictures, names of classes or a README."""
    try:
        lines = read_lines(file, format_)
    except ValueError:
        if pictures.of(file) or not _is_other_text(file):
            raise
        return None
    return lines if lines or pictures.of(file) or not _OTHER_TEXTS.fullmatch(file.stem) else None


def _is_other_text(file: Path) -> bool:
    words = _words(file)
    if words and all(Path(" ".join(line)).suffix.lower() in PICTURE_SUFFIXES for line in words):
        return True
    return bool(_OTHER_TEXTS.fullmatch(file.stem)) and not any(len(line) > 3 and all(map(_is_number, line)) for line in words)


def _looks_like_labels(file: Path) -> bool:
    words = _words(file)
    return bool(words) and all(len(line) >= 5 and all(map(_is_number, line)) for line in words)


def _words(file: Path) -> list[list[str]]:
    text = file.read_bytes().decode("utf-8-sig", "replace")
    return [words for line in text.splitlines() if (words := line.split())]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


class _LongLines:
    """Checks whether lines of more than five values can only be polygons; keypoints have the same number of values in every line."""

    def __init__(self, format_: Format) -> None:
        self._told = format_.file is not None or format_.keypoints is not None
        self._counts: set[int] = set()
        self._first: tuple[Path, Line] | None = None

    def note(self, file: Path, lines: Sequence[Line]) -> None:
        """Counts the values of a file's lines."""
        for line in lines:
            self._counts.add(len(line.values))
            if line.kind == "polygon" and self._first is None:
                self._first = file, line

    def check(self, source: Path) -> None:
        """Raises a LineError if the lines may be polygons or keypoints."""
        if self._told or self._first is None or len(self._counts) > 1:
            return
        file, line = self._first
        raise LineError(
            f"{file}, line {line.number}: every line in {source} has {len(line.values)} values: polygons, or boxes with keypoints;"
            " put the dataset's data.yaml beside the labels: with kpt_shape they are keypoints, without it polygons; or give --kpt-shape"
        )
