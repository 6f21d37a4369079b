"""Many boxes at once. A crowd is drawn as four values, so that 300 boxes take no longer to draw or to shrink than one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from oracle.cases.case import Box
from oracle.cases.noise import Noise
from properties.strategies.profiles import Frame, Profile

Pattern = Literal["scatter", "pile", "tiles", "nest", "copies", "corner"]
PATTERNS: tuple[Pattern, ...] = ("scatter", "pile", "tiles", "nest", "copies", "corner")

_STREAM = 50
_QUANTUM = 4  # Quarters of a pixel, so that a crowd's coordinates stay short and some of its boxes coincide.

Places = NDArray[np.float64]


@dataclass(frozen=True)
class Crowd:
    """Boxes of one image.

    Attributes:
        image: image index, which is taken modulo the number of images.
        count: number of boxes.
        pattern: ``scatter`` over the image, a ``pile`` about a point, ``tiles`` side by side, a ``nest`` of concentric boxes, ``copies`` of
            one box with all classes in turn, or small boxes in the top-left ``corner``, where the reference picks anchors of metric 0.
        seed: seed of the places.
    """

    image: int
    count: int
    pattern: Pattern
    seed: int

    def boxes(self, frame: Frame, image: int) -> list[Box]:
        """Returns the boxes of an image, with coordinates in quarters of a pixel."""
        noise = Noise(self.seed, _STREAM)
        size = np.array([frame.width, frame.height], dtype=np.float64)
        places = np.rint(self._places(size, noise, frame.spec.shortest_side) * _QUANTUM) / _QUANTUM
        labels = (noise.uniform(self.count) * frame.spec.num_classes).astype(np.int64)
        if self.pattern == "copies":
            labels = np.arange(self.count) % frame.spec.num_classes
        return [Box(image, int(label), *place) for label, place in zip(labels.tolist(), places.tolist(), strict=True)]

    def _places(self, size: Places, noise: Noise, shortest: float) -> Places:
        """Returns centre and size (n, 4) in pixels."""
        n, one = self.count, np.ones((self.count, 1))
        anywhere, side = noise.uniform(n, 2) * size, (0.05 + 0.4 * noise.uniform(n, 2) ** 2) * size
        point = noise.uniform(1, 2) * size
        if self.pattern == "pile":
            return np.concatenate([point + 0.05 * size * noise.bell(n, 2), side], axis=1)
        if self.pattern == "tiles":
            across = int(np.ceil(np.sqrt(n)))
            tile = size / across
            cells = np.stack([np.arange(n) % across, np.arange(n) // across], axis=1)
            return np.concatenate([(cells + 0.5) * tile, one * tile], axis=1)
        if self.pattern == "nest":
            return np.concatenate([one * size / 2, np.linspace(1, 1 / n, n)[:, None] * size], axis=1)
        if self.pattern == "copies":
            return np.concatenate([one * point, one * side[:1]], axis=1)
        if self.pattern == "corner":
            return np.concatenate([noise.uniform(n, 2) * 2 * shortest, (0.2 + noise.uniform(n, 2)) * shortest], axis=1)
        return np.concatenate([anywhere, side], axis=1)


def crowds(profile: Profile, image: st.SearchStrategy[int]) -> st.SearchStrategy[Crowd]:
    """Strategy of crowds in one image; it shrinks to few scattered boxes in the first image."""
    return st.builds(Crowd, image, st.sampled_from(profile.crowds), st.sampled_from(PATTERNS), st.integers(0, 2**16))
