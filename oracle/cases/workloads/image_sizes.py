"""Sizes of the pictures that lie beside label files, as a trainer would load them: turned as their EXIF says."""

from __future__ import annotations

import warnings
from pathlib import Path

ENDINGS = frozenset((".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"))
"""Of the files that the reference takes for pictures, in lower case; it takes capitals too."""

_ORIENTATION = 0x0112  # EXIF's tag
_SIDEWAYS = frozenset((5, 6, 7, 8))  # its values that swap width and height
_SMALLEST = 10  # sides in pixels: the reference leaves smaller pictures out

Size = tuple[int, int]


class Pictures:
    """The pictures beside label files; each folder is listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def of(self, label: Path) -> list[Path]:
        """Pictures of the label file's name: under ``images`` where the file is under ``labels``, or else beside it."""
        label = label.absolute()
        for folder in (swapped(label.parent, "labels", "images"), label.parent):
            if folder and (found := self._in(folder).get(label.stem)):
                return found
        return []

    def size(self, label: Path) -> Size | None:
        """Width and height of the label file's picture; ``None`` where there is none.

        Raises:
            ValueError: the picture cannot be read, or is too small or too large, or there are two of different sizes.
        """
        sizes = {picture: size_of(picture) for picture in self.of(label)}
        if len(set(sizes.values())) > 1:
            shown = ", ".join(f"{picture} of {width} × {height}" for picture, (width, height) in sizes.items())
            raise ValueError(f"{label} has pictures of different sizes: {shown}; keep the one that its boxes were drawn on")
        return next(iter(sizes.values()), None)

    def _in(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._listed:
            pictures: dict[str, list[Path]] = {}
            if folder.is_dir():
                for path in sorted(folder.iterdir()):
                    if path.suffix.lower() in ENDINGS and path.is_file():
                        pictures.setdefault(path.stem, []).append(path)
            self._listed[folder] = pictures
        return self._listed[folder]


def swapped(folder: Path, name: str, other: str) -> Path | None:
    """The folder with the last of its parts that has this name replaced by the other; ``None`` where there is none."""
    parts = list(folder.parts)
    if name not in parts:
        return None
    parts[len(parts) - 1 - parts[::-1].index(name)] = other
    return Path(*parts)


def size_of(picture: Path) -> Size:
    """Width and height in pixels, from the picture's header.

    Raises:
        ValueError: the file is no picture that can be read, or one that the reference leaves out for its size.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures, and of odd metadata
        try:
            with Image.open(picture) as opened:
                width, height = opened.size
                turned = _orientation(opened) in _SIDEWAYS
        except Image.DecompressionBombError as error:
            raise ValueError(f"{picture} is larger than can be read, for the reference too ({error}); scale it down") from error
        except Exception as error:  # broken files make its readers raise all kinds
            said = f"{type(error).__name__}: {error}"
            raise ValueError(f"{picture} is not a picture that can be read ({said}); mend, convert or remove it") from error
    if min(width, height) < _SMALLEST:
        raise ValueError(
            f"{picture} has {width} × {height} pixels; the reference leaves out what is smaller than {_SMALLEST} a side: remove it"
        )
    return (height, width) if turned else (width, height)


def _orientation(opened: object) -> int | None:
    """EXIF's word on how the picture is turned; a PNG that has it behind its pixels is not decoded for it."""
    from PIL import Image

    assert isinstance(opened, Image.Image)
    if opened.format == "PNG" and "exif" not in opened.info:
        return None
    try:
        return opened.getexif().get(_ORIENTATION)
    except Exception:  # as the reference: metadata that cannot be read says nothing
        return None
