"""The losses as users call them, one class a task; :mod:`twinloss.backends` computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from twinloss.assignment.assign import PAIRS_AT_ONCE, Assignment, Conflicts, PairMetrics
from twinloss.assignment.ground_truth import GroundTruth
from twinloss.assignment.overlaps import Ties
from twinloss.backends import evaluate as mixed
from twinloss.backends import torch as torch_backend
from twinloss.backends.call import Call, Flow
from twinloss.backends.registry import BackendName, choose_backend
from twinloss.geometry.registry import GEOMETRIES
from twinloss.inputs.admission import admit, admit_assignment, layout_of, pyramid_of
from twinloss.inputs.numbers import whole
from twinloss.operators import traced
from twinloss.operators.definition import structure, text_of
from twinloss.spec import LossSpec
from twinloss.task_specs import OrientedSpec, PoseSpec, SegmentationSpec
from twinloss.terms.classification import working_dtype

Batch = Mapping[str, Tensor]
Predictions = Mapping[str, Any] | Sequence[Any]


class TaskLoss:
    """What the losses of all tasks have in common; :class:`DetectionLoss` and its like say what is their own.

    Args:
        spec: the definition's numbers, of the loss's own task.
        ties: "stable" is deterministic on every device; "reference" reproduces the choice that ``torch.topk`` makes among equals (spec
            section 9).
        conflicts: "overlap" gives an anchor that several boxes picked to the candidate box of largest overlap, as the reference does;
            "pickers" chooses among the boxes that picked it.
        validate: ``True`` checks the targets' values wherever they are, at the cost of a synchronisation on a GPU; ``False`` never does;
            ``None`` does when they are on the host. Unchecked, a row whose image or class does not exist counts for nothing.
        pairs_at_once: candidate pairs judged at once on torch, which bounds the scratch memory of crowded batches (150 bytes a pair); the
            kernels keep no pairs. It decides nothing but where metrics are equal to their rounding: torch's vectorised functions round a
            number otherwise at the end of a tensor than before it, so that weights may differ in their last bits.
        backend: "auto" runs the Triton kernels on CUDA logits and the native ones on logits on the host, where they can serve them, and
            torch on all others; "torch", "native" and "triton" are taken at their word. Stages called alone always run on torch.

    Logits may be float16, bfloat16, float32 or float64. Arithmetic is float32 or better (float64 for float64 logits), inside autocast and
    outside; gradients come back in the logits' dtype (spec section 8a).

    Targets are data: they are copied at the call, so that changing the batch afterwards changes nothing, and no gradient is passed to them
    (nor to the weights of a given assignment), whether they ask for one or not. Logits are not copied: changing them before the backward
    pass raises an error where that pass reads them, and changes nothing where it does not. The loss can be differentiated once: its
    gradients have none of their own, and asking for those is an error.

    While ``torch.compile`` or ``torch.export`` traces, a call is one operator (:mod:`twinloss.operators`), which saves the targets rather
    than copies them.

    Raises:
        ValueError: an option is unknown, or the definition is another task's; the message names it.
    """

    task: ClassVar[type[LossSpec]] = LossSpec
    flow: Flow | None = None

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
        self.spec = spec  # a property, whose texts a tracer takes for constants
        self.ties: Ties = ties
        self.conflicts: Conflicts = conflicts
        self.validate = None if validate is None else bool(validate)
        self.pairs_at_once = whole("pairs_at_once", pairs_at_once)
        self.backend: BackendName = backend

    def __call__(self, preds: Predictions, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        Args:
            preds: ``boxes`` (B, 4R, A) and ``scores`` (B, C, A) logits and ``feats``, per-level maps of which the shapes alone are used,
                and what the task adds; or the older layout, a list of per-level maps (B, 4R + C, H_l, W_l), with those after it.
            batch: ``batch_idx`` (N,), ``cls`` (N,) or (N, 1), ``bboxes`` (N, 4) as centre and size divided by the image's width and height
                (of oriented boxes (N, 5), with the angle), and what the task adds.

        Returns:
            (T,): the terms in the order of ``spec.term_names``, each times its gain and the number of images; and the same without the
            number of images, detached, by name. Detection's are the box, classification and distribution (R = 1: distance) term.

        Raises:
            TypeError: an input is no tensor.
            ValueError: an input is not what it must be, or the backend that was asked for cannot serve it; the message names the row or
                the shapes or the reason, and the remedy.
        """
        if torch.compiler.is_compiling():
            return self.traced(preds, batch)
        call = self._call(preds, batch)
        return self._named(*mixed.evaluate(choose_backend(self.backend, call), call)[:2])

    def traced(self, preds: Predictions, batch: Batch, numbers: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The same while torch traces; ``numbers`` replaces the definition's real ones (:mod:`twinloss.operators.traced`)."""
        return self._named(*traced.evaluate(self, preds, batch, numbers))

    @property
    def spec(self) -> LossSpec:
        """The definition's numbers; may be set, to another definition of the task (``ValueError`` where it is none)."""
        return self._spec

    @spec.setter
    def spec(self, spec: LossSpec) -> None:
        if spec.task != self.task.task:
            raise ValueError(
                f"spec is a {type(spec).__name__}, of the task {spec.task!r}; {type(self).__name__} takes a {self.task.__name__}"
            )
        if getattr(spec, "flow", False) != (self.flow is not None):
            wanted = self.flow is None
            raise ValueError(f"spec.flow is {wanted} and flow is {self.flow!r}; give a flow where, and only where, spec.flow is True")
        self._spec, self._names = spec, spec.term_names
        self.structure, self.text = structure(spec), text_of(spec)

    def assign(self, preds: Predictions, batch: Batch) -> Assignment:
        """The assignment alone (spec section 5)."""
        call = self._call(preds, batch)
        return mixed.assignment(choose_backend(self.backend, call), call)

    def loss_given(self, preds: Predictions, batch: Batch, assignment: Assignment) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on an assignment made elsewhere, whose weights are data, without a gradient (spec sections 6 and 7).

        Raises:
            ValueError: as :meth:`__call__`; or the assignment's columns disagree, or an entry of it is not what it must be.
        """
        call = self._call(preds, batch)
        given = admit_assignment(assignment, call, self.validate)
        return self._named(*mixed.evaluate(choose_backend(self.backend, call), call, given)[:2])

    def _named(self, loss: Tensor, items: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return loss, dict(zip(self._names, items.unbind(), strict=True))

    def anchors(self, preds: Predictions) -> tuple[Tensor, Tensor]:
        """Centres (A, 2) in grid units and strides (A,) in pixels (spec section 2)."""
        layout = layout_of(preds, self.spec)
        return torch_backend.anchors(pyramid_of(layout, self.spec), layout["boxes"])

    def targets(self, preds: Predictions, batch: Batch) -> GroundTruth:
        """Prepared ground truth (spec section 3)."""
        with torch_backend.evaluate(self._call(preds, batch)) as evaluation:
            return evaluation.truth

    def decode(self, preds: Predictions) -> Tensor:
        """Predicted corners (B, A, 4), or oriented boxes (B, A, 5), in grid units, in the working dtype (spec section 4)."""
        layout, geometry = layout_of(preds, self.spec), GEOMETRIES[self.spec.geometry]
        boxes = layout["boxes"]
        given = {key: layout[key].to(working_dtype(boxes)) for key in geometry.predictions}
        with torch.autocast(boxes.device.type, enabled=False):  # the expectation is a matrix product, which autocast would round
            return geometry.decode_all(given, self.anchors(preds)[0], self.spec.reg_max)

    def metrics(self, preds: Predictions, batch: Batch) -> PairMetrics:
        """Every candidate pair with overlap and alignment metric (spec sections 5.1 to 5.3); ``row`` counts the batch's rows."""
        with torch_backend.evaluate(self._call(preds, batch)) as evaluation, torch.no_grad():
            return evaluation.pairs()

    def _call(self, preds: Predictions, batch: Batch) -> Call:
        return admit(preds, batch, self.spec, self.validate, **self._options())

    def _options(self) -> dict[str, Any]:
        return {"conflicts": self.conflicts, "ties": self.ties, "pairs_at_once": self.pairs_at_once}


class DetectionLoss(TaskLoss):
    """Anchors, ground truth, decoding, task-aligned assignment, and the box, classification and distribution terms.

    Arguments and methods are those of :class:`TaskLoss`, with a :class:`~twinloss.LossSpec`.
    """


class SegmentationLoss(TaskLoss):
    """The detection loss with a mask term and a semantic term (segmentation spec).

    Arguments and methods are those of :class:`TaskLoss`, with a :class:`~twinloss.SegmentationSpec`. Predictions have ``mask_coefficient``
    (B, P, A) and ``proto`` (B, P, h, w), or a tuple of that and semantic logits (B, C, h, w); batches have ``masks``, index maps
    (B, h, w) or instance masks (N, h, w), and ``sem_masks`` (B, h, w) where there are semantic logits.
    """

    task = SegmentationSpec


class OrientedLoss(TaskLoss):
    """The loss of oriented boxes: ProbIoU in place of CIoU, and an angle term (oriented spec).

    Arguments and methods are those of :class:`TaskLoss`, with an :class:`~twinloss.OrientedSpec`. Predictions have ``angle`` (B, 1, A) in
    radians; ``bboxes`` is (N, 5): centre and size, divided by the image's width and height, and the angle in radians. With
    ``validate=True`` an angle of more than a turn, such as one in degrees, is an error.
    """

    task = OrientedSpec


class PoseLoss(TaskLoss):
    """The detection loss with the keypoints' location, visibility and likelihood (pose spec).

    Arguments and methods are those of :class:`TaskLoss`, with a :class:`~twinloss.PoseSpec`. Predictions have ``kpts`` (B, n·E, A) and,
    where there is a likelihood term, ``kpts_sigma`` (B, 2n, A), without which, as in evaluation, that term is 0; batches have ``keypoints``
    (N, n, 2) or (N, n, 3), x and y divided by the image's width and height, and a visibility: 0 for a keypoint that is not labelled.

    Args:
        spec: the definition's numbers.
        flow: takes points (P, 2) in float32 (float64 with float64 logits) and returns their log-densities (P,), differentiable; needed
            where ``spec.flow``. Its parameters are trained by the likelihood term. Its own backward pass is torch's: call ``backward()``
            outside of autocast, which would round it.
        options: of :class:`TaskLoss`.

    Raises:
        ValueError: as :class:`TaskLoss`; or ``spec.flow`` says otherwise than ``flow``.
    """

    task = PoseSpec

    def __init__(self, spec: PoseSpec, *, flow: Flow | None = None, **options: Any) -> None:
        self.flow = flow
        super().__init__(spec, **options)

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"flow": self.flow}


LOSSES: dict[str, type[TaskLoss]] = {kind.task.task: kind for kind in (DetectionLoss, SegmentationLoss, OrientedLoss, PoseLoss)}
"""By ``spec.task``."""
