"""The instance-segmentation loss by its definition, in float64, written to be read against the specification sentence by sentence.

Numbers in brackets are sections of the instance-segmentation specification; those of :mod:`oracle.definition.criterion` are of the
detection specification, whose box, classification and distribution terms this loss shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.definition.criterion import ExactCriterion, Grid, GroundTruth, Held, Scene
from oracle.definition.mask_checks import check_mask_predictions, check_masks, check_semantic_masks, proto_and_semantic
from oracle.definition.mask_formulas import (
    Size,
    dice_loss,
    entropy,
    inside_crop,
    mask_iou,
    mask_loss,
    resized_bilinear,
    resized_nearest,
    rounded_borders,
    semantic_target,
    size_of,
)
from twinloss import SegmentationSpec

FEW = 50  # [13] Held anchors of an image.


@dataclass(frozen=True)
class MaskInputs:
    """What the mask terms read of a batch.

    Attributes:
        coefficients: (B, A, P) in float64, with their gradient.
        prototypes: (B, P, h_p, w_p) in float64, with their gradient.
        semantic: (B, C, h_s, w_s) logits in float64, or ``None``.
        masks: (B, h, w) index maps or (N, h, w) instance masks.
        index_maps: which of the two.
        image: (N,) image of each row of the batch.
    """

    coefficients: Tensor
    prototypes: Tensor
    semantic: Tensor | None
    masks: Tensor
    index_maps: bool
    image: Tensor

    def instance(self, row: int) -> Tensor:
        """[4] y (h, w) of a row of the batch: 1 where the map equals j + 1, or its mask, fractions included."""
        return self.shows(self.masks[self.image[row]], row).double() if self.index_maps else self.masks[row].double()

    def shows(self, index_map: Tensor, row: int) -> Tensor:
        """[4] Where an index map, in any dtype, equals j + 1; a map of bytes shows none of the boxes after the 255th."""
        return index_map.double() == self.place(row) + 1

    def place(self, row: int) -> int:
        """[0] j: how many rows of the same image arrived before this one."""
        return int((self.image[:row] == self.image[row]).sum())

    def true_mask(self, row: int) -> Tensor:
        """[3.3] The mask of a row on the prototypes' grid: resized by nearest, then equal to j + 1, or above 0.5."""
        masks = self.masks[self.image[row]] if self.index_maps else self.masks[row]
        resized = resized_nearest(masks, size_of(self.prototypes))
        return self.shows(resized, row) if self.index_maps else resized > 0.5

    def covered(self) -> Tensor:
        """[5] Pixels (B, h, w) of some instance: index not 0, or a sum of the image's instance masks that is not 0."""
        if self.index_maps:
            return self.masks != 0
        sums = [self.masks[self.image == b].double().sum(0) for b in range(len(self.prototypes))]
        return torch.stack(sums) != 0


