"""The cells of a column: for each feature the same, or what is otherwise with its counter-proof, or why nothing is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oracle.comparison.recorded_answers import AnsweredBatch
from oracle.contract.verdict import Finding
from oracle.definition.variant import Variant
from properties.matrix.answers import HALF_ROUNDING, Reply
from properties.matrix.attribution import Attribution
from properties.matrix.columns import Column
from properties.matrix.features import CONDUCT, HALF, Feature, features_of

SAME, DIFFERS, NOT_OFFERED, CANNOT_RUN = "same", "differs", "not offered", "cannot run"


@dataclass(frozen=True)
class Cell:
    """One cell; a row of the report.

    Attributes:
        column, package, version, licence, kind: the implementation.
        feature, section: the feature.
        verdict: :data:`SAME`, :data:`DIFFERS`, :data:`NOT_OFFERED` or :data:`CANNOT_RUN`.
        what: what is otherwise, by name; why nothing is known.
        batches: number of the feature's batches.
        answered: number of those that it answered.
        departing: number of those on which it differs from the definition.
        proved: number of those on which the definition with all that is otherwise gives its answers: the counter-proof.
        proved_without: number without what this cell names.
        before, after: largest difference relative to the largest number of its kind, without what this cell names, and with it.
        remainder: digests of the answered batches that are not proved.
        rounding: largest relative difference that counts as rounding.
    """

    column: str
    package: str
    version: str
    licence: str
    kind: str
    feature: str
    section: str
    verdict: str
    what: str = ""
    batches: int = 0
    answered: int = 0
    departing: int = 0
    proved: int = 0
    proved_without: int = 0
    before: float = 0.0
    after: float = 0.0
    remainder: str = ""
    rounding: float = 0.0


def cannot_run(column: Column, features: Sequence[Feature], reason: str) -> list[Cell]:
    """Returns the cells of an implementation that cannot be installed or imported."""
    return [_cell(column, feature.name, feature.sections, CANNOT_RUN, what=reason) for feature in features]


def feature_cell(column: Column, feature: Feature, replies: Sequence[Reply], found: Attribution) -> Cell:
    """Returns the cell of a feature, given the wrong definitions that explain the column."""
    batches, variants = found.batches[feature.name], found.variants
    if not batches:
        return _unanswered(column, feature, replies)
    own = [variant for variant in variants if feature.name in features_of(variant)]
    others = tuple(variant for variant in variants if variant not in own)
    proved = [batch.explained(variants, any_ties=True) for batch in batches]
    without = [batch.explained(others, any_ties=True) for batch in batches]
    what = " and ".join(map(str, own))
    failed = sorted({reply.failed for reply in replies if reply.failed})
    rest = [batch for batch, good in zip(batches, proved, strict=True) if not good]
    if rest or failed:
        what = "; ".join(filter(None, (what, _unexplained(rest, variants), *(f"it {text}" for text in failed))))
    return _cell(
        column,
        feature.name,
        feature.sections,
        DIFFERS if own or rest or failed else SAME,
        what=what,
        batches=len(replies),
        answered=len(batches),
        departing=sum(not batch.explained((), any_ties=True) for batch in batches),
        proved=sum(proved),
        proved_without=sum(without),
        before=max(batch.distance(others) for batch in batches),
        after=max(batch.distance(variants) for batch in batches),
        remainder=" ".join(batch.case.digest for batch in rest),
        rounding=found.rounding,
    )


def _unexplained(rest: Sequence[AnsweredBatch], variants: tuple[Variant, ...]) -> str:
    """Returns a text on the feature's batches that the column's explanation leaves; empty if there are none."""
    if not rest:
        return ""
    return f"{len(rest)} batches not explained, by up to {max(batch.distance(variants) for batch in rest):.2g}"


def _unanswered(column: Column, feature: Feature, replies: Sequence[Reply]) -> Cell:
    failed = sorted({reply.failed for reply in replies if reply.failed})
    declined = sorted({reply.declined for reply in replies if reply.declined})
    verdict, what = (CANNOT_RUN, f"it {failed[0]}") if failed else (NOT_OFFERED, "; ".join(declined) or "the head has no such part")
    return _cell(column, feature.name, feature.sections, verdict, what=what, batches=len(replies))


def half_cell(column: Column, replies: Sequence[Reply], variants: tuple[Variant, ...]) -> Cell:
    """Returns the cell of half precision: whether the terms are those of the definition, with what else differs, but for rounding.

    Gradients are not compared, since rounding may give an anchor to another box; ``nox -s diff`` judges such decisions one by one.
    """
    answered = [reply for reply in replies if reply.answer is not None]
    failed = sorted({f"{reply.setting.name}: it {reply.failed}" for reply in replies if reply.failed})
    declined = sorted({reply.declined for reply in replies if reply.declined})
    if not answered:
        verdict = CANNOT_RUN if failed else NOT_OFFERED
        return _cell(column, HALF, "8a", verdict, what="; ".join(failed or declined), batches=len(replies))
    sizes = {reply.setting.name: 0.0 for reply in answered}
    good = 0
    for reply in answered:
        assert reply.answer is not None
        size = max(AnsweredBatch(reply.answer, HALF_ROUNDING[reply.setting.dtype]).terms(variants))
        sizes[reply.setting.name] = max(sizes[reply.setting.name], size)
        good += size <= HALF_ROUNDING[reply.setting.dtype]
    wide = [name for name, size in sizes.items() if size > HALF_ROUNDING[name.partition("+")[0]]]
    what = "; ".join([*(f"a term is off by {sizes[name]:.2g} of it in {name}" for name in wide), *failed])
    numbers = {"batches": len(replies), "answered": len(answered), "proved": good, "after": max(sizes.values())}
    return _cell(column, HALF, "8a", DIFFERS if what else SAME, what=what, **numbers)


def conduct_cell(column: Column, findings: Sequence[Finding]) -> Cell:
    """Returns the cell of conduct: the failure modes that were seen."""
    modes = dict.fromkeys(finding.quantity for finding in findings)
    what = "; ".join(f"{mode}: {next(one.what for one in findings if one.quantity == mode)}" for mode in modes)
    return _cell(column, CONDUCT, "contract", DIFFERS if modes else SAME, what=what)


def _cell(column: Column, feature: str, section: str, verdict: str, **more: object) -> Cell:
    identity = (column.name, column.package, column.version, column.licence, column.kind)
    return Cell(*identity, feature, section, verdict, **more)  # type: ignore[arg-type]
