"""Sizes of the pictures of label files as a trainer loads them: rotated by their EXIF orientation."""

from __future__ import annotations

import warnings
from pathlib import Path

PICTURE_SUFFIXES = frozenset((".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"))
"""Suffixes of the files that the reference reads as pictures, in lower case; it accepts capitals too."""

_ORIENTATION = 0x0112  # EXIF's tag
_SIDEWAYS = frozenset((5, 6, 7, 8))  # its values that swap width and height
_SMALLEST = 10  # pixels a side; the reference leaves out smaller pictures

Size = tuple[int, int]


class Pictures:
    """Finds the pictures of label files; each folder is listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def of(self, label: Path) -> list[Path]:
        """Returns the pictures with the label file's name: under ``images`` if the file is under ``labels``, else beside it."""
        label = label.absolute()
        for folder in (with_last_part(label.parent, "labels", "images"), label.parent):
            if folder and (found := self._in(folder).get(label.stem)):
                return found
        return []

    def size(self, label: Path) -> Size | None:
        """Returns width and height of the label file's picture; ``None`` if there is none.

        Raises:
            ValueError: the picture cannot be read, is too small or too large, or there are several of different sizes.
        """
        sizes = {picture: size_of(picture) for picture in self.of(label)}
        if len(set(sizes.values())) > 1:
            shown = ", ".join(f"{picture} of {width} × {height}" for picture, (width, height) in sizes.items())
            raise ValueError(f"{label} has pictures of different sizes: {shown}; keep the one that was annotated")
        return next(iter(sizes.values()), None)

    def _in(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._listed:
            pictures: dict[str, list[Path]] = {}
            if folder.is_dir():
                for path in sorted(folder.iterdir()):
                    if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
                        pictures.setdefault(path.stem, []).append(path)
            self._listed[folder] = pictures
        return self._listed[folder]


def with_last_part(folder: Path, name: str, other: str) -> Path | None:
    """Returns the folder with the last part of this name replaced by the other; ``None`` if no part has the name."""
    parts = list(folder.parts)
    if name not in parts:
        return None
    parts[len(parts) - 1 - parts[::-1].index(name)] = other
    return Path(*parts)


def size_of(picture: Path) -> Size:
    """Reads width and height in pixels from a picture's header.

    Raises:
        ValueError: the picture cannot be read, or the reference leaves it out because of its size.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about large pictures and invalid metadata
        try:
            with Image.open(picture) as opened:
                width, height = opened.size
                turned = _orientation(opened) in _SIDEWAYS
        except Image.DecompressionBombError as error:
            raise ValueError(f"{picture} is too large to be read, by the reference too ({error}); scale it down") from error
        except Exception as error:  # readers raise many types on broken files
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{picture} cannot be read as a picture ({reason}); repair, convert or remove it") from error
    if min(width, height) < _SMALLEST:
        raise ValueError(
            f"{picture} has {width} × {height} pixels; the reference leaves out pictures below {_SMALLEST} pixels a side: remove it"
        )
    return (height, width) if turned else (width, height)


def _orientation(opened: object) -> int | None:
    """Returns the EXIF orientation, or ``None``; a PNG with EXIF after its pixels is not decoded to find it."""
    from PIL import Image

    assert isinstance(opened, Image.Image)
    if opened.format == "PNG" and "exif" not in opened.info:
        return None
    try:
        return opened.getexif().get(_ORIENTATION)
    except Exception:  # like the reference, which ignores invalid metadata
        return None
