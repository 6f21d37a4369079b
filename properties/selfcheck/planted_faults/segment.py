"""Wrong mask and semantic terms of instance segmentation (segmentation spec sections 4 to 8)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from properties.selfcheck.planted_faults import segment_overlap
from properties.selfcheck.planted_faults.fault import Fault, Make, Patch
from twinloss.masks import crops, sampling, targets
from twinloss.terms import masks, registry, semantic
from twinloss.terms.masks import HeldMasks

Change = Callable[..., Any]


def term(key: str, change: Change) -> tuple[Patch, ...]:
    """Replaces a term, ``"mask"`` or ``"semantic"``; ``change`` takes the sound function and the held anchors."""

    def make(sound: Any) -> Any:
        return {**sound, key: lambda at: change(sound[key], at)}

    return (Patch(registry, "TERMS", make),)


def each(change: Change) -> tuple[Patch, ...]:
    """Replaces the mean of the mask term; ``change`` takes the loss of each held anchor (H,) and the held anchors."""
    return term("mask", lambda sound, at: change(losses(at), at) if len(at) else sound(at))


def losses(at: Any) -> Tensor:
    """Returns the mask loss of each held anchor (H,), computed anchor by anchor."""
    extras, true = at.call.extras, targets.TrueMasks.of(at.call.extras)
    held = HeldMasks.of(at.image, at.anchor, at.row, at.pixels, at.image_size, true.grid)
    prototypes, columns = extras["proto"].to(at.dtype), at.columns("mask_coefficient")
    if tuple(prototypes.shape[2:]) != true.grid:
        prototypes = interpolate(prototypes, size=true.grid, mode="bilinear")
    found = []
    for image, row, column in zip(at.image.tolist(), at.row, columns, strict=True):
        group = int((held.groups.value == row).nonzero())
        x1, y1, x2, y2 = held.crop[group].tolist()
        pixel = torch.arange(true.grid[0] * true.grid[1]).view(true.grid)[y1:y2, x1:x2].reshape(1, -1)
        logits = column @ prototypes[image].flatten(1)[:, pixel[0]]
        target = true.at(row[None], image, pixel)[0].to(at.dtype)
        entropy = binary_cross_entropy_with_logits(logits, target, reduction="sum")
        found.append(entropy * held.factor[group] * len(at) if pixel.numel() else columns.sum() * 0)
    return torch.stack(found)


def inputs(change: Change) -> tuple[Patch, ...]:
    """Changes coefficients and prototypes of the mask term; ``change`` takes and returns both."""

    def mask_term(coefficients: Tensor, prototypes: Tensor, *rest: Any) -> Tensor:
        return masks.mask_term(*change(coefficients, prototypes), *rest)

    return term("mask", lambda _, at: masks.term_of_call(at, mask_term))


def _without_last(coefficients: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    return coefficients, torch.cat([prototypes[:, :-1], 0 * prototypes[:, -1:]], 1)


def borders(change: Change) -> tuple[Patch, ...]:
    """Changes the corners (g, 4) in mask units from which the pixels of a crop follow."""
    return (Patch(crops, "whole_pixels", lambda sound: lambda corners, grid: sound(change(corners), grid)),)


def factors(change: Change) -> tuple[Patch, ...]:
    """Changes the factor of a box's pixels; ``change`` takes the record, corners (g, 4) in pixels and the image size, and returns (g,)."""

    def make(sound: Any) -> Any:
        def of(image: Tensor, anchor: Tensor, row: Tensor, corners: Tensor, *sizes: tuple[int, int]) -> HeldMasks:
            found: HeldMasks = sound(image, anchor, row, corners, *sizes)
            return replace(found, factor=change(found, corners[found.groups.leaders], sizes[0]))

        return of

    return (Patch(masks.HeldMasks, "of", make),)


def true_masks(change: Change) -> tuple[Patch, ...]:
    """Changes the target; ``change`` takes the sound method, the masks, and its arguments."""
    return (Patch(targets.TrueMasks, "at", lambda sound: lambda self, *given: change(sound, self, *given)),)


def class_maps(change: Change) -> tuple[Patch, ...]:
    """Changes the map of classes; ``change`` takes the sound function and its arguments."""
    return (Patch(semantic, "class_map", lambda sound: lambda *given: change(sound, *given)),)


def semantic_terms(change: Callable[[Tensor, Tensor], Tensor]) -> tuple[Patch, ...]:
    """Replaces the semantic term; ``change`` takes logits and target, both (B, C, h, w)."""

    def semantic_term(logits: Tensor, classes: Tensor) -> Tensor:
        known = torch.arange(logits.shape[1], dtype=classes.dtype)[:, None, None]
        working = logits.double() if logits.dtype == torch.float64 else logits.float()
        return change(working, (classes[:, None] == known).to(working.dtype))

    return term("semantic", lambda _, at: semantic.term_of_call(at, semantic_term))


