"""The contenders of this project, and candidates that a user names by a dotted path."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import operator
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import twinloss
from oracle.cases.case import Inputs, Setting
from oracle.cases.tasks.flow import Flow
from oracle.contract.answer_form import WRONG_ATTRIBUTE, MalformedError, describe, read_attribute
from oracle.contract.assumptions import Assumption, AssumptionError, find_assumptions, with_assumptions
from oracle.contract.calls import ContenderFailed, call_contender
from oracle.contract.contender import Contender, Criterion
from oracle.contract.time_limit import TimeLimitExceeded
from oracle.definition.tasks import DEFINITIONS
from oracle.inside.messages import Record
from oracle.isolated.candidate_process import CandidateProcess, CandidateSource
from oracle.isolated.contender import isolated_contender
from oracle.isolated.decode import decode, exception_of
from oracle.tools.printable import exception_text, printable
from twinloss import DetectionLoss, LossSpec, OrientedLoss, PoseLoss, PoseSpec, SegmentationLoss

REFERENCE_DISTRIBUTIONS = ("ultralytics-opencv-headless", "ultralytics")
TIME_LIMIT = 30.0
"""Seconds that one call of a candidate may take: a hundred times the slowest of our contenders on the largest batch."""


class CandidateError(ValueError):
    """A candidate cannot be loaded; the message names the faulty part of its path, and the remedy."""


def pose_loss(spec: PoseSpec, *, flow: Flow | None = None, **options: Any) -> PoseLoss:
    """Returns the twin's pose loss with the log-density of a flow."""
    return PoseLoss(spec, flow=None if flow is None else flow.log_prob, **options)


TWINS: dict[str, Callable[..., Criterion]] = {
    "detect": DetectionLoss,
    "segment": SegmentationLoss,
    "oriented": OrientedLoss,
    "pose": pose_loss,
}
"""The twin's loss of each task, by its name."""


def shipped(task: str = "detect") -> dict[str, Contender]:
    """Returns the contenders of this project for a task by name. The reference is imported when its factory is first called."""
    version, twin = f"twinloss {twinloss.__version__}", functools.partial(TWINS[task], validate=True)
    reference, declines = functools.partial(_reference, task), functools.partial(_reference_declines, task)
    contenders = [
        Contender("reference", f"ultralytics {reference_version()}", reference, declines=declines),
        Contender("exact", "the definition in float64", DEFINITIONS[task], arithmetic="float32"),
        Contender("twin", version, twin, arithmetic="float32"),
        Contender("twin-torch", version, functools.partial(twin, backend="torch"), arithmetic="float32"),
        Contender("twin-reference-ties", version, functools.partial(twin, ties="reference"), arithmetic="float32"),
    ]
    return {contender.name: contender for contender in contenders}


def _reference(task: str, spec: LossSpec, **options: Any) -> Criterion:
    from oracle.reference.tasks import CRITERIA  # Importing the reference takes seconds.

    return CRITERIA[task].make(spec, **options)


def _reference_declines(task: str, spec: LossSpec, inputs: Inputs, setting: Setting) -> str | None:
    from oracle.reference.tasks import CRITERIA  # Importing the reference takes seconds.

    return CRITERIA[task].declines(spec, inputs, setting)


@functools.cache
def reference_version() -> str:
    """Returns the version of the installed reference, under either of its names, or "not installed"."""
    installed = {distribution.metadata["Name"]: distribution.version for distribution in importlib.metadata.distributions()}
    return next((installed[name] for name in REFERENCE_DISTRIBUTIONS if name in installed), "not installed")


def load_isolated(path: str, time_limit: float = TIME_LIMIT, source: CandidateSource | None = None) -> Contender:
    """Loads the contender at ``package.module:factory`` into a process of its own (:mod:`oracle.isolated`).

    Args:
        path: the dotted path, which is also its name.
        time_limit: seconds that one call may take.
        source: where it is; ``None`` for the current folder or ``PYTHONPATH``.

    Raises:
        CandidateError: as for :func:`load_candidate`.
    """
    module_name, name = _parts(path)
    process = CandidateProcess(source or CandidateSource.here(module_name, name))
    try:
        return _isolated(process, _loaded(process, path), path, time_limit)
    except MalformedError as error:
        raise CandidateError(f"candidate {path!r}: {error}") from error
    except TimeLimitExceeded as error:
        raise CandidateError(f"candidate {path!r}: importing {module_name} {error}") from None


def _loaded(process: CandidateProcess, path: str) -> Record:
    """Returns what the candidate's process tells of its factory."""
    module_name, name = _parts(path)
    loaded = process.start()
    if "import" in loaded:
        what = f"raised {exception_text(exception_of(loaded['import']))}"
        raise _import_error(path, module_name, what, loaded["import"].get("module"))
    if "names" in loaded:
        raise MalformedError(_no_factory(module_name, name, list(map(str, loaded["names"])), str(loaded["file"])))
    return loaded


