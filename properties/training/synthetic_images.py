"""Synthetic images with known boxes, in YOLO layout: coloured cells on a noisy background, which a small model learns in minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

NAMES = ("red", "white", "platelet")
_COLOURS = ((200, 90, 90), (120, 80, 170), (90, 60, 120))
_SIDES = ((0.14, 0.2), (0.22, 0.36), (0.05, 0.08))  # shares of the image's side
_SHARES = (0.8, 0.1, 0.1)
_OUTLINE = 2 * np.pi * np.arange(16) / 16


def make_images(folder: Path, *, train: int, val: int, side: int = 64, cells: int = 5, seed: int = 0, task: str = "detect") -> Path:
    """Write a data set and return the path of its YAML.

    Args:
        folder: folder for images, labels and YAML; created if it is missing.
        train: number of images to train on.
        val: number of images to validate on.
        side: height and width of an image in pixels.
        cells: mean number of cells in an image.
        seed: seed of the generator.
        task: the labels are a box of each cell for detection, its outline for segmentation, four corners for oriented boxes, and for pose a
            box with its centre and four points on the outline.
    """
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, rows = _image(rng, side, cells, LABELS[task])
            image.save(images / f"{index:04}.png")
            (labels / f"{index:04}.txt").write_text("".join(rows), encoding="utf-8")
    lines = [f"path: {folder.resolve()}", "train: images/train", "val: images/val", "names:", *(f"  {i}: {n}" for i, n in enumerate(NAMES))]
    lines += ["kpt_shape: [5, 3]", "flip_idx: [0, 2, 1, 3, 4]"] if task == "pose" else []
    path = folder / "data.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _outline(x: float, y: float, w: float, h: float, turns: NDArray[np.float64]) -> list[float]:
    """Returns x and y in turn of the points of an ellipse at these angles."""
    return [value for turn in turns for value in (x + w / 2 * np.cos(turn), y + h / 2 * np.sin(turn))]


def _points(x: float, y: float, w: float, h: float) -> list[float]:
    """Returns the box, and five points with their visibility: centre, right, left, bottom, top."""
    places = np.array([x, y, *_outline(x, y, w, h, np.pi * np.array([0, 1, 0.5, 1.5]))]).reshape(-1, 2)
    return [x, y, w, h, *np.concatenate([places, np.full((5, 1), 2.0)], axis=1).reshape(-1).tolist()]


LABELS: dict[str, Callable[[float, float, float, float], list[float]]] = {
    "detect": lambda x, y, w, h: [x, y, w, h],
    "segment": lambda x, y, w, h: _outline(x, y, w, h, _OUTLINE),
    "oriented": lambda x, y, w, h: [x - w / 2, y - h / 2, x + w / 2, y - h / 2, x + w / 2, y + h / 2, x - w / 2, y + h / 2],
    "pose": _points,
}
"""The numbers after the class in a label row of each task, from a cell's centre and size in shares of the image."""


def _image(
    rng: np.random.Generator, side: int, cells: int, label_of: Callable[[float, float, float, float], list[float]]
) -> tuple[Image.Image, list[str]]:
    ground: NDArray[np.uint8] = rng.integers(190, 235, (side, side, 3), dtype=np.uint8)
    image = Image.fromarray(ground)
    pen, rows = ImageDraw.Draw(image), []
    for _ in range(1 + rng.poisson(cells - 1)):
        label = int(rng.choice(len(NAMES), p=_SHARES))
        w, h = rng.uniform(*_SIDES[label], 2)
        x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
        pen.ellipse([(x - w / 2) * side, (y - h / 2) * side, (x + w / 2) * side, (y + h / 2) * side], fill=_COLOURS[label])
        rows.append(f"{label} {' '.join(f'{value:.6f}' for value in label_of(x, y, w, h))}\n")
    return image, rows
