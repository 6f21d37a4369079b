"""Sizes of generated batches, and their definitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from twinloss import LossSpec


@dataclass(frozen=True)
class Profile:
    """Bounds of generated batches.

    Attributes:
        name: part of the workload's name, as in ``generated-tiny``.
        sides: image sides in pixels, the simplest first; they are rounded up to a multiple of the finest stride.
        max_images: largest number of images.
        max_boxes: largest number of boxes drawn one by one, without those of crowds.
        crowds: possible numbers of boxes of a crowd.
        max_scores: largest number of class logits in a batch; larger batches get fewer classes.
    """

    name: str
    sides: tuple[int, ...]
    max_images: int
    max_boxes: int
    crowds: tuple[int, ...]
    max_scores: int


TINY = Profile("tiny", (64, 128, 96, 72, 80, 104), max_images=5, max_boxes=10, crowds=(1, 2, 5, 12, 25, 50, 120, 300), max_scores=300_000)
MEDIUM = Profile("medium", (160, 256, 192, 224, 168), max_images=4, max_boxes=24, crowds=(1, 2, 10, 25, 60, 120), max_scores=1_000_000)
PROFILES = {profile.name: profile for profile in (TINY, MEDIUM)}

# One to four levels. A coarse first level gives fewer anchors than K at most sizes; a first stride of 4 px gives more than 64·K.
LEVELS = ((8,), (8, 16, 32), (64,), (8, 16), (8, 16, 32, 64), (32,), (16,), (16, 32), (4, 8, 16), (8, 16, 32), (32, 64))
CLASSES = (1, 3, 80, 2, 20, 365)
BINS = (16, 1, 16, 4, 1, 8, 2, 32)
TOPK = (10, 10, 10, 10, 1, 2, 3, 5, 7, 13, 20)
POWERS = ((0.5, 6.0), (0.5, 6.0), (0.5, 6.0), (1.0, 6.0), (0.5, 2.0), (1.0, 1.0))
GAINS = ((7.5, 0.5, 1.5), (7.5, 0.5, 1.5), (1.0, 1.0, 1.0), (0.0, 2.0, 0.5))
# Factors of the classes, repeated up to the number of classes.
WEIGHTS: tuple[tuple[float, ...] | None, ...] = (None, None, None, None, (2.0,), (0.5, 1.0, 3.0), (0.0, 1.0))


@dataclass(frozen=True)
class Frame:
    """The definition and the image size in pixels, in which boxes are placed."""

    spec: LossSpec
    height: int
    width: int

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each level."""
        return tuple((-(-self.height // s), -(-self.width // s)) for s in self.spec.strides)


def definitions(classes: Sequence[int] = CLASSES, levels: Sequence[tuple[int, ...]] = LEVELS) -> st.SearchStrategy[LossSpec]:
    """Strategy of definitions that the reference supports; it shrinks to one class, one level and the default settings."""

    @st.composite
    def definition(draw: st.DrawFn) -> LossSpec:
        num_classes, topk = draw(st.sampled_from(classes)), draw(st.sampled_from(TOPK))
        alpha, beta = draw(st.sampled_from(POWERS))
        weights = draw(st.sampled_from(WEIGHTS))
        return LossSpec(
            num_classes=num_classes,
            reg_max=draw(st.sampled_from(BINS)),
            strides=draw(st.sampled_from(levels)),
            gains=draw(st.sampled_from(GAINS)),
            topk=topk,
            topk2=draw(st.sampled_from((None, None, None, None, 1, 3, topk, topk + 2))),
            alpha=alpha,
            beta=beta,
            class_weights=None if weights is None else (weights * num_classes)[:num_classes],
        )

    return definition()


@st.composite
def image_sizes(draw: st.DrawFn, profile: Profile, finest: int) -> tuple[int, int]:
    """Height and width, multiples of the finest stride; half of the images are square."""
    width = draw(st.sampled_from(profile.sides))
    height = draw(st.sampled_from(profile.sides)) if draw(st.booleans()) else width
    return -(-height // finest) * finest, -(-width // finest) * finest
