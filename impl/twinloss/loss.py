"""The detection loss as users call it; :mod:`twinloss.backends` computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from twinloss.assignment import PAIRS_AT_ONCE, Assignment, Conflicts, PairMetrics, Ties
from twinloss.backends import torch as torch_backend
from twinloss.backends.call import Call
from twinloss.backends.registry import BackendName, choose_backend
from twinloss.geometry.upright import decode_boxes
from twinloss.inputs import admit, admit_assignment, layout_of, pyramid_of
from twinloss.plain_numbers import whole
from twinloss.spec import LossSpec
from twinloss.targets import GroundTruth
from twinloss.terms.classification import working_dtype

Batch = Mapping[str, Tensor]
Predictions = Mapping[str, Any] | Sequence[Tensor]


class DetectionLoss:
    """Anchors, ground truth, decoding, task-aligned assignment, and the box, classification and distribution terms.

    Args:
        spec: the definition's numbers.
        ties: "stable" is deterministic on every device; "reference" reproduces the choice that ``torch.topk`` makes among equals (spec
            section 9).
        conflicts: "overlap" gives an anchor that several boxes picked to the candidate box of largest overlap, as the reference does;
            "pickers" chooses among the boxes that picked it.
        validate: ``True`` checks the targets' values wherever they are, at the cost of a synchronisation on a GPU; ``False`` never does;
            ``None`` does when they are on the host.
        pairs_at_once: candidate pairs judged at once on torch, which bounds the scratch memory of crowded batches (150 bytes a pair); the
            kernels keep no pairs. It decides nothing but where metrics are equal to their rounding: torch's vectorised functions round a
            number otherwise at the end of a tensor than before it, so that weights may differ in their last bits.
        backend: "auto" runs the Triton kernels on CUDA logits and the native ones on logits on the host, where they can serve them, and
            torch on all others; "torch", "native" and "triton" are taken at their word. Stages called alone always run on torch.

    Logits may be float16, bfloat16, float32 or float64. Arithmetic is float32 or better (float64 for float64 logits), inside autocast and
    outside; gradients come back in the logits' dtype (spec section 8a).

    Targets are data: they are copied at the call, so that changing the batch afterwards changes nothing, and no gradient is passed to them
    (nor to the weights of a given assignment), whether they ask for one or not. Logits are not copied; changing them before the backward
    pass is an error, as anywhere in torch. The loss can be differentiated once: its gradients have none of their own.
    """

    def __init__(
        self,
        spec: LossSpec,
        *,
        ties: Ties = "stable",
        conflicts: Conflicts = "overlap",
        validate: bool | None = None,
        pairs_at_once: int = PAIRS_AT_ONCE,
        backend: BackendName = "auto",
    ) -> None:
        choices = {
            "ties": (ties, ("stable", "reference")),
            "conflicts": (conflicts, ("overlap", "pickers")),
            "backend": (backend, get_args(BackendName)),
            "validate": (validate, (None, True, False)),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, known))}")
        self.spec = spec
        self.ties: Ties = ties
        self.conflicts: Conflicts = conflicts
        self.validate = validate
        self.pairs_at_once = whole("pairs_at_once", pairs_at_once)
        self.backend: BackendName = backend

    def __call__(self, preds: Predictions, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        Args:
            preds: ``boxes`` (B, 4R, A) and ``scores`` (B, C, A) logits and ``feats``, per-level maps of which the shapes alone are used;
                or the older list of per-level maps (B, 4R + C, H_l, W_l).
            batch: ``batch_idx`` (N,), ``cls`` (N,) or (N, 1), ``bboxes`` (N, 4) as centre and size divided by the image's width and height.

        Returns:
            (3,): box, classification and distribution (R = 1: distance) term, each times its gain and the number of images; and the same
            three without the number of images, detached, by name.

        Raises:
            TypeError: an input is no tensor.
            ValueError: an input is not what it must be, or the backend that was asked for cannot serve it; the message names the row or
                the shapes or the reason, and the remedy.
        """
        call = self._call(preds, batch)
        evaluation = choose_backend(self.backend, call).loss(call)
        return evaluation.loss, evaluation.items

    def assign(self, preds: Predictions, batch: Batch) -> Assignment:
        """The assignment alone (spec section 5)."""
        call = self._call(preds, batch)
        return choose_backend(self.backend, call).assignment(call)

    def loss_given(self, preds: Predictions, batch: Batch, assignment: Assignment) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on an assignment made elsewhere, whose weights are data, without a gradient (spec sections 6 and 7).

        Raises:
            ValueError: as :meth:`__call__`; or the assignment's columns disagree, or an entry of it is not what it must be.
        """
        call = self._call(preds, batch)
        evaluation = choose_backend(self.backend, call).loss(call, admit_assignment(assignment, call, self.validate))
        return evaluation.loss, evaluation.items

    def anchors(self, preds: Predictions) -> tuple[Tensor, Tensor]:
        """Centres (A, 2) in grid units and strides (A,) in pixels (spec section 2)."""
        layout = layout_of(preds, self.spec)
        return torch_backend.anchors(pyramid_of(layout, self.spec), layout["boxes"])

    def targets(self, preds: Predictions, batch: Batch) -> GroundTruth:
        """Prepared ground truth (spec section 3)."""
        with torch_backend.evaluate(self._call(preds, batch)) as evaluation:
            return evaluation.truth

    def decode(self, preds: Predictions) -> Tensor:
        """Predicted corners (B, A, 4) in grid units, in the working dtype (spec section 4)."""
        boxes = layout_of(preds, self.spec)["boxes"]
        with torch.autocast(boxes.device.type, enabled=False):  # the expectation is a matrix product, which autocast would round
            return decode_boxes(boxes.to(working_dtype(boxes)), self.anchors(preds)[0], self.spec.reg_max)

    def metrics(self, preds: Predictions, batch: Batch) -> PairMetrics:
        """Every candidate pair with overlap and alignment metric (spec sections 5.1 to 5.3); ``row`` counts the batch's rows."""
        with torch_backend.evaluate(self._call(preds, batch)) as evaluation, torch.no_grad():
            return evaluation.pairs()

    def _call(self, preds: Predictions, batch: Batch) -> Call:
        options = {"conflicts": self.conflicts, "ties": self.ties, "pairs_at_once": self.pairs_at_once}
        return admit(preds, batch, self.spec, self.validate, **options)
