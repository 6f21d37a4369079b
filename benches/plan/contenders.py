"""Who is measured: an implementation on one of its backends, made in the process that measures it.

Nothing here imports torch, the twin or the reference before a criterion is made: a worker of the gate runs with another revision's twin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from oracle.contract.contender import Criterion
    from twinloss import LossSpec

REFERENCE, TWIN = "reference", "twin"


@dataclass(frozen=True, order=True)
class BenchContender:
    """A contender on a backend, written ``contender/backend``.

    The reference runs ``eager`` or through ``compile``; the twin's backends are ``torch``, ``native``, ``triton`` and ``auto``, which is
    what users get; a candidate, named by its dotted path, has the backend ``labelled``. ``+graph`` at the end: replayed as a CUDA graph.
    """

    program: str
    backend: str

    @property
    def label(self) -> str:
        """As in tables and on the wire."""
        return f"{self.program}/{self.backend}"

    @classmethod
    def parse(cls, label: str) -> BenchContender:
        """The entry of a label."""
        program, _, backend = label.rpartition("/")
        return cls(program, backend)

    @property
    def compiled(self) -> bool:
        """Whether its first call includes a compiler."""
        return self.backend == "compile"


BASELINE = BenchContender(REFERENCE, "eager")
AUTO_TWIN = BenchContender(TWIN, "auto")
NATIVE_TWIN = BenchContender(TWIN, "native")
TORCH_TWIN = BenchContender(TWIN, "torch")
TRITON_TWIN = BenchContender(TWIN, "triton")


def candidates(paths: list[str]) -> list[BenchContender]:
    """Entries for dotted paths ``package.module:factory``."""
    return [BenchContender(path, "own") for path in paths]


def make_criterion(contender: BenchContender, spec: LossSpec, device: str) -> Criterion:
    """The criterion as its user would call it: no recording, nothing validated that is not validated by default.

    Raises:
        ValueError: there is no such contender or backend.
    """
    if contender.program == REFERENCE:
        return _reference(contender.backend, spec, device)
    if contender.program == TWIN:
        return _twin(contender.backend.removesuffix("+graph"), spec)
    from oracle.comparison.registry import load_candidate

    return load_candidate(contender.program).factory(spec)


def _reference(backend: str, spec: LossSpec, device: str) -> Criterion:
    from oracle.reference.criterion import as_installed

    plain = as_installed(spec, device)
    if backend == "compile":
        import torch

        return cast("Criterion", torch.compile(plain))
    return plain


def _twin(backend: str, spec: LossSpec) -> Criterion:
    import inspect

    from twinloss import DetectionLoss

    # A revision from before there were backends has the one that is now called torch.
    if "backend" in inspect.signature(DetectionLoss).parameters:
        return cast("Criterion", DetectionLoss(spec, backend=backend))  # type: ignore[call-arg,arg-type,unused-ignore]
    if backend not in {"torch", "auto"}:
        raise ValueError(f"this revision of the twin has no backend {backend!r}")
    return DetectionLoss(spec)
