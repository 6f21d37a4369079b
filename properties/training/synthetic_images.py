"""Synthetic images with known boxes, in YOLO layout: coloured cells on a noisy background, which a small model learns in minutes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

NAMES = ("red", "white", "platelet")
_COLOURS = ((200, 90, 90), (120, 80, 170), (90, 60, 120))
_SIDES = ((0.14, 0.2), (0.22, 0.36), (0.05, 0.08))  # shares of the image's side
_SHARES = (0.8, 0.1, 0.1)


def make_images(folder: Path, *, train: int, val: int, side: int = 64, cells: int = 5, seed: int = 0) -> Path:
    """Write a data set and return the path of its YAML.

    Args:
        folder: folder for images, labels and YAML; created if it is missing.
        train: number of images to train on.
        val: number of images to validate on.
        side: height and width of an image in pixels.
        cells: mean number of cells in an image.
        seed: seed of the generator.
    """
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, rows = _image(rng, side, cells)
            image.save(images / f"{index:04}.png")
            (labels / f"{index:04}.txt").write_text("".join(rows), encoding="utf-8")
    return write_yaml(folder, NAMES)


def write_yaml(folder: Path, names: tuple[str, ...]) -> Path:
    """Write the YAML of the data set in a folder, and return its path."""
    lines = [f"path: {folder.resolve()}", "train: images/train", "val: images/val", "names:", *(f"  {i}: {n}" for i, n in enumerate(names))]
    path = folder / "data.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _image(rng: np.random.Generator, side: int, cells: int) -> tuple[Image.Image, list[str]]:
    ground: NDArray[np.uint8] = rng.integers(190, 235, (side, side, 3), dtype=np.uint8)
    image = Image.fromarray(ground)
    pen, rows = ImageDraw.Draw(image), []
    for _ in range(1 + rng.poisson(cells - 1)):
        label = int(rng.choice(len(NAMES), p=_SHARES))
        w, h = rng.uniform(*_SIDES[label], 2)
        x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
        pen.ellipse([(x - w / 2) * side, (y - h / 2) * side, (x + w / 2) * side, (y + h / 2) * side], fill=_COLOURS[label])
        rows.append(f"{label} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n")
    return image, rows
