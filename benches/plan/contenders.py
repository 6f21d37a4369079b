"""The contenders: implementations of the loss on one of their backends, made in the process that measures them.

Nothing here imports torch, the twin or the reference before a criterion is made: the gate's workers import another revision's twin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from oracle.contract.contender import Criterion
    from twinloss import LossSpec

REFERENCE, TWIN = "reference", "twin"


@dataclass(frozen=True, order=True)
class BenchContender:
    """A contender on a backend, written ``program/backend``.

    The reference runs ``eager`` or through ``compile``; the twin's backends are ``torch``, ``native``, ``triton`` and ``auto``, the default
    of :class:`twinloss.DetectionLoss`; a candidate, named by its dotted path, has the backend ``own``. A backend that ends in ``+graph``
    is captured once and replayed as a CUDA graph.
    """

    program: str
    backend: str

    @property
    def label(self) -> str:
        """Name in tables, in ``-k`` and in requests to workers."""
        return f"{self.program}/{self.backend}"

    @classmethod
    def parse(cls, label: str) -> BenchContender:
        """Returns the contender that a label names."""
        program, _, backend = label.rpartition("/")
        return cls(program, backend)

    @property
    def is_candidate(self) -> bool:
        """Whether it is a user's, named by a dotted path."""
        return self.program not in (REFERENCE, TWIN)

    @property
    def compiled(self) -> bool:
        """Whether the first call compiles."""
        return self.backend == "compile"


BASELINE = BenchContender(REFERENCE, "eager")
AUTO_TWIN = BenchContender(TWIN, "auto")
NATIVE_TWIN = BenchContender(TWIN, "native")
TORCH_TWIN = BenchContender(TWIN, "torch")
TRITON_TWIN = BenchContender(TWIN, "triton")


def candidates(paths: list[str]) -> list[BenchContender]:
    """Returns the contenders that dotted paths ``package.module:factory`` name."""
    return [BenchContender(path, "own") for path in paths]


def make_criterion(contender: BenchContender, spec: LossSpec, device: str) -> Criterion:
    """Returns the criterion as a user calls it: without recording, with the default validation.

    Raises:
        ValueError: the twin of this revision has no such backend, or the path names no factory.
    """
    if contender.program == REFERENCE:
        return _reference(contender.backend, spec, device)
    if contender.program == TWIN:
        return _twin(contender.backend.removesuffix("+graph"), spec, device)
    from oracle.comparison.registry import load_candidate

    return load_candidate(contender.program).factory(spec, **_flow(spec, device))


def _flow(spec: LossSpec, device: str) -> dict[str, Any]:
    """Returns the argument ``flow`` of a pose definition with a likelihood term: a flow as models of the reference have, of its own."""
    if not getattr(spec, "flow", False):
        return {}
    from oracle.reference.pose import model_flow

    return {"flow": model_flow().to(device)}


def _reference(backend: str, spec: LossSpec, device: str) -> Criterion:
    plain = _installed(spec, device)
    if backend == "compile":
        import torch

        return cast("Criterion", torch.compile(plain))
    return plain


def _installed(spec: LossSpec, device: str) -> Criterion:
    """Returns the reference's own criterion; detection's by a path on which a revision of the twin without further tasks is enough."""
    from oracle.reference.criterion import installed_criterion

    if getattr(spec, "task", "detect") == "detect":
        return installed_criterion(spec, device)
    from oracle.comparison.registry import shipped

    reference: Any = shipped(spec.task)["reference"].factory(spec, **_flow(spec, device))
    return cast("Criterion", reference.installed(device))


def _twin(backend: str, spec: LossSpec, device: str) -> Criterion:
    import inspect

    from twinloss import DetectionLoss

    if getattr(spec, "task", "detect") != "detect":
        from oracle.comparison.registry import TWINS

        return TWINS[spec.task](spec, backend=backend, **_flow(spec, device))
    # Revisions without the argument ``backend`` have one implementation, which is now the torch backend.
    if "backend" in inspect.signature(DetectionLoss).parameters:
        return cast("Criterion", DetectionLoss(spec, backend=backend))  # type: ignore[call-arg,arg-type,unused-ignore]
    if backend not in {"torch", "auto"}:
        raise ValueError(f"this revision of the twin has no backend {backend!r}")
    return DetectionLoss(spec)