def halves(*, smooth: float = 1.0, batch: bool = False, squares: bool = False, entropy: float = 0.5, dice: float = 0.5) -> Any:
    """Returns the semantic term with one part changed."""

    def found(logits: Tensor, target: Tensor) -> Tensor:
        share, axes = logits.sigmoid(), (0, 2, 3) if batch else (2, 3)
        both = (share * target).sum(axes)
        either = share.square().sum(axes) + target.square().sum(axes) if squares else share.sum(axes) + target.sum(axes)
        loss = 1 - (2 * both + smooth) / (either + smooth)
        return entropy * binary_cross_entropy_with_logits(logits, target) + dice * loss.mean()

    return found


def scaled(key: str, factor: Callable[[Any], float]) -> tuple[Patch, ...]:
    """Multiplies a term by a number."""
    return term(key, lambda sound, at: sound(at) * factor(at))


def _gain_of_classes(at: Any) -> float:
    box, cls, _ = at.spec.gains
    return float(cls / box) if box else 1.0


def _nearest_centre(size: int, resized: int, device: Any) -> Tensor:
    return ((torch.arange(resized) + 0.5) * (size / resized)).long().clamp(max=size - 1)


def _per(group: Callable[[Any], Tensor]) -> Change:
    """Returns the mean over groups of the means within them."""

    def mean(loss: Tensor, at: Any) -> Tensor:
        _, index, count = group(at).unique(return_inverse=True, return_counts=True)
        found: Tensor = (loss / count[index]).sum() / len(count)
        return found

    return mean


def _dropped(loss: Tensor, at: Any, keep: Tensor) -> Tensor:
    return loss[keep].sum() / len(at)


def _up_to_first_empty_image(loss: Tensor, at: Any) -> Tensor:
    held = torch.bincount(at.image, minlength=len(at.call.boxes)) > 0
    return _dropped(loss, at, held.cummin(0).values[at.image])


def _without_last_image(loss: Tensor, at: Any) -> Tensor:
    return _dropped(loss, at, at.image < max(len(at.call.boxes) - 1, 1))


def _of_weight(loss: Tensor, at: Any) -> Tensor:
    kept = at.weight > 0.01
    return loss[kept].sum() / max(int(kept.sum()), 1)


def _pixels_kept(found: HeldMasks, corners: Tensor, _: Any) -> Tensor:
    pixels = (found.crop[:, 2:] - found.crop[:, :2]).prod(1).clamp(min=1)
    return 1 / (pixels * len(found.groups.order)).to(corners.dtype)


def _clipped_area(found: HeldMasks, corners: Tensor, image_size: tuple[int, int]) -> Tensor:
    height, width = image_size
    inside = torch.minimum(corners.clamp(min=0), corners.new_tensor([width, height, width, height]))
    ratio = (corners[:, 2:] - corners[:, :2]).prod(1) / (inside[:, 2:] - inside[:, :2]).prod(1).clamp(min=1e-6)
    return found.factor * ratio


def _areas_as_pixels(found: HeldMasks, corners: Tensor, image_size: tuple[int, int]) -> Tensor:
    """The area of the box in mask pixels, of whole columns and rows."""
    across, down = found.grid[1] / image_size[1], found.grid[0] / image_size[0]
    units = (corners * corners.new_tensor([across, down, across, down])).round()
    whole = (units[:, 2:] - units[:, :2]).prod(1).clamp(min=1)
    return 1 / (whole * len(found.groups.order))


def _undivided(found: HeldMasks, corners: Tensor, _: Any) -> Tensor:
    return torch.full_like(found.factor, 1 / (found.grid[0] * found.grid[1] * max(len(found.groups.order), 1)))


def _root_of_area(found: HeldMasks, corners: Tensor, image_size: tuple[int, int]) -> Tensor:
    return found.factor * ((corners[:, 2:] - corners[:, :2]).prod(1) / (image_size[0] * image_size[1])).sqrt()


def _any_instance(sound: Any, self: Any, row: Tensor, image: int, pixel: Tensor) -> Any:
    return self.values[image].reshape(-1)[pixel] != 0 if self.place is not None else sound(self, row, image, pixel)


def _shifted(by: int) -> Any:
    def at(sound: Any, self: Any, row: Tensor, image: int, pixel: Tensor) -> Any:
        return sound(self if self.place is None else replace(self, place=self.place + by), row, image, pixel)

    return at


def _row_of_batch(sound: Any, self: Any, row: Tensor, image: int, pixel: Tensor) -> Any:
    return sound(self if self.place is None else replace(self, place=torch.arange(len(self.place))), row, image, pixel)


