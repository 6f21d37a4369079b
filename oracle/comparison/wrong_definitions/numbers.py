"""Wrong numbers of the definition, and the definitions of older releases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from oracle.definition.variant import Variant
from twinloss import LossSpec
from twinloss.release_definitions import DEFINITIONS

Numbers = Callable[[LossSpec], dict[str, Any]]


def number(name: str, section: str, numbers: Numbers) -> Variant:
    """Returns the variant with other fields of the definition."""
    return Variant(name, section, numbers=numbers)


def always(field: str, value: Any) -> Numbers:
    """Returns a function that gives a field a value, whatever the definition says."""
    return lambda _: {field: value}


def _these(numbers: Mapping[str, Any]) -> Numbers:
    return lambda _: dict(numbers)


def _changed(field: str, change: Callable[[Any], Any]) -> Numbers:
    return lambda spec: {field: change(getattr(spec, field))}


def _reordered(*order: int) -> Numbers:
    """Returns a function that puts the first three gains in another order."""
    return lambda spec: {"gains": (*(spec.gains[k] for k in order), *spec.gains[3:])}


def _gain(position: int, gain: float) -> Numbers:
    return lambda spec: {"gains": (*spec.gains[:position], gain, *spec.gains[position + 1 :])}


def releases() -> Iterator[Variant]:
    """Yields the older definitions of the reference, by the first release and the last before the next definition.

    A term that an older one has not is left as it is, since without it nothing could be compared.
    """
    for task, definitions in DEFINITIONS.items():
        for (first, switches), (until, _) in pairwise(definitions):
            numbers = {name: value for name, value in switches.items() if name not in ("semantic_term", "angle_term")}
            yield Variant(f"Ultralytics {first} to before {until}", "", numbers=_these(numbers), tasks=(task,), release=True)


def picks() -> Iterator[Variant]:
    """Yields other numbers of picks."""
    yield number("K + 1 instead of K", "5.4", lambda s: {"topk": s.topk + 1})
    yield number("K - 1 instead of K", "5.4", lambda s: {"topk": s.topk - 1})
    yield number("2 K instead of K", "5.4", lambda s: {"topk": 2 * s.topk})
    for count in (1, 5, 7, 9, 10, 13, 20):
        yield number(f"K = {count} whatever is asked", "5.4", always("topk", count))
    yield number("every candidate picked", "5.4", always("topk", 1 << 20))
    yield number("K at most 10", "5.4", lambda s: {"topk": min(s.topk, 10)})
    yield number("no second cut", "5.6", always("topk2", None))
    yield number("topk2 + 1 instead of topk2", "5.6", lambda s: {"topk2": s.topk2 and s.topk2 + 1})
    yield number("K of topk2 instead of a second cut", "5.6", lambda s: {"topk": s.topk2 or s.topk, "topk2": None})


def exponents() -> Iterator[Variant]:
    """Yields other exponents of the metric."""
    yield number("α and β exchanged", "5.3", lambda s: {"alpha": s.beta, "beta": s.alpha})
    for alpha in (0.0, 0.5, 1.0, 2.0):
        yield number(f"α = {alpha:g} whatever is asked", "5.3", always("alpha", alpha))
    for beta in (0.5, 1.0, 2.0, 3.0, 4.0, 6.0):
        yield number(f"β = {beta:g} whatever is asked", "5.3", always("beta", beta))
    for field, symbol in (("alpha", "α"), ("beta", "β")):
        yield number(f"half of {symbol}", "5.3", _changed(field, lambda value: value / 2))
        yield number(f"twice {symbol}", "5.3", _changed(field, lambda value: value * 2))
        yield number(f"{symbol} + 1", "5.3", _changed(field, lambda value: value + 1))
        yield number(f"{symbol} - 1", "5.3", _changed(field, lambda value: value - 1))


def smallest() -> Iterator[Variant]:
    """Yields other epsilons and margins."""
    for value in (1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-12, 1e-16):
        yield number(f"ε_a = {value:g}", "5", always("assign_eps", value))
        yield number(f"ε_c = {value:g}", "6", always("ciou_eps", value))
    yield number("ε_c = 1e-09", "6", always("ciou_eps", 1e-9))
    for value in (1e-6, 1e-4, 1e-3, 0.1, 0.5, 1.0):
        yield number(f"target distances clamped to R - 1 - {value:g}", "7", always("clamp_margin", value))


def switches() -> Iterator[Variant]:
    """Yields the switches of the definition turned one by one."""
    yield number("short sides never lengthened", "5.1", always("lengthen", "never"))
    yield number("sides lengthened below the first level's stride alone", "5.1", always("lengthen", "first"))
    yield number("no distance term for R = 1", "7", always("distance_term", False))
    yield number("every anchor weighed by the sum of the soft targets", "7", always("anchor_weights", "sum"))
    yield number("class weights ignored", "13", always("class_weights", None))
    yield number("class weights in reverse", "13", lambda s: {"class_weights": s.class_weights and s.class_weights[::-1]})


def gains() -> Iterator[Variant]:
    """Yields gains left out, exchanged, or those of the reference whatever is asked."""
    yield number("gains left out", "7", lambda s: {"gains": (1.0,) * len(s.gains)})
    for name, order in (
        ("gains of the box and the classification term exchanged", (1, 0, 2)),
        ("gains of the box and the distribution term exchanged", (2, 1, 0)),
        ("gains of the classification and the distribution term exchanged", (0, 2, 1)),
    ):
        yield number(name, "7", _reordered(*order))
    for position, term in enumerate(("box", "classification", "distribution")):
        usual = (7.5, 0.5, 1.5)[position]
        yield number(
            f"{term} gain of {usual:g} whatever is asked",
            "7",
            _gain(position, usual),
        )


def catalogue() -> Iterator[Variant]:
    """Yields every variant of this chapter."""
    for chapter in (releases, picks, exponents, smallest, switches, gains):
        yield from chapter()
