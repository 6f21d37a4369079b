"""Folders of YOLO label files, and datasets of them: which files are labels, and what images they make."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from oracle.cases.workloads.dataset_yaml import Dataset, find_dataset, read_dataset
from oracle.cases.workloads.image_sizes import ENDINGS, Pictures
from oracle.cases.workloads.labelled_images import Image, Pack, pack_of
from oracle.cases.workloads.yolo_file import Format, Line, LineError, read_lines, rows_of

_SQUARE = (640, 640)
# Texts that tools put beside labels. What does look like labels is read under these names too.
_OTHER_TEXTS = re.compile(
    r"(attribution|autosplit|changelog|classes|labels?_?(map|list|names)|licen[cs]e|names|notes|obj|predefined_classes"
    r"|readme|requirements|test|train|trainval|val|valid|validation)([._ -].*|\d*)",
    re.IGNORECASE,
)
_NOT_ENTERED = {"__MACOSX", "runs"}  # what an archive of macOS adds, and what a trainer writes: its predictions are no labels


def yolo_folder(folder: Path) -> Pack:
    """Each ``*.txt`` below the folder, an image each: lines of class, centre x, centre y, width, height, or class and polygon.

    Coordinates are shares of the image's sides. A picture of the same name beside the file, or under ``images`` where the file is under
    ``labels``, tells the image's size; without one the image counts as square. Where there are folders called ``labels``, only their files
    are read. A ``data.yaml`` in the folder or above ``labels`` tells the number of classes, and whether lines hold keypoints.

    Raises:
        FileNotFoundError: there is no such folder, or no label file in it.
        ValueError: something cannot be used; the message names the file, the line and the remedy.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give one that holds label files")
    dataset = find_dataset(folder)
    told = dataset.format if dataset else Format()
    return _pack(folder, label_files(folder), told)


def yolo_dataset(file: Path) -> Pack:
    """The label files of the images that a dataset's ``data.yaml`` lists under ``train``, ``val`` and ``test``.

    Raises:
        FileNotFoundError: there is no label file.
        ValueError: something cannot be used; the message names the file, the field or line, and the remedy.
    """
    dataset: Dataset = read_dataset(file)
    files = [label for folder in dataset.label_folders() for label in label_files(folder)]
    return _pack(file, list(dict.fromkeys([*files, *(label for label in dataset.listed_labels() if label.is_file())])), dataset.format)


def label_files(folder: Path) -> list[Path]:
    """Every ``*.txt`` below the folder, or below its folders called ``labels`` where it has any; links to folders are followed.

    Raises:
        ValueError: a folder cannot be listed, a link leads nowhere, or there are labels beside folders called ``labels``.
    """
    found = _texts(folder)
    within = [file for file in found if "labels" in file.relative_to(folder).parts[:-1]]
    if not within or "labels" in folder.absolute().parts:
        return found
    for file in set(found) - set(within):
        if _looks_like_labels(file):
            raise ValueError(f"{file} is a label file outside of the folders called labels in {folder}; give the folder that is meant")
    return within


def _texts(folder: Path) -> list[Path]:
    found, entered = [], set()
    for path, folders, names in os.walk(folder, onerror=_unlisted, followlinks=True):
        here = Path(path)
        if here.resolve() in entered:
            folders.clear()  # a link to where it lies in
            continue
        entered.add(here.resolve())
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _NOT_ENTERED]
        texts = [here / name for name in names if name.endswith(".txt") and not name.startswith(".")]
        for text in texts:
            if not text.exists():
                raise ValueError(f"{text} is a link that leads nowhere; mend or remove it")
        found += [text for text in texts if text.is_file()]
    return sorted(found)


def _unlisted(error: OSError) -> None:
    raise ValueError(f"{error.filename} cannot be listed ({error.strerror}); see that it is a folder that you may read") from error


def _pack(source: Path, files: Sequence[Path], told: Format) -> Pack:
    images: list[Image] = []
    pictures, long_lines, guesses, twice = Pictures(), _LongLines(told), 0, 0
    for file in files:
        lines = _lines(file, told, pictures)
        if lines is None:
            continue
        long_lines.note(file, lines)
        size = pictures.size(file)
        guesses += size is None
        width, height = size or _SQUARE
        rows = [(label, x * width, y * height, w * width, h * height) for label, x, y, w, h in rows_of(file, lines, told)]
        twice += len(lines) - len(rows)
        images.append(((width, height), rows))
    if not images:
        raise FileNotFoundError(f"no *.txt label file in {source}; give the folder that holds them, its dataset's root or data.yaml")
    long_lines.check(source)
    without = f"; {guesses:,} without a picture, taken as square" if guesses else ""
    repeated = f"; {twice:,} lines left out that stand twice" if twice else ""
    return pack_of(source, f"YOLO labels in {source.name} ({len(images):,} files{without}{repeated})", images, told.num_classes)


def _lines(file: Path, told: Format, pictures: Pictures) -> list[Line] | None:
    """The file's lines; ``None`` of a text that is no label file: a list of pictures, names of classes, a README."""
    try:
        lines = read_lines(file, told)
    except ValueError:
        if pictures.of(file) or not _is_other_text(file):
            raise
        return None
    return lines if lines or pictures.of(file) or not _OTHER_TEXTS.fullmatch(file.stem) else None


def _is_other_text(file: Path) -> bool:
    words = _words(file)
    if words and all(Path(" ".join(line)).suffix.lower() in ENDINGS for line in words):
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
    """Whether lines of more than five values can be anything but polygons: keypoints have as many in every line, and no box beside them."""

    def __init__(self, told: Format) -> None:
        self._told = told.file is not None
        self._counts: set[int] = set()
        self._first: tuple[Path, Line] | None = None

    def note(self, file: Path, lines: Sequence[Line]) -> None:
        """Count the values of a file's lines."""
        for line in lines:
            self._counts.add(len(line.values))
            if line.kind == "polygon" and self._first is None:
                self._first = file, line

    def check(self, source: Path) -> None:
        """Refuse lines that may be polygons or keypoints."""
        if self._told or self._first is None or len(self._counts) > 1:
            return
        file, line = self._first
        raise LineError(
            f"{file}, line {line.number}: every line in {source} has {len(line.values)} values, as polygons may and boxes with keypoints;"
            " put the dataset's data.yaml beside the labels: with kpt_shape they are keypoints, without it polygons"
        )
