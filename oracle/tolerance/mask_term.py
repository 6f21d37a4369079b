"""Tolerances of the mask term and its gradients at the held anchors of one image (segmentation spec sections 4, 8 and 8a).

Shape suffixes: n held anchors, P prototypes, y and x rows and columns of the masks' grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from oracle.contract.contender import Batch
from oracle.definition.criterion import Grid, GroundTruth
from oracle.definition.mask_formulas import Size, bilinear_inputs, entropy, resized_bilinear, size_of
from oracle.definition.segmentation import areas
from oracle.tolerance.coordinates import truth_corner_tolerance
from oracle.tolerance.held_anchors import ENTROPY_ROUNDINGS, EVALUATION_ROUNDINGS, OUTPUT_ROUNDINGS, Bounds
from oracle.tolerance.mask_crops import truth_crops
from oracle.tolerance.mask_overlaps import product_tolerance
from oracle.tolerance.precision import Precision

RESIZE_ROUNDINGS = 3.0  # Of an interpolated value: two products and a sum.
POSITION_ROUNDINGS = 2.0  # Of the position of an output among the inputs, which moves the share of its two inputs.
SUM_ROUNDINGS = 4.0  # Of a product of slopes and coefficients or prototypes, beyond its sum.


def summation(count: int) -> float:
    """Returns the roundings of a sum of ``count`` terms, added up pairwise or in blocks."""
    return 1.0 + math.log2(max(count, 1)) / 2


def summation_of_products(count: int) -> float:
    """Returns the roundings of a sum of ``count`` products in a matrix product, which may add them up one after the other.

    Where the products are equal, as with constant prototypes, every addition may round by half a unit in the same direction: torch's own
    matrix product of 53,248 columns was found to be 6,913 units away.
    """
    return summation(count) + count / 2


class Crop(NamedTuple):
    """The crops of n held anchors, and the factor of their pixels.

    Attributes:
        inside, certain, possible: (n, y, x) pixels that the definition reads, that every correct program reads, and that some does.
        factor: (n, 1, 1) gain · B / (h · w · a · n).
        relative: (n, 1, 1) its relative rounding.
    """

    inside: Tensor
    certain: Tensor
    possible: Tensor
    factor: Tensor
    relative: Tensor


def crop_of(grid: Grid, truth: GroundTruth, batch: Batch, size: Size, row: Tensor, scale: float, precision: Precision) -> Crop:
    """Returns the crops of held anchors.

    Args:
        grid: the anchors' grid, of which the image size is used.
        truth: the prepared ground truth.
        batch: the targets.
        size: h and w.
        row: (n,) row of the batch that holds each anchor.
        scale: gain · B / n.
        precision: the contender's.
    """
    corners = truth.corners[row]
    off = truth_corner_tolerance(corners, batch["bboxes"].reshape(-1, 4)[row], (grid.height, grid.width), precision.core)
    kept = truth_crops(corners, off, grid, size, precision.core)
    corners, area, pixels = corners.double(), areas(corners.double(), grid), math.prod(size)
    # Width and height are differences of rounded corners.
    unsure = off + 2 * precision.core * corners.abs()
    sides = (corners[:, 2:] - corners[:, :2]).clamp(min=torch.finfo(torch.float64).tiny)
    relative = ((unsure[:, :2] + unsure[:, 2:]) / sides).sum(1) + (EVALUATION_ROUNDINGS + summation(pixels)) * precision.evaluation
    factor, relative = (torch.where(area > 0, part, 0.0)[:, None, None] for part in (scale / (pixels * area), relative))
    return Crop(kept.inside, kept.certain, kept.possible, factor, relative)


class Prototypes:
    """The prototypes of one image on the masks' grid, and the roundings of their resizing.

    Args:
        native: (P, h_p, w_p).
        size: h and w of the masks' grid.
        precision: the contender's.

    Attributes:
        value, magnitude, off: (P, y, x) the prototypes, what is rounded in them, and their tolerance.
        position: (y, x) rounding of an input's share, which is that of the position among the inputs.
        interpolation: relative rounding of an interpolated value.
    """

    def __init__(self, native: Tensor, size: Size, precision: Precision) -> None:
        self.native, self.size = native, size
        self.resizes = size_of(native) != size
        self.value, self.magnitude = self._resized(native), self._resized(native.abs())
        self.off, self.position, self.interpolation = torch.zeros_like(self.magnitude), torch.zeros(size, dtype=torch.float64), 0.0
        if self.resizes:
            rows, columns = (torch.arange(1.0, new + 1) * old / new for new, old in zip(size, native.shape[1:], strict=True))
            self.position = (POSITION_ROUNDINGS * precision.evaluation * (rows[:, None] + columns + 2)).double()
            self.interpolation = RESIZE_ROUNDINGS * max(precision.product, precision.score)
            self.off = self.magnitude * self.interpolation + self._inputs(native.abs()) * self.position

    def gradients(self, rounding: Tensor, size: Tensor, low: Tensor, high: Tensor) -> Bounds:
        """Returns bounds (P, h_p, w_p) on the gradient of the prototypes.

        Args:
            rounding, low, high: (P, y, x) bounds on the gradient of the resized prototypes.
            size: (P, y, x) sums of the magnitudes of that gradient's parts.
        """
        rounding, low, high = (self._spread_back(self._resized, part) for part in (rounding, low, high))
        return Bounds(rounding + self._spread_back(self._inputs, size * self.position), low, high)

    def _resized(self, maps: Tensor) -> Tensor:
        return resized_bilinear(maps, self.size) if self.resizes else maps

    def _inputs(self, maps: Tensor) -> Tensor:
        """Returns the sum of the inputs of each output (…, y, x), whatever their shares."""
        for axis, length in zip((-2, -1), self.size, strict=True):
            first, second, _ = bilinear_inputs(maps.shape[axis], length)
            maps = maps.index_select(axis, first) + maps.index_select(axis, second)
        return maps

    def _spread_back(self, resize: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
        """Returns maps (P, y, x) on the prototypes' grid, by the transpose of a linear function that resizes."""
        if not self.resizes:
            return maps
        with torch.enable_grad():
            native = torch.zeros_like(self.native, requires_grad=True)
            (spread,) = torch.autograd.grad((resize(native) * maps).sum(), native)
        return spread


