"""The Triton backend, for logits on a GPU."""

from __future__ import annotations

from twinloss.assignment.assign import Assignment
from twinloss.backends.call import Backend, Call, Evaluation
from twinloss.backends.slots import Slots
from twinloss.backends.triton.availability import computed_terms, interpreting, why_not
from twinloss.spec import LossSpec


class TritonBackend(Backend):
    """Fused Triton kernels; Triton is imported at the first call."""

    name = "triton"
    geometries = ("upright", "oriented")
    overlaps = ("ciou", "ciou and masks", "probiou", "keypoints")
    keeps_slots = True

    def computes(self, spec: LossSpec) -> tuple[str, ...]:
        """Every term, but those of masks of older definitions."""
        return computed_terms(spec)

    def is_default_for(self, call: Call) -> bool:
        """Whether the logits are not on the host, and Triton's interpreter is off."""
        return call.scores.device.type != "cpu" and not interpreting()

    def why_not(self, call: Call) -> str | None:
        """Why the kernels cannot serve: the reason lies in the logits, the definition or the machine."""
        return why_not(call.scores, call.spec, call.ties)

    def assignment(self, call: Call) -> Assignment:
        """The assignment alone, as a list: its length is data, so the host waits once."""
        from twinloss.backends.triton.loss import assign

        return assign(call)

    def loss(self, call: Call, assignment: Assignment | None = None) -> Evaluation:
        """The loss in float32; the host never waits for the device."""
        from twinloss.backends.triton.loss import evaluate

        return evaluate(call, assignment)

    def loss_on_slots(self, call: Call, slots: Slots) -> Evaluation:
        """The loss in float32, on slots as they are; the host never waits for the device."""
        from twinloss.backends.triton.loss import evaluate

        return evaluate(call, slots)
