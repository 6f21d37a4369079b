"""Loads the compiled functions, and defines their arguments (``source/arguments.hpp``, ``source/entry*.cpp``)."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch

from twinloss.backends.native.compiler import NoLibraryError
from twinloss.backends.native.dispatch import CpuKernels, find
from twinloss.backends.native.openmp import share_with_torch

MOST_LEVELS = 16
STORAGE = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""Dtypes of logits that the kernels read and write."""


class KernelArguments(ctypes.Structure):
    """Arguments of one call; the fields are those of ``struct KernelArguments``."""

    _fields_ = (
        *((name, c_int64) for name in ("images", "classes", "bins", "anchors", "levels", "rows", "threads")),
        *((name, c_int64 * MOST_LEVELS) for name in ("grid_rows", "grid_columns", "strides")),
        *((name, c_void_p) for name in ("boxes", "scores")),
        *((name, c_int64) for name in ("boxes_per_image", "boxes_per_channel", "scores_per_image", "scores_per_channel")),
        *((name, c_void_p) for name in ("image", "label", "box", "class_weights")),
        *((name, c_int64) for name in ("topk", "topk2")),
        *((name, c_float) for name in ("alpha", "beta", "assign_eps", "ciou_eps", "lengthened_below", "shortest_side", "longest")),
        ("gains", c_float * 4),
        *((name, c_int32) for name in ("overlap_decides", "distance_term", "summed_weights")),
        *(("angle", c_void_p), ("angle_per_image", c_int64)),
        *((name, c_float) for name in ("probiou_eps", "term_floor", "angle_scale")),
        ("kpts", c_void_p),
        *((name, c_int64) for name in ("kpts_per_image", "kpts_per_channel", "points", "point_numbers", "target_numbers")),
        *((name, c_void_p) for name in ("keypoints", "doubled")),
        *((name, c_float) for name in ("point_factor", "point_shift")),
        *(("sigmas", c_void_p), ("sigmas_per_image", c_int64), ("sigmas_per_channel", c_int64)),
        *(("point_weights", c_void_p), ("sigma_floor", c_float)),
        ("masks", c_void_p),
    )


class Held(ctypes.Structure):
    """Pointers to the columns of the held anchors, each of ``capacity`` entries."""

    _fields_ = (("image", c_void_p), ("anchor", c_void_p), ("row", c_void_p), ("weight", c_void_p), ("capacity", c_int64))


class GradientPointers(ctypes.Structure):
    """Where the gradients go, and by how much each term counts in them; the fields are those of ``struct Gradients``."""

    _fields_ = (*((name, c_void_p) for name in ("boxes", "scores", "angle")), ("upstream", c_double * 4))


class MaskArguments(ctypes.Structure):
    """Predictions and true masks of one call; the fields are those of ``struct MaskArguments``."""

    _fields_ = (
        *((name, c_int64) for name in ("images", "anchors", "prototypes", "tall", "wide", "rows", "columns", "threads")),
        *(("coefficients", c_void_p), ("coefficients_per_image", c_int64), ("coefficients_per_channel", c_int64)),
        *(("grids", c_void_p), ("grids_per_image", c_int64), ("grids_per_channel", c_int64), ("grids_per_row", c_int64)),
        *(("masks", c_void_p), ("mask_storage", c_int64), ("masks_per_mask", c_int64), ("masks_per_row", c_int64)),
        ("place", c_void_p),
    )


class HeldMasks(ctypes.Structure):
    """Held anchors by box; the fields are those of ``struct HeldMasks``."""

    _fields_ = (
        *((name, c_int64) for name in ("boxes", "held")),
        *((name, c_void_p) for name in ("row", "image", "crop", "factor", "order", "first", "count", "anchor")),
    )


class SemanticArguments(ctypes.Structure):
    """Semantic logits and the map of classes; the fields are those of ``struct SemanticArguments``."""

    _fields_ = (
        *((name, c_int64) for name in ("images", "classes", "rows", "columns", "threads")),
        ("logits", c_void_p),
        *((name, c_int64) for name in ("per_image", "per_class", "per_row")),
        ("map", c_void_p),
    )