class MaskPart:
    """Held anchors of one image, on the window that their crops span.

    Args:
        coefficients: (n, P).
        prototypes: of their image.
        target: (n, y, x) true masks.
        crop: their crops.
        precision: the contender's.

    Attributes:
        window: the window's index into arrays (n, y, x) of the masks' grid; in this class y and x count its rows and columns.
    """

    def __init__(self, coefficients: Tensor, prototypes: Prototypes, target: Tensor, crop: Crop, precision: Precision) -> None:
        self.window = _spanned(crop.possible)
        self.coefficient_nP, self.precision, self.interpolation = coefficients, precision, prototypes.interpolation
        self.crop = Crop(crop.inside[self.window], crop.certain[self.window], crop.possible[self.window], crop.factor, crop.relative)
        self.proto_Pyx, magnitude_Pyx, self.proto_off_Pyx = (
            part[self.window] for part in (prototypes.value, prototypes.magnitude, prototypes.off)
        )
        self._pixels(target[self.window], magnitude_Pyx)

    def _pixels(self, target_nyx: Tensor, magnitude_Pyx: Tensor) -> None:
        """Sets the entropy of each pixel and its slope in the logit, times the pixel's factor, with their tolerances (n, y, x)."""
        crop, precision, coefficient = self.crop, self.precision, self.coefficient_nP
        rounding = max(precision.score, precision.evaluation)
        logits = torch.einsum("np,pyx->nyx", coefficient, self.proto_Pyx)
        off = product_tolerance(torch.einsum("np,pyx->nyx", coefficient.abs(), magnitude_Pyx), len(magnitude_Pyx), precision)
        off += torch.einsum("np,pyx->nyx", coefficient.abs(), self.proto_off_Pyx)
        value, share = entropy(logits, target_nyx), logits.sigmoid()
        residual = share - target_nyx
        self.entropy = value * crop.factor
        value_off = residual.abs() * off + ENTROPY_ROUNDINGS * rounding * (logits.abs() + value)
        self.entropy_off = crop.factor * value_off + crop.relative * self.entropy
        self.slope = residual * crop.factor
        residual_off = share * (1 - share) * off + EVALUATION_ROUNDINGS * rounding * (share + target_nyx)
        relative = crop.relative + 2 * precision.product
        self.slope_off = crop.factor * residual_off + relative * self.slope.abs() + precision.smallest_score

    def term(self) -> Tensor:
        """Returns the tolerance of the anchors' share of the mask term, times gain and number of images."""
        crop = self.crop
        return (self.entropy_off * crop.possible).sum() + (self.entropy * (crop.possible & ~crop.certain)).sum()

    def coefficients(self) -> Bounds:
        """Returns bounds (n, P) on the gradient of the coefficients of the anchors."""
        possible = self.crop.possible
        off = (self.slope_off + self.slope.abs() * self._relative(int(possible.sum((1, 2)).amax()))) * possible
        rounding = torch.einsum("nyx,pyx->np", off, self.proto_Pyx.abs())
        rounding += torch.einsum("nyx,pyx->np", self.slope.abs() * possible, self.proto_off_Pyx)
        ends = [torch.zeros_like(rounding) for _ in range(2)]
        for sign, open_nyx in self._open():
            n, y, x = open_nyx.nonzero(as_tuple=True)
            change = sign * self.slope[n, y, x, None] * self.proto_Pyx[:, y, x].T
            for end, part in zip(ends, (change.clamp(max=0), change.clamp(min=0)), strict=True):
                end.index_add_(0, n, part)
        return Bounds(rounding, *ends)

    def prototypes(self, held: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the arguments of :meth:`Prototypes.gradients` on the window, for these of the image's ``held`` anchors."""
        possible, coefficient = self.crop.possible, self.coefficient_nP
        off = (self.slope_off + self.slope.abs() * self._relative(held)) * possible
        size = torch.einsum("nyx,np->pyx", self.slope.abs() * possible, coefficient.abs())
        rounding = torch.einsum("nyx,np->pyx", off, coefficient.abs()) + self.interpolation * size
        ends = [torch.zeros_like(rounding) for _ in range(2)]
        for sign, open_nyx in self._open():
            n, y, x = open_nyx.nonzero(as_tuple=True)
            change = sign * self.slope[n, y, x, None] * coefficient[n]
            for end, part in zip(ends, (change.clamp(max=0), change.clamp(min=0)), strict=True):
                end.index_put_((torch.arange(len(end))[:, None], y, x), part.T, accumulate=True)
        return rounding, size, ends[0], ends[1]

    def _relative(self, count: int) -> float:
        """Returns the relative rounding of a sum of ``count`` products that becomes a gradient."""
        return (SUM_ROUNDINGS + summation_of_products(count)) * self.precision.product + OUTPUT_ROUNDINGS * self.precision.output

    def _open(self) -> tuple[tuple[int, Tensor], tuple[int, Tensor]]:
        """Returns the pixels (n, y, x) that a program may read and the definition does not, and those that it may leave out."""
        crop = self.crop
        return (1, crop.possible & ~crop.inside), (-1, crop.inside & ~crop.certain)


def _spanned(possible: Tensor) -> tuple[slice, slice, slice]:
    """Returns the index of the rows and columns that hold every pixel of masks (n, y, x)."""
    some_yx = possible.any(0)
    found = (some_yx.any(axis).nonzero().reshape(-1).tolist() for axis in (1, 0))
    rows, columns = (slice(at[0], at[-1] + 1) if at else slice(0, 0) for at in found)
    return slice(None), rows, columns
