"""Batches as in a training: letterboxed, tiled or padded to rectangles, with predictions at three stages of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oracle.cases.case import Box, Case, Prediction, PredictionKind
from oracle.cases.noise import Noise
from oracle.cases.workloads import labelled_images as packs
from oracle.cases.workloads.label_files import labels_of, load_labels
from oracle.cases.workloads.labelled_images import LabelledImages, data_folder
from oracle.cases.workloads.synthetic import STATISTICS, generate
from twinloss import LossSpec

LAYOUTS = ("letterbox", "mosaic", "rect", "crowded")
_STAGES: tuple[PredictionKind, ...] = ("early", "middle", "late")
_CROWDED_SHARE = 0.05
_DECIMALS = 4  # Of a pixel, to keep the files of cases readable.

Rows = NDArray[np.float64]
Indices = NDArray[np.int64]


def open_images(name: str) -> LabelledImages:
    """Returns the labelled images named ``coco``, ``gwhd``, ``bccd``, ``synthetic-coco`` (and so on), or ``labels:PATH``.

    If the files of a public data set are absent, the images are synthetic; their name and origin show it.

    Raises:
        ValueError: the name is unknown, or a label file is invalid.
        FileNotFoundError: the path of ``labels:PATH`` does not exist.
    """
    if labels := labels_of(name):
        return dataclasses.replace(labels, extras={})  # A batch of detection has no polygons.
    kind = name.partition(":")[0]
    if kind.startswith("synthetic-") and kind.removeprefix("synthetic-") in STATISTICS:
        return generate(kind.removeprefix("synthetic-"))
    if kind not in STATISTICS:
        known = ", ".join([*STATISTICS, *(f"synthetic-{figure}" for figure in STATISTICS)])
        raise ValueError(f"workload {name!r} is unknown; choose one of {known} or labels:PATH, with -mosaic, -rect or -crowded after it")
    folder = data_folder()
    try:
        return _public(kind, folder) if folder else generate(kind)
    except FileNotFoundError:
        return generate(kind)


def _public(name: str, folder: Path) -> LabelledImages:
    if name == "bccd":
        return dataclasses.replace(
            load_labels(folder / "bccd"),
            name="bccd",
            origin="BCCD ground truth",
            num_classes=STATISTICS["bccd"].num_classes,
            extras={},
        )
    return {"coco": packs.coco, "gwhd": packs.gwhd}[name](folder)


def real_batches(
    source: str | LabelledImages,
    *,
    imgsz: int = 640,
    batch: int = 16,
    count: int = 1,
    seed: int = 0,
    layout: str = "letterbox",
    spec: LossSpec | None = None,
) -> Iterator[Case]:
    """Yields batches of real ground truth; their predictions are early, middle and late in training, in turn.

    Args:
        source: labelled images, or a name for :func:`open_images`, optionally with a layout at the end of its kind: ``coco-mosaic``,
            ``gwhd-crowded``, ``labels-rect:PATH``.
        imgsz: longer side of the network's input in pixels.
        batch: images in each batch.
        count: number of batches.
        seed: selects the images of each batch, and the predictions.
        layout: ``letterbox`` (one image, padded to a square), ``mosaic`` (four in one square, about a random point), ``rect`` (images of
            similar shape, padded to a rectangle that fits them all) or ``crowded`` (the 5 % of the images with the most boxes).
        spec: the definition; by default the number of classes of the source, and the default of every other number.

    Raises:
        ValueError: the name or layout is unknown, ``imgsz`` is not a multiple of the coarsest stride, or ``batch`` is below 1.
    """
    if isinstance(source, str):
        source, layout = split_layout(source, layout)
        source = open_images(source)
    spec = spec or LossSpec(num_classes=source.num_classes)
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r} is unknown; choose one of {', '.join(LAYOUTS)}")
    if imgsz < 1 or imgsz % spec.strides[-1]:
        raise ValueError(f"imgsz {imgsz} is not a multiple of the coarsest stride, {spec.strides[-1]}; round it up")
    if batch < 1:
        raise ValueError(f"batch is {batch}; give 1 image or more")
    loader = _Loader(source, layout, imgsz, batch, spec.strides[-1], seed)
    for index in range(count):
        image_size, boxes, extras = loader.load(index)
        yield Case(
            spec=spec,
            image_size=image_size,
            batch_size=batch,
            boxes=boxes,
            prediction=Prediction(kind=_STAGES[index % len(_STAGES)], seed=seed * 10_000 + index),
            workload=source.name if layout == "letterbox" else f"{source.name}-{layout}",
            tags=(_STAGES[index % len(_STAGES)],),
            extras=extras,
        )


def split_layout(name: str, layout: str = "letterbox") -> tuple[str, str]:
    """Returns a source's name without the layout at the end of its kind, and that layout, or the given one if there is none."""
    kind, colon, path = name.partition(":")
    for ending in LAYOUTS:
        if kind.endswith(f"-{ending}"):
            return kind.removesuffix(f"-{ending}") + colon + path, ending
    return name, layout


