"""What explains a candidate's differences, as a record, a sentence, and a claim that can be held against any answer."""

from __future__ import annotations

from dataclasses import dataclass

from oracle.comparison.recorded_answers import AnsweredBatch
from oracle.comparison.term_scales import TermScales
from oracle.definition.variant import Variant


@dataclass(frozen=True)
class CounterProof:
    """Whether the definition with some variants gives a candidate's answers.

    Attributes:
        agree, of: number of batches on which it does, and of all.
        residual: largest relative difference on those.
        remainder: digests of the other batches.
    """

    agree: int
    of: int
    residual: float
    remainder: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """What explains a candidate's differences.

    Attributes:
        variants: wrong definitions that together give its answers; empty where none do.
        scales: constant factors of terms and gradients on top of them, if there are any.
        explained, failing: number of failing batches that they explain to rounding, and of those tried.
        steps: number of failing batches that the first variant explains, that the first two do, and so on.
        broken, agreeing: number of agreeing batches that they would change, and of those tried.
        residual: largest difference left on the explained batches, relative to the largest number of its kind.
        also: other variants that give the same answers on all batches.
        arithmetic: a remark on the arithmetic, or empty.
        nearest: where nothing is named, what removes most of the difference.
        removed: the share that it removes.
    """

    variants: tuple[Variant, ...] = ()
    scales: TermScales | None = None
    explained: int = 0
    failing: int = 0
    steps: tuple[int, ...] = ()
    broken: int = 0
    agreeing: int = 0
    residual: float = 0.0
    also: tuple[str, ...] = ()
    arithmetic: str = ""
    nearest: str = ""
    removed: float = 0.0

    @property
    def named(self) -> bool:
        """Whether something is named."""
        return bool(self.variants or self.scales or self.arithmetic)

    def left(self, batch: AnsweredBatch) -> float | None:
        """Returns the largest relative difference that it leaves on a batch; ``None`` if that is more than rounding."""
        if self.scales is not None:
            left = self.scales.left(batch, self.variants)
            return left if left <= batch.rounding else None
        return min(batch.distance(self.variants), batch.rounding) if batch.explained(self.variants, any_ties=True) else None

    def what(self) -> str:
        """Returns what is otherwise, in one clause; empty if nothing is named."""
        releases = [str(variant) for variant in self.variants if variant.release]
        others = [str(variant) for variant in self.variants if not variant.release]
        others += [str(self.scales)] if self.scales else []
        others += [self.arithmetic] if self.arithmetic else []
        is_release = f"is {' and '.join(releases)}" if releases else ""
        rest = ", and ".join(others)
        if is_release and rest:
            return f"{is_release}, but {rest}"
        return is_release or rest

    def sentence(self) -> str:
        """Returns the explanation in one sentence."""
        if not self.failing:
            return "no batch differs by more than rounding"
        if not self.named:
            if not self.nearest:
                return f"not explained: {self.failing} batches differ, and no known wrong definition is nearer to them than the right one"
            return f"not explained; nearest: {self.nearest}, which removes {100 * self.removed:.2g} % of the difference"
        same = f" (or {'; '.join(self.also)}: no batch tells them apart)" if self.also else ""
        one_by_one = f" ({', then '.join(map(str, self.steps))})" if len(self.steps) > 1 else ""
        rest = "" if self.explained == self.failing else "; the rest is not explained"
        return f"{self.what()}{same}: explains {self.explained} of {self.failing} batches{one_by_one}{rest}"
