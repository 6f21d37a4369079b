"""The native backend, for logits on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from twinloss.assignment.assign import Assignment
from twinloss.backends.call import Backend, Call, Evaluation
from twinloss.spec import LossSpec

if TYPE_CHECKING:
    from twinloss.terms.held import HeldAnchors


class NativeBackend(Backend):
    """C++ kernels; what needs the compiled library is imported at the first call."""

    name = "native"
    geometries = ("upright", "oriented")
    overlaps = ("ciou", "ciou and masks", "probiou", "keypoints")

    def computes(self, spec: LossSpec) -> tuple[str, ...]:
        """Detection's terms, the angle term of oriented boxes, and those of keypoints."""
        return spec.terms if spec.task in ("oriented", "pose") else self.terms

    def further_term(self, key: str, call: Call) -> Callable[[HeldAnchors], Tensor] | None:
        """The terms of segmentation, where the kernels can read prototypes and masks in memory."""
        from twinloss.backends.native.masks import further_term

        return further_term(key, call)

    def is_default_for(self, call: Call) -> bool:
        """Whether the logits are on the host."""
        return call.scores.device.type == "cpu"

    def why_not(self, call: Call) -> str | None:
        """Why the kernels cannot serve: the reason lies in the logits, the definition or the machine."""
        from twinloss.backends.native.availability import why_not

        keys = {"oriented": ("angle",), "pose": ("kpts", *({"kpts_sigma"} & set(call.extras)))}.get(call.spec.task, ())
        compared = ("mask_coefficient", "proto") if call.spec.overlap == "ciou and masks" else ()
        further, any_layout = ({key: call.extras[key] for key in each} for each in (keys, compared))
        return why_not(call.boxes, call.scores, call.spec, call.ties, further, any_layout)

    def assignment(self, call: Call) -> Assignment:
        """The assignment alone."""
        from twinloss.backends.native.loss import assign

        return assign(call)

    def loss(self, call: Call, assignment: Assignment | None = None) -> Evaluation:
        """The loss in float32."""
        from twinloss.backends.native.loss import evaluate

        return evaluate(call, assignment)

    def report(self, reason: str) -> None:
        """Log once that torch serves because this machine has no kernels."""
        from twinloss.backends.native.availability import say_once

        say_once(reason)