_OF_MASKS = (POINTER(MaskArguments), POINTER(HeldMasks))
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "mask_arguments_size": (),
    "scratch_of_masks": (*_OF_MASKS, c_int32),
    "kept_of_masks": _OF_MASKS,
    "mask_term": (*_OF_MASKS, c_int32, c_void_p, c_void_p, c_void_p),
    "semantic_term": (POINTER(SemanticArguments), c_int32, c_void_p, c_void_p),
    "semantic_gradient": (POINTER(SemanticArguments), c_int32, c_void_p, c_float, c_void_p),
    "mask_gradients": (*_OF_MASKS, c_int32, c_void_p, c_void_p, c_float, c_void_p, c_void_p),
    "arguments_size": (),
    "first_bad_entry": (POINTER(KernelArguments), POINTER(Held), c_int64),
}
_OF_HELD = (POINTER(KernelArguments), c_int32, c_void_p, POINTER(Held), c_int64)
_OF_BOXES = {
    "scratch_of_assignment": (POINTER(KernelArguments),),
    "scratch_of_terms": (POINTER(KernelArguments), c_int64),
    "assign": (POINTER(KernelArguments), c_int32, c_void_p, POINTER(Held)),
    "terms": (*_OF_HELD, c_void_p, POINTER(GradientPointers)),
}
_OF_KEYPOINTS = {
    **{name: _OF_BOXES[name] for name in ("scratch_of_assignment", "assign", "scratch_of_terms")},
    "terms": (*_OF_HELD, c_void_p, c_void_p, c_void_p),
    "gradient": (*_OF_HELD, c_float, c_float, c_void_p, c_void_p, c_void_p),
    "likelihood": (*_OF_HELD, *(c_void_p,) * 6),
    "likelihood_gradient": (*_OF_HELD, *(c_void_p,) * 3, c_double, *(c_void_p,) * 4),
}
PREFIXES = {"upright": "twinloss_", "oriented": "twinloss_oriented_", "keypoints": "twinloss_keypoints_"}
"""How the names of a geometry's functions begin, and of those of keypoints."""

_WITHOUT_RESULT = (
    *("terms", "gradient", "likelihood_gradient"),
    *("mask_term", "mask_gradients", "semantic_term", "semantic_gradient"),
)


class Library(ctypes.CDLL):
    """The compiled functions.

    Attributes:
        of_boxes: those that depend on the kind of boxes, by it and by name.
        kernels: which library it is.
    """

    of_boxes: dict[tuple[str, str], Any]
    kernels: CpuKernels


def kernel(name: str, geometry: str) -> Any:
    """A function of the library for a geometry, or for keypoints."""
    return load().of_boxes[geometry, name]


@cache
def load() -> Library:
    """The library with typed functions. Calls release Python's global interpreter lock.

    Raises:
        NoLibraryError: there is none, or it cannot be loaded.
    """
    share_with_torch()
    library, kernels = find(_typed)
    library.kernels = kernels
    return library


def cpu_kernels() -> CpuKernels:
    """The compiled kernels that serve on this machine's CPU: their instruction set, where they lie, and whether they were installed.

    Loads them, and compiles them first where ``TWINLOSS_BUILD=1`` asks for it.

    Raises:
        NoLibraryError: there are none; the message gives the reason and the remedy.
    """
    return load().kernels


def _typed(path: Path) -> Library:
    """The library at ``path`` with typed functions.

    Raises:
        OSError: it cannot be loaded from this folder.
        NoLibraryError: it lacks a function, or was built for another layout of the arguments.
    """
    library = Library(str(path))
    try:
        library.of_boxes = {
            (kind, name): _function(library, prefix, name, arguments)
            for kind, prefix in PREFIXES.items()
            for name, arguments in (_OF_KEYPOINTS if kind == "keypoints" else _OF_BOXES).items()
        }
        for name, arguments in _ARGUMENTS.items():
            _function(library, "twinloss_", name, arguments)
    except AttributeError as error:
        raise NoLibraryError(f"the CPU kernels in {path} lack a function: {error}; delete that file, or use backend='torch'") from error
    sizes = library.twinloss_arguments_size(), library.twinloss_mask_arguments_size()
    if sizes != (ctypes.sizeof(KernelArguments), sum(map(ctypes.sizeof, (MaskArguments, HeldMasks, SemanticArguments)))):
        raise NoLibraryError(
            f"the CPU kernels in {path} were built for another version of twinloss; delete that file, or use backend='torch'"
        )
    return library


def _function(library: ctypes.CDLL, prefix: str, name: str, arguments: tuple[Any, ...]) -> Any:
    """A typed function of the library.

    Raises:
        AttributeError: the library lacks it.
    """
    function = getattr(library, prefix + name)
    function.argtypes, function.restype = arguments, None if name in _WITHOUT_RESULT else c_int64
    return function
