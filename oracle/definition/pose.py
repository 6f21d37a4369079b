"""The pose losses of both generations in float64, written to be read against their specification sentence by sentence.

Numbers in brackets are sections of the specification of the pose loss; D.5 is section 5 of the detection loss's. What is not replaced here
is as in :class:`~oracle.definition.criterion.ExactCriterion`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from oracle.cases.tasks.flow import Flow
from oracle.contract.contender import Batch, Preds
from oracle.definition import keypoints
from oracle.definition.assignment_trace import UNASSIGNED, ImageTrace
from oracle.definition.criterion import ExactCriterion, Grid, GroundTruth, Held, Scene
from oracle.definition.input_checks import check_keypoint_predictions, check_keypoints
from twinloss import PoseSpec


class Keypoints(NamedTuple):
    """Target keypoints (N, n, 2) in pixels, and which of them are visible (N, n); those that are not are 0."""

    pixels: Tensor
    visible: Tensor


class ExactPose(ExactCriterion):
    """The pose loss by its definition, in float64, on the device of its inputs.

    Args:
        spec: the numbers of the definition, and its generation.
        ties: as for :class:`ExactCriterion`. With ``"reference"`` the assignment has the reference's members of weight 0, which count in
            the keypoint terms [5, 9].
        conflicts: as for :class:`ExactCriterion`.
        flow: the log-density of normalised errors, (P, 2) to (P,); needed where ``spec.flow`` is true [6].
    """

    spec: PoseSpec
    counts_weightless = True  # [5], [9] In the keypoint terms.

    def __init__(
        self,
        spec: PoseSpec,
        ties: Literal["stable", "reference"] = "stable",
        conflicts: Literal["overlap", "pickers"] = "overlap",
        *,
        flow: Flow | None = None,
    ) -> None:
        super().__init__(spec, ties, conflicts)
        if spec.flow and flow is None:
            raise ValueError("the definition has a likelihood term: give the flow as flow=...")
        self.flow = flow

    def keypoints(self, batch: Batch, grid: Grid) -> Keypoints:
        """[1], [2] Target keypoints in pixels; with two numbers a keypoint all are visible, with three those whose third is not 0."""
        check_keypoints(batch, self.spec.keypoint_shape[0])
        given = batch["keypoints"].to(grid.centres.device).double() if len(batch["bboxes"]) else self._no_keypoints(grid)
        visible = given[..., 2] != 0 if given.shape[-1] == 3 else torch.ones_like(given[..., 0], dtype=torch.bool)
        pixels = given[..., :2] * torch.tensor([grid.width, grid.height], dtype=torch.float64, device=given.device)
        return Keypoints(pixels.where(visible[..., None], 0.0), visible)

    def _no_keypoints(self, grid: Grid) -> Tensor:
        return torch.zeros(0, self.spec.keypoint_shape[0], 2, dtype=torch.float64, device=grid.centres.device)

    def raw_keypoints(self, preds: Preds) -> Tensor:
        """[1] Raw numbers (B, A, n, E); channel = keypoint · E + component."""
        check_keypoint_predictions(preds, self.spec.keypoint_shape)
        raw: Tensor = preds["kpts"].double().transpose(1, 2).unflatten(2, self.spec.keypoint_shape)
        return raw

    def constants(self, batch: Batch) -> Tensor:
        """[4] 8σ_k² (n,)."""
        double = batch["bboxes"].dtype == torch.float64
        return keypoints.squared_constants(self.spec.sigmas, self.spec.keypoint_shape, torch.float64 if double else torch.float32)

    @property
    def by_keypoints(self) -> bool:
        """[4] Whether the assigner compares keypoints: in the second generation, but for its older definitions [12]."""
        return self.spec.generation == 2 and self.spec.keypoint_aware

    def candidates(self, scene: Scene, image: int, rows: Tensor, border: Tensor) -> Tensor:
        """[4.1] First generation: D.5. Second: also those of fitting levels alone, where that leaves the box any candidate."""
        inside = super().candidates(scene, image, rows, border)
        if not self.by_keypoints:
            return inside
        extent = keypoints.extents(scene.truth.corners[rows].double())
        fitting = inside & keypoints.large_enough(extent, scene.grid.strides) & keypoints.small_enough(extent, scene.grid.strides)
        return torch.where(fitting.any(1, keepdim=True), fitting, inside)

    def pair_overlap(self, scene: Scene, image: int, rows: Tensor, candidate: Tensor) -> Tensor:
        """[4.2] Second generation: the keypoint similarity, for a box with a visible keypoint; else D's overlap."""
        overlap = super().pair_overlap(scene, image, rows, candidate)
        return self._logarithms(scene, image, rows, candidate, overlap).exp() if self.by_keypoints else overlap

    def ranks(self, scene: Scene, image: int, rows: Tensor, candidate: Tensor, overlap: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
        """[9] Second generation: a similarity is positive however small, and ranks by its logarithm, so that no dtype decides what is 0.

        With ``ties="reference"`` it ranks by its value, as in the reference. A number x is kept as 1 / (1 − log x), which is 0 for 0.
        """
        if not self.by_keypoints or self.ties == "reference":
            return overlap, metric
        logarithm = self._logarithms(scene, image, rows, candidate, overlap)
        probability = torch.nn.functional.logsigmoid(scene.preds["scores"][image].double()[scene.truth.label[rows]])
        aligned = torch.where(candidate, self._power(probability, self.spec.alpha) + self._power(logarithm, self.spec.beta), -torch.inf)
        return 1 / (1 - logarithm), 1 / (1 - aligned)

    @staticmethod
    def _power(logarithm: Tensor, exponent: float) -> Tensor:
        """Returns the logarithm of a power, 0 for an exponent of 0."""
        return logarithm * exponent if exponent else torch.zeros_like(logarithm)

    def counts(self, trace: ImageTrace) -> Tensor:
        """[5], [9] A held anchor counts in the keypoint terms, whatever its weight: in the second generation this may underflow."""
        return trace.holder != UNASSIGNED if self.by_keypoints else super().counts(trace)

    def _logarithms(self, scene: Scene, image: int, rows: Tensor, candidate: Tensor, boxes: Tensor) -> Tensor:
        """Returns log o (M, A) of candidate pairs, −∞ elsewhere; ``boxes`` is D's overlap, for boxes without a visible keypoint."""
        overlap = boxes.log()
        if not len(rows):
            return overlap
        target = self.keypoints(scene.batch, scene.grid)
        area, constants = keypoints.areas(scene.truth.corners[rows].double()), self.constants(scene.batch).to(overlap.device)
        raw = self.raw_keypoints(scene.preds)[image]
        predicted = keypoints.decoded_keypoints(raw, scene.grid.centres, 2) * scene.grid.strides[:, None, None]
        for j, row in enumerate(rows.tolist()):
            if target.visible[row].any():
                (anchor,) = candidate[j].nonzero(as_tuple=True)
                overlap[j] = -torch.inf
                overlap[j, anchor] = keypoints.log_similarity(
                    predicted[anchor], target.pixels[row], target.visible[row], area[j], constants
                )
        return overlap

    def extra_terms(self, preds: Preds, batch: Batch, grid: Grid, truth: GroundTruth, held: Held) -> dict[str, Tensor]:
        """[6] The keypoint terms, over held anchors of any weight, in grid units of each anchor's level."""
        target = self.keypoints(batch, grid)
        raw = self.raw_keypoints(preds)[held.image, held.anchor]
        predicted = keypoints.decoded_keypoints(raw, held.centres, self.spec.generation)
        stride = held.strides[:, None, None]
        wanted, visible = target.pixels[held.row] / stride, target.visible[held.row]
        area = keypoints.areas(held.corners) / held.strides**2
        count = max(len(held.row), 1)  # [6] |F|; without held anchors the sums are 0
        location = keypoints.location_costs(predicted, wanted, visible, area, self.constants(batch).to(area.device))
        terms = {
            "pose": location.sum() / count,
            "kobj": raw.new_zeros(()) if self.spec.keypoint_shape[1] == 2 else self._visibility(raw, visible),
        }
        if self.spec.flow:
            terms["likelihood"] = self._likelihood(preds, held, predicted, wanted, visible)
        return terms

    def _visibility(self, raw: Tensor, visible: Tensor) -> Tensor:
        """[6] Mean over all keypoints of held anchors, visible or not."""
        return keypoints.visibility_costs(raw[..., 2], visible).sum() / max(visible.numel(), 1)

    def _likelihood(self, preds: Preds, held: Held, predicted: Tensor, wanted: Tensor, visible: Tensor) -> Tensor:
        """[6] rle = max(ℓ, 0), over pairs of a held anchor and a visible keypoint, without those of an infinite error."""
        if preds.get("kpts_sigma") is None:
            return predicted.new_zeros(())
        assert self.flow is not None
        # [3] The floor is that of the dtype of the raw number, which a criterion with a leaf_dtype gets widened; feats have kept theirs.
        floor = float(torch.finfo(preds["feats"][0].dtype).tiny)
        raw = preds["kpts_sigma"].double().transpose(1, 2).unflatten(2, (-1, 2))[held.image, held.anchor]
        deviation = keypoints.deviations(raw, floor)[visible]
        finite = ~predicted[visible].isinf().any(1)
        entry, keypoint = (index[finite] for index in visible.nonzero(as_tuple=True))
        weight = keypoints.likelihood_weights(self.spec.keypoint_shape).to(raw.device)[keypoint]
        errors = keypoints.normalised_errors(predicted[entry, keypoint], wanted[entry, keypoint], deviation[finite])
        mean = keypoints.likelihood(deviation[finite], errors, weight, self.flow.log_prob)
        return mean.clamp(min=0)