@dataclass(frozen=True)
class _Loader:
    """Selects the images of a batch, and places their boxes."""

    pack: LabelledImages
    layout: str
    imgsz: int
    batch: int
    coarsest: int
    seed: int

    def load(self, index: int) -> tuple[tuple[int, int], tuple[Box, ...], dict[str, tuple[Any, ...]]]:
        """Returns height and width of the network's input, and the boxes and extras of all images in its pixels."""
        square = np.array([self.imgsz, self.imgsz], dtype=np.float64)
        if self.layout == "mosaic":
            noise = Noise(self.seed, 1000 + index)
            fours = self._picks(index, 4 * self.batch).reshape(-1, 4)
            return (self.imgsz, self.imgsz), *self._placed([self._mosaic(four.tolist(), noise) for four in fours])
        picks = self._neighbours(index) if self.layout == "rect" else self._picks(index, self.batch)
        canvas = self._rectangle(picks) if self.layout == "rect" else square
        return (int(canvas[1]), int(canvas[0])), *self._placed([[self._fit(image, np.zeros(2), canvas)] for image in picks.tolist()])

    def _picks(self, index: int, needed: int) -> Indices:
        """Returns the images of one batch; over batches, every image comes once before any comes again."""
        eligible = np.arange(len(self.pack))
        if self.layout == "crowded":
            most = max(int(len(eligible) * _CROWDED_SHARE), min(self.batch, len(eligible)))
            eligible = np.argsort(-self.pack.counts, kind="stable")[:most]
        places = np.arange(index * needed, (index + 1) * needed)
        orders = {epoch: Noise(self.seed, 3000 + epoch).order(len(eligible)) for epoch in np.unique(places // len(eligible)).tolist()}
        return np.array([eligible[orders[place // len(eligible)][place % len(eligible)]] for place in places.tolist()])

    def _neighbours(self, index: int) -> Indices:
        """Returns the images of one batch with similar aspect ratios."""
        by_shape = np.argsort(self.pack.sizes[:, 1] / self.pack.sizes[:, 0], kind="stable")
        start = int(Noise(self.seed, 2000 + index).uniform(1)[0] * len(self.pack))
        return by_shape[(start + np.arange(self.batch)) % len(self.pack)]

    def _rectangle(self, picks: Indices) -> Rows:
        sizes = self.pack.sizes[picks]
        scaled = sizes * (self.imgsz / sizes.max(axis=1, keepdims=True))
        rectangle: Rows = np.ceil(scaled.max(axis=0) / self.coarsest - 1e-9) * self.coarsest
        return rectangle

    def _fit(self, image: int, corner: Rows, frame: Rows) -> Fit:
        """Returns how one image is scaled into the middle of a frame at ``corner``."""
        size = self.pack.sizes[image]
        scale = min((frame / size).min(), self.imgsz / size.max())
        return Fit(image, float(scale), corner + (frame - size * scale) / 2)

    def _mosaic(self, four: list[int], noise: Noise) -> list[Fit]:
        """Returns how four images are scaled, each into one of the four parts of the square about a random point."""
        split = self.imgsz * (0.35 + 0.3 * noise.uniform(2).astype(np.float64))
        corners = (np.zeros(2), split * (1, 0), split * (0, 1), split)
        frames = (split, np.array([self.imgsz - split[0], split[1]]), np.array([split[0], self.imgsz - split[1]]), self.imgsz - split)
        return [self._fit(image, *place) for image, *place in zip(four, corners, frames, strict=True)]

    def _placed(self, images: list[list[Fit]]) -> tuple[tuple[Box, ...], dict[str, tuple[Any, ...]]]:
        """Returns the boxes of a batch in pixels of the network's input, and the other columns of the ground truth."""
        boxes, extras = list[Box](), {name: list[Any]() for name in self.pack.extras}
        for image, fits in enumerate(images):
            for fit in fits:
                rows = self.pack.rows(fit.image)
                placed = self.pack.boxes[rows] * fit.scale
                placed[:, :2] += fit.corner
                labels = self.pack.labels[rows].tolist()
                boxes += [Box(image, label, *_rounded(row)) for label, row in zip(labels, placed.tolist(), strict=True)]
                for name, column in self.pack.extras.items():
                    extras[name] += [PLACED[name](value, fit) for value in column[rows]]
        return tuple(boxes), {name: tuple(column) for name, column in extras.items()}


class Fit(NamedTuple):
    """How an image lies in the network's input: number of the image, scale, and place of its top left corner in pixels."""

    image: int
    scale: float
    corner: Rows

    def points(self, flat: Sequence[float], stride: int = 2) -> tuple[float, ...]:
        """Returns points, given as x, y and ``stride - 2`` further numbers in turn, in pixels of the input; further numbers stay."""
        points = np.array(flat, dtype=np.float64).reshape(-1, stride)
        points[:, :2] = points[:, :2] * self.scale + self.corner
        return _rounded(points.reshape(-1).tolist())


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(value, _DECIMALS) for value in values)


PLACED: dict[str, Callable[[Any, Fit], Any]] = {
    "angle": lambda angle, _: angle,
    "keypoints": lambda keypoints, fit: fit.points(keypoints, 3),
    "polygons": lambda rings, fit: tuple(fit.points(ring) for ring in rings),
}
"""What a scale and a shift make of an entry of each column of :attr:`LabelledImages.extras`."""