def _first_of_image(sound: Any, self: Any, row: Tensor, image: int, pixel: Tensor) -> Any:
    return sound(self, row if self.place is not None else row * 0 + row.min(), image, pixel)


def _transposed(sound: Any, self: Any, row: Tensor, image: int, pixel: Tensor) -> Any:
    height, width = self.grid
    y, x = pixel // width, pixel % width
    return sound(self, row, image, x.clamp(max=height - 1) * width + y.clamp(max=width - 1))


def _flipped(sound: Any, self: Any, row: Tensor, image: int, pixel: Tensor) -> Any:
    width = self.grid[1]
    return sound(self, row, image, pixel // width * width + width - 1 - pixel % width)


def _along(*, corners: bool = False, unclamped: bool = False, nearest: bool = False) -> Make:
    """Returns a replacement of the two neighbours of a resized axis."""

    def along_axis(place: Tensor, size: int, resized: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        at = (place.to(dtype) + 0.5) * (size / resized) - 0.5
        if corners:
            at = place.to(dtype) * ((size - 1) / max(resized - 1, 1))
        if nearest:
            at = ((place.to(dtype) + 0.5) * (size / resized)).floor()
        at = at if unclamped else at.clamp(min=0)
        near = at.floor()
        index = near.to(torch.int64).clamp(min=0, max=size - 1)
        return index, (index + 1).clamp(max=size - 1), at - near

    return lambda _: along_axis


def _on_prototypes_grid(sound: Any, at: Any) -> Tensor:
    """Resizes the masks to the prototypes' grid, as before 8.4.0."""
    extras = at.call.extras
    if len(at):
        resized = interpolate(extras["masks"][None].to(torch.float32), size=extras["proto"].shape[2:], mode="nearest")[0]
        at = copy.copy(at)
        at.call = replace(at.call, extras={**extras, "masks": resized.to(extras["masks"].dtype)})
    return sound(at)  # type: ignore[no-any-return]


def _lowest_class_background(sound: Any, sem_masks: Tensor, covered: Tensor, grid: Any) -> Any:
    return sound(sem_masks, covered & (sem_masks.trunc() != 0), grid)


def _detached(key: str) -> tuple[Patch, ...]:
    place = ("mask_coefficient", "proto").index(key)

    def change(*both: Tensor) -> tuple[Tensor, ...]:
        return tuple(one * 0 + one.detach() if n == place else one for n, one in enumerate(both))

    return inputs(change)


_CROP = "Pixel (c, r) is inside when x1 ≤ c < x2 and y1 ≤ r < y2, comparing the integers themselves."
_AREA = "ℓ_i is divided by a_j, the area of the whole box as a fraction of the image's."
_MEAN = "Mask term = (1 / n) Σ_F ℓ_i, n = |F| over the whole batch; all held anchors weigh the same."
_TARGET = "The target is 1 where the index map of the image equals j + 1, or the mask of the box itself."
_LOGITS = "x_i = Σ_k coefficient_ik · proto_bk."
_BILINEAR = "Prototypes are resized to the masks' grid by bilinear interpolation: u = max((i + ½)·m/m′ − ½, 0)."
_SEMANTIC = "Semantic term = ½ BCE + ½ Dice."
_DICE = "Dice is the mean over image-class pairs of 1 − (2 Σ σ·y + 1) / (Σ σ + Σ y + 1)."
_COVER = "y is 1 where k is the class and some instance covers the pixel."
_GAINED = "Gains box, box, cls, dfl, box; each times B."
_NEAREST = "Nearest: output i takes input ⌊i·m/m′⌋."
_FLOWS = "The semantic term's gradient flows to the semantic logits."
_GRADIENT = "The mask term's gradients flow to coefficients of held anchors and to prototypes."


def _fault(name: str, violates: str, section: str, patches: tuple[Patch, ...]) -> Fault:
    return Fault(name, violates, section, patches=patches, task="segment")


ENTRIES: tuple[Fault, ...] = (
    _fault("crop rounded to whole pixels", _CROP, "4", borders(lambda corners: corners.round())),
    _fault("crop of every pixel that the box touches", _CROP, "4", borders(lambda c: torch.cat([c[:, :2].floor(), c[:, 2:]], 1))),
    _fault("crop with the pixel at its right border", _CROP, "4", borders(lambda c: torch.cat([c[:, :2], c[:, 2:].floor() + 1], 1))),
    _fault("crop by pixel centres", _CROP, "4", borders(lambda corners: corners - 0.5)),
    _fault("crop one pixel wider", _CROP, "4", borders(lambda corners: corners + corners.new_tensor([-1, -1, 1, 1]))),
    _fault("crop with columns and rows exchanged", _CROP, "4", borders(lambda corners: corners[:, [1, 0, 3, 2]])),
    _fault("mean over the pixels kept", _AREA, "4", factors(_pixels_kept)),
    _fault("area of the clipped box", _AREA, "4", factors(_clipped_area)),
    _fault("area in whole mask pixels", _AREA, "4", factors(_areas_as_pixels)),
    _fault("no division by the area", _AREA, "4", factors(_undivided)),
    _fault("square root of the area", _AREA, "4", factors(_root_of_area)),
    _fault("mean of the images' means", _MEAN, "4", each(_per(lambda at: at.image))),
    _fault("mean of the instances' means", _MEAN, "4", each(_per(lambda at: at.row))),
    _fault("mask term divided by the number of images", _MEAN, "4", each(lambda loss, at: loss.sum() / len(at.call.boxes))),
    _fault("mask term divided by S", _MEAN, "4", each(lambda loss, at: loss.sum() / at.normaliser)),
    _fault("anchors of the mask term weighed by t", _MEAN, "4", each(lambda loss, at: (loss * at.weight).sum() / at.normaliser)),
    _fault("anchors of small t left out of the mask term", _MEAN, "4", each(_of_weight)),
    _fault("no mask term after the first empty image", _MEAN, "4", each(_up_to_first_empty_image)),
    _fault("no mask term of the last image", _MEAN, "4", each(_without_last_image)),
    _fault("index j for j + 1", _TARGET, "4", true_masks(_shifted(-1))),
    _fault("index j + 2 for j + 1", _TARGET, "4", true_masks(_shifted(1))),
    _fault("index of the row of the batch", _TARGET, "4", true_masks(_row_of_batch)),
    _fault("target of any instance", _TARGET, "4", true_masks(_any_instance)),
    _fault("mask of the first box of a chunk", _TARGET, "4", true_masks(_first_of_image)),
    _fault("masks transposed", _TARGET, "4", true_masks(_transposed)),
    _fault("masks flipped", _TARGET, "4", true_masks(_flipped)),
    _fault("coefficients through tanh", _LOGITS, "4", inputs(lambda c, p: (c.tanh(), p))),
    _fault("prototypes rectified", _LOGITS, "4", inputs(lambda c, p: (c, p.relu()))),
    _fault("last prototype left out", _LOGITS, "4", inputs(_without_last)),
    _fault("prototypes of the first image", _LOGITS, "4", inputs(lambda c, p: (c, p[:1] + 0 * p))),
    _fault("prototypes resized by nearest", _BILINEAR, "4", (Patch(sampling, "along_axis", _along(nearest=True)),)),
    _fault("prototypes resized with aligned corners", _BILINEAR, "4", (Patch(sampling, "along_axis", _along(corners=True)),)),
    _fault("interpolation beyond the first pixel", _BILINEAR, "4", (Patch(sampling, "along_axis", _along(unclamped=True)),)),
    _fault("no gradient of the coefficients", _GRADIENT, "8", _detached("mask_coefficient")),
    _fault("no gradient of the prototypes", _GRADIENT, "8", _detached("proto")),
    _fault("mask term without the number of images", _GAINED, "6", scaled("mask", lambda at: 1 / len(at.call.boxes))),
    _fault("mask term with the gain of the classes", _GAINED, "6", scaled("mask", _gain_of_classes)),
    _fault("mask term twice", _GAINED, "6", scaled("mask", lambda _: 2.0)),
    _fault("semantic term without the number of images", _GAINED, "6", scaled("semantic", lambda at: 1 / len(at.call.boxes))),
    _fault("semantic term without Dice", _SEMANTIC, "5", semantic_terms(halves(dice=0.0))),
    _fault("sum of the semantic halves", _SEMANTIC, "5", semantic_terms(halves(entropy=1.0, dice=1.0))),
    _fault("Dice smoothed by 1e-6", _DICE, "5", semantic_terms(halves(smooth=1e-6))),
    _fault("Dice over the whole batch", _DICE, "5", semantic_terms(halves(batch=True))),
    _fault("Dice of squares", _DICE, "5", semantic_terms(halves(squares=True))),
    _fault("class 0 as background", _COVER, "5", class_maps(_lowest_class_background)),
    _fault("classes without cover", _COVER, "5", class_maps(lambda sound, s, covered, grid: sound(s, torch.ones_like(covered), grid))),
    _fault("semantic target resized from the centres", _NEAREST, "4", (Patch(semantic, "nearest", lambda _: _nearest_centre),)),
    _fault("no gradient of the semantic logits", _FLOWS, "8", term("semantic", lambda sound, at: sound(at).detach() + sound(at) * 0)),
    _fault("masks on the prototypes' grid", "Prototypes are resized to the masks' grid.", "4", term("mask", _on_prototypes_grid)),
    *segment_overlap.ENTRIES,
)  # fmt: skip