def _isolated(process: CandidateProcess, loaded: Record, path: str, time_limit: float) -> Contender:
    if not loaded["callable"]:
        raise MalformedError(f"{path.partition(':')[2]} is {describe(decode(loaded['described'], process.arena))}; {_FACTORY}")
    found: dict[str, Any] = {}
    for attribute, one in loaded["attributes"].items():
        if "raised" in one:
            raised = exception_text(exception_of(one["raised"]))
            raise MalformedError(f"its attribute `{attribute}` cannot be read: it raised {raised}", WRONG_ATTRIBUTE)
        if "code" in one:
            found[attribute] = decode(one["code"], process.arena)
    holder = SimpleNamespace(**found)
    arithmetic = read_attribute(holder, "arithmetic", "logits", ("logits", "float32"))
    callable_ = bool(loaded["attributes"]["declines"].get("callable"))
    if found.get("declines") is not None and not callable_:
        raise MalformedError(_not_callable(found["declines"]))
    version = printable(str(loaded["version"]), 200)
    contender = isolated_contender(process, path, version, arithmetic, time_limit, declines=callable_)
    return with_assumptions(contender, _assumed(found.get("assumes", ())))


def load_candidate(path: str) -> Contender:
    """Loads the contender at ``package.module:factory`` from the current folder or ``PYTHONPATH`` into this process.

    :mod:`oracle.contract.contender` describes the factory and its attributes.

    Raises:
        CandidateError: the path is malformed, the module or factory does not exist or cannot be imported or called, or an attribute of the
            factory violates the contract.
    """
    module_name, name = _parts(path)
    module = _import(module_name, path)
    try:
        return call_contender(LOADING, lambda: _contender(module, name, path)).answer
    except ContenderFailed as failure:
        raise CandidateError(f"candidate {path!r}: {failure.what}") from failure


def _parts(path: str) -> tuple[str, str]:
    """Returns module and factory of a dotted path."""
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name):
        raise CandidateError(f"candidate {path!r} has no module or no factory; write --candidate package.module:factory")
    return module_name, name


LOADING = Contender("a candidate that is loaded", "", lambda _: None, time_limit=600.0)  # type: ignore[arg-type, return-value]
"""Contender for calls that load a candidate: its time limit allows for long imports."""


def _contender(module: ModuleType, name: str, path: str) -> Contender:
    factory = _factory(module, name)
    arithmetic = read_attribute(factory, "arithmetic", "logits", ("logits", "float32"))
    declines = read_attribute(factory, "declines")
    if declines is not None and not callable(declines):
        raise MalformedError(_not_callable(declines))
    contender = Contender(path, printable(_version(module), 200), factory, arithmetic, declines, TIME_LIMIT)
    return with_assumptions(contender, _assumed(read_attribute(factory, "assumes", ())))


def _not_callable(declines: Any) -> str:
    return f"its attribute `declines` is {describe(declines)}; it must be a function (spec, inputs, setting), or None"


def _assumed(names: Any) -> list[Assumption]:
    """Returns the assumptions that a factory names: a name, several separated by commas, or a sequence of names."""
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, (list, tuple, set, frozenset)) or not all(isinstance(name, str) for name in listed):
        raise MalformedError(f"its attribute `assumes` is {describe(names)}; it must be a sequence of names of assumptions")
    try:
        return find_assumptions(listed)
    except AssumptionError as error:
        raise MalformedError(f"its attribute `assumes` is {describe(names)}: {error}") from error


def _import(module_name: str, path: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return call_contender(LOADING, lambda: importlib.import_module(module_name)).answer
    except ContenderFailed as failure:
        error = failure.__cause__
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        raise _import_error(path, module_name, failure.what, missing) from error


def _import_error(path: str, module_name: str, what: str, missing: str | None) -> CandidateError:
    """Returns the error of a failed import, with the remedy if a module is missing."""
    if missing is None:
        return CandidateError(f"candidate {path!r}: importing {module_name} {what}")
    if module_name == missing or module_name.startswith(f"{missing}."):
        remedy = f"run from the folder that holds it (this is {Path.cwd()}), or add that folder to PYTHONPATH"
        return CandidateError(f"candidate {path!r}: there is no module {missing!r}; {remedy}")
    return CandidateError(f"candidate {path!r}: {module_name} imports {missing!r}, which is not installed; install it")


_FACTORY = "it must be a function that takes a LossSpec"


def _no_factory(module_name: str, name: str, names: Sequence[str], file: str) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else f"; {file} does not define it"
    return f"{module_name} has no {name!r}{hint}"


def _factory(module: ModuleType, name: str) -> Callable[[LossSpec], Any]:
    try:
        factory = operator.attrgetter(name)(module)
    except AttributeError as error:
        names = [one for one in vars(module) if not one.startswith("_")]
        raise MalformedError(_no_factory(module.__name__, name, names, str(module.__file__))) from error
    if not callable(factory):
        raise MalformedError(f"{name} is {describe(factory)}; {_FACTORY}")
    found: Callable[[LossSpec], Any] = factory
    return found


def _version(module: ModuleType) -> str:
    """Returns the version of the module, its package or its distribution."""
    package = module.__name__.partition(".")[0]
    for holder in (module, sys.modules.get(package)):
        if isinstance(version := read_attribute(holder, "__version__"), str):
            return f"{package} {version}"
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{module.__name__} (no version)"
