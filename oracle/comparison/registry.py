"""The contenders that we ship, and those that a user names by a dotted path."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import operator
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import twinloss
from oracle.cases.case import Inputs, Setting
from oracle.contract.answer_form import MalformedError, attribute, shown
from oracle.contract.assumptions import Assumption, AssumptionError, assuming, named
from oracle.contract.calls import ContenderFailed, called
from oracle.contract.contender import Contender, Criterion
from oracle.definition.criterion import ExactCriterion
from oracle.tools.printable import plain
from twinloss import DetectionLoss, LossSpec

REFERENCE_DISTRIBUTIONS = ("ultralytics-opencv-headless", "ultralytics")
TIME_LIMIT = 30.0
"""Seconds that one call of a candidate may take: a hundred times what the slowest of ours takes on the largest batch."""


class CandidateError(ValueError):
    """A candidate's dotted path leads nowhere; the message says which part of it, and what to do."""


def shipped() -> dict[str, Contender]:
    """Contenders of this project by name. Nothing heavy is imported before a factory is called."""
    twin_version = f"twinloss {twinloss.__version__}"
    contenders = [
        Contender("reference", f"ultralytics {_reference_version()}", _reference, declines=_reference_declines),
        Contender("exact", "the definition in float64", ExactCriterion, arithmetic="float32"),
        Contender("twin", twin_version, partial(DetectionLoss, validate=True), arithmetic="float32"),
        Contender("twin-torch", twin_version, partial(DetectionLoss, validate=True, backend="torch"), arithmetic="float32"),
        Contender("twin-reference-ties", twin_version, partial(DetectionLoss, validate=True, ties="reference"), arithmetic="float32"),
    ]
    return {contender.name: contender for contender in contenders}


def _reference(spec: LossSpec) -> Criterion:
    from oracle.reference.criterion import ReferenceCriterion  # Importing the reference takes seconds.

    return ReferenceCriterion(spec)


def _reference_declines(spec: LossSpec, inputs: Inputs, setting: Setting) -> str | None:
    from oracle.reference.criterion import declines  # As above.

    return declines(spec, inputs, setting)


def _reference_version() -> str:
    installed = {distribution.metadata["Name"]: distribution.version for distribution in importlib.metadata.distributions()}
    return next((installed[name] for name in REFERENCE_DISTRIBUTIONS if name in installed), "(not installed)")


def load_candidate(path: str) -> Contender:
    """The contender at ``package.module:factory``, found in the current folder or on ``PYTHONPATH``.

    The factory takes a :class:`~twinloss.LossSpec` and returns a callable ``(preds, batch) -> (loss, items)``. It may carry an attribute
    ``arithmetic = "float32"``, which claims that half-precision logits are computed in float32, and is held to that; an attribute
    ``declines``, a function ``(spec, inputs, setting)`` that says why it cannot take part in a batch, or ``None``; and an attribute
    ``assumes``, names of assumptions (:mod:`oracle.contract.assumptions`).

    Raises:
        CandidateError: the path is malformed, or names a module or factory that does not exist or cannot be imported or called, or whose
            attributes are not what they should be.
    """
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name):
        raise CandidateError(f"{path!r} is no candidate: write package.module:factory, with a colon before the factory's name")
    module = _import(module_name, path)
    try:
        return called(LOADING, lambda: _contender(module, name, path)).answer
    except ContenderFailed as failure:
        raise CandidateError(f"candidate {path!r}: {failure.what}") from failure


LOADING = Contender("a candidate that is loaded", "", lambda _: None, time_limit=600.0)  # type: ignore[arg-type, return-value]
"""Whose code runs while a candidate is loaded: it may take long to import."""


def _contender(module: ModuleType, name: str, path: str) -> Contender:
    factory = _factory(module, name)
    arithmetic = attribute(factory, "arithmetic", "logits", ("logits", "float32"))
    declines = attribute(factory, "declines")
    if declines is not None and not callable(declines):
        raise MalformedError(f"its attribute `declines` is {shown(declines)}; it must be a function (spec, inputs, setting), or None")
    contender = Contender(path, plain(_version(module), 200), factory, arithmetic, declines, TIME_LIMIT)
    return assuming(contender, _assumed(attribute(factory, "assumes", ())))


def _assumed(names: Any) -> list[Assumption]:
    """The assumptions that a factory names: one, several with commas between, or a sequence of them."""
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, (list, tuple, set, frozenset)) or not all(isinstance(name, str) for name in listed):
        raise MalformedError(f"its attribute `assumes` is {shown(names)}; it must be a sequence of names of assumptions")
    try:
        return named(listed)
    except AssumptionError as error:
        raise MalformedError(f"its attribute `assumes` is {shown(names)}: {error}") from error


def _import(module_name: str, path: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return called(LOADING, lambda: importlib.import_module(module_name)).answer
    except ContenderFailed as failure:
        error = failure.__cause__
        if not isinstance(error, ModuleNotFoundError):
            raise CandidateError(f"candidate {path!r}: importing {module_name} {failure.what}") from error
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            remedy = f"run from the folder that holds it, here {here}, or add that folder to PYTHONPATH"
            raise CandidateError(f"candidate {path!r}: there is no module {error.name!r}; {remedy}") from error
        raise CandidateError(f"candidate {path!r}: {module_name} needs {error.name!r}, which is not installed here") from error


def _factory(module: ModuleType, name: str) -> Callable[[LossSpec], Any]:
    try:
        factory = operator.attrgetter(name)(module)
    except AttributeError as error:
        close = difflib.get_close_matches(name, [one for one in vars(module) if not one.startswith("_")], n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else f"; {module.__file__} does not define it"
        raise MalformedError(f"{module.__name__} has no {name!r}{hint}") from error
    if not callable(factory):
        raise MalformedError(f"{name} is {shown(factory)}; it must be a function that takes a LossSpec")
    found: Callable[[LossSpec], Any] = factory
    return found


def _version(module: ModuleType) -> str:
    """The version that the module, its package or its distribution states."""
    package = module.__name__.partition(".")[0]
    for holder in (module, sys.modules.get(package)):
        if isinstance(version := attribute(holder, "__version__"), str):
            return f"{package} {version}"
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{module.__name__} (no version)"