class ExactSegmentation(ExactCriterion):
    """The instance-segmentation loss by its definition, in float64.

    Under ``ties="stable"`` an assignment holds the anchors of positive metric; under ``"reference"`` also those held with weight 0,
    which count in the mask term as much as any [4], [9].

    Args:
        spec: the numbers of the definition.
        ties: as for :class:`~oracle.definition.criterion.ExactCriterion`.
        conflicts: likewise.
    """

    spec: SegmentationSpec
    counts_weightless = True  # In the mask term.

    def mask_inputs(self, preds: Preds, batch: Batch) -> MaskInputs:
        """[1] Returns the checked inputs of the mask terms of a batch with boxes.

        Raises:
            ValueError: see :mod:`oracle.definition.mask_checks`.
        """
        check_mask_predictions(preds, self.spec.num_classes)
        check_masks(batch, len(preds["scores"]), self.spec.overlap_mask)
        proto, semantic = proto_and_semantic(preds["proto"])
        masks = batch["masks"].to(proto.device)
        return MaskInputs(
            coefficients=preds["mask_coefficient"].double().transpose(1, 2),
            prototypes=proto.double(),
            semantic=None if semantic is None else semantic.double(),
            masks=resized_nearest(masks, size_of(proto)) if self.spec.mask_grid == "prototypes" else masks,
            index_maps=self.spec.overlap_mask,
            image=batch["batch_idx"].reshape(-1).long().to(proto.device),
        )

    def pair_overlap(self, scene: Scene, image: int, rows: Tensor, candidate: Tensor) -> Tensor:
        """[3] Overlap (M, A) of candidate pairs: max(CIoU, 0), or its mean with the IoU of the masks."""
        overlap = super().pair_overlap(scene, image, rows, candidate)
        if not self.spec.mask_aware or len(rows) == 0:
            return overlap
        masks = self.mask_inputs(scene.preds, scene.batch)
        probability = scene.probability[image][:, scene.truth.label[rows]].T
        preselected = self.preselected(candidate, probability, overlap)
        iou = torch.zeros_like(overlap)
        for j, row in enumerate(rows.tolist()):
            anchors = preselected[j].nonzero().reshape(-1)
            predicted = predicted_masks(masks, scene, image, anchors)
            iou[j, anchors] = mask_iou(predicted, masks.true_mask(row).expand_as(predicted))
        return (overlap + iou) / 2

    def preselected(self, candidate: Tensor, probability: Tensor, overlap: Tensor) -> Tensor:
        """[3.1] Candidates (M, A) among the min(3K, A) anchors of largest q in each box's row of all anchors."""
        spec = self.spec
        q = torch.where(candidate, probability**spec.alpha * overlap**spec.beta + spec.assign_eps, 0.0)
        largest = torch.zeros_like(candidate)
        for j, row in enumerate(q):
            largest[j, self.largest(row, 3 * spec.topk)] = True
        return largest & candidate

    def largest(self, row: Tensor, count: int) -> Tensor:
        """[3.1], [9] Anchors of the ``count`` largest numbers of a row (A,), under the criterion's rule for ties."""
        return self._largest(row, count)

    def extra_terms(self, preds: Preds, batch: Batch, grid: Grid, truth: GroundTruth, held: Held) -> dict[str, Tensor]:
        """[4], [5], [7] The mask term and the semantic term; both are 0 where nothing is held, with gradients of 0."""
        proto, semantic = proto_and_semantic(preds["proto"])
        nothing = sum((part.double().flatten()[:0].sum() for part in (preds["mask_coefficient"], proto)), torch.zeros(()))
        no_semantic = (semantic if semantic is not None else proto.new_zeros(0)).double().flatten()[:0].sum()
        if len(truth.image):
            masks = self.mask_inputs(preds, batch)
        if len(held.row) == 0:
            return {"mask": nothing, "semantic": no_semantic}
        return {
            "mask": nothing + mask_term(masks, held, truth.corners[held.row], grid, self.spec.crop),
            "semantic": no_semantic if semantic is None or not self.spec.semantic_term else self.semantic_term(masks, batch),
        }

    def semantic_term(self, masks: MaskInputs, batch: Batch) -> Tensor:
        """[5] Half the mean entropy plus half the mean Dice loss of the semantic logits."""
        assert masks.semantic is not None
        covered = masks.covered()
        check_semantic_masks(batch, covered, self.spec.num_classes)
        target = semantic_target(batch["sem_masks"].to(covered.device), covered, self.spec.num_classes)
        target = resized_nearest(target, size_of(masks.semantic))
        return entropy(masks.semantic, target).mean() / 2 + dice_loss(masks.semantic, target).mean() / 2


def predicted_masks(masks: MaskInputs, scene: Scene, image: int, anchors: Tensor) -> Tensor:
    """[3.2] Predicted masks (n, h_p, w_p) of anchors: logits above 0, cropped to the predicted box in pixels times h_p / H."""
    logits = torch.einsum("np,pyx->nyx", masks.coefficients[image, anchors], masks.prototypes[image])
    corners = scene.predicted[image, anchors] * (logits.shape[1] / scene.grid.height)
    return (logits > 0) & inside_crop(corners, size_of(logits))


def mask_term(masks: MaskInputs, held: Held, corners: Tensor, grid: Grid, crop: str = "exact") -> Tensor:
    """[4] Mean of the held anchors' losses, which all weigh the same, on the masks' grid; ``corners`` (H, 4) are of the ground truth.

    [13] With another ``crop`` than "exact" the borders are rounded on the CPU in an image that holds fewer than 50 anchors.
    """
    size, prototypes = size_of(masks.masks), masks.prototypes
    if size_of(prototypes) != size:
        prototypes = resized_bilinear(prototypes, size)
    borders = corners_in_mask_units(corners, grid, size)
    if crop != "exact" and borders.device.type == "cpu":
        few = torch.bincount(held.image)[held.image] < FEW
        borders = borders.where(~few[:, None], rounded_borders(borders, size, wrap=crop == "wrapped"))
    crops, area = inside_crop(borders, size), areas(corners.double(), grid)
    coefficients, prototypes_of = masks.coefficients[held.image, held.anchor], prototypes.unbind()
    losses = []
    for row in held.row.unique().tolist():
        own = (held.row == row).nonzero().reshape(-1)
        image, inside = int(masks.image[row]), crops[own[0]]
        logits = coefficients[own] @ prototypes_of[image][:, inside]
        losses.append(mask_loss(logits, masks.instance(row)[inside], size[0] * size[1], area[own[0]]))
    return torch.cat(losses).mean()


def corners_in_mask_units(corners: Tensor, grid: Grid, size: Size) -> Tensor:
    """[4], [9] Corners (n, 4) of the ground truth in pixels, divided by W or H, then times w or h, in their dtype."""
    image, mask = ((width, height, width, height) for height, width in ((grid.height, grid.width), size))
    return corners / corners.new_tensor(image) * corners.new_tensor(mask)


def areas(corners: Tensor, grid: Grid) -> Tensor:
    """[4] a_j (n,): width / W times height / H of boxes (n, 4), also of the part outside of the image."""
    x1, y1, x2, y2 = corners.unbind(1)
    return (x2 - x1) / grid.width * ((y2 - y1) / grid.height)
