"""Compares the loss and its gradients with the definition's on one assignment: worst elements by term, by level, held and not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from oracle.contract.run import Outcome
from oracle.judge.indistinguishable import NO_ALTERNATIVES, TermBounds
from oracle.judge.worst_elements import Interval, QuantityError, Where, WorstElement, worst_element
from oracle.tolerance.loss_and_gradients import OutcomeTolerance
from twinloss import Assignment, LossSpec

SIDES = ("left", "top", "right", "bottom")
AXES = {
    "mask_coefficient": ("image", "prototype", "anchor"),
    "proto": ("image", "prototype", "row", "column"),
    "semantic": ("image", "class", "row", "column"),
    "angle": ("image", "channel", "anchor"),
    "kpts": ("image", "channel", "anchor"),
    "kpts_sigma": ("image", "channel", "anchor"),
    "flow": ("parameter",),
}
"""Names of the axes of the predictions that tasks add to box and class logits."""


@dataclass(frozen=True)
class Layout:
    """Names anchors by level, row and column; ``grids`` gives each level's rows and columns."""

    spec: LossSpec
    grids: tuple[tuple[int, int], ...]

    @property
    def slices(self) -> list[slice]:
        """Each level's part of the A columns."""
        ends = list(accumulate(rows * columns for rows, columns in self.grids))
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def place(self, image: int, anchor: int) -> dict[str, int | str]:
        """Returns an anchor's image, index, level, row and column."""
        for level, part in enumerate(self.slices):
            if anchor < part.stop:
                row, column = divmod(anchor - part.start, self.grids[level][1])
                return {"image": image, "anchor": anchor, "level": level, "row": row, "column": column}
        return {"image": image, "anchor": anchor}


@dataclass(frozen=True)
class Expected:
    """The expected loss and gradients on an assignment of H entries.

    Attributes:
        assignment: the assignment, with the definition's soft targets.
        truth: the definition's loss and gradients, in float64 on the CPU.
        tolerance: the rounding of each number.
        label: (H,) class of each entry.
        scores: (B, C, A) class logits.
    """

    assignment: Assignment
    truth: Outcome
    tolerance: OutcomeTolerance
    label: Tensor
    scores: Tensor

    def widened(self, outcome: Outcome, bounds: TermBounds) -> Expected:
        """Returns a copy with the tolerance of each term widened by ``bounds``, on the side on which the outcome deviates."""
        if bounds is NO_ALTERNATIVES:
            return self
        below, above = (torch.from_numpy(bound) for bound in bounds)
        beyond = torch.where(outcome.loss < self.truth.loss, below, above)
        return replace(self, tolerance=replace(self.tolerance, loss=self.tolerance.loss + beyond))


def outcome_errors(outcome: Outcome, expected: Expected, layout: Layout) -> dict[str, QuantityError]:
    """Returns the worst elements of the loss, the items, and the gradient of each prediction, by name.

    Args:
        outcome: a contender's loss and gradients, on the CPU.
        expected: the definition's, with their tolerances.
        layout: names the elements.
    """
    found = {
        "loss": _loss(outcome, expected, layout.spec),
        "items": _items(outcome, expected, layout.spec),
        "gradient of boxes": _boxes(outcome, expected, layout),
        "gradient of scores": _scores(outcome, expected, layout),
    }
    return found | {f"gradient of {name}": _further(name, outcome, expected, layout) for name in expected.tolerance.further}


def _further(name: str, outcome: Outcome, expected: Expected, layout: Layout) -> QuantityError:
    """Returns the worst element of the gradient of a prediction that the task adds to box and class logits."""
    value, truth = outcome.gradients[name], expected.truth.gradients[name]
    # The parameters of a flow are not of the logits' dtype.
    bounds, largest = expected.tolerance.further[name], math.inf if name == "flow" else expected.tolerance.largest
    interval = Interval(*((truth + end).clamp(-largest, largest) for end in (bounds.below, bounds.above)))
    value, truth = value.nan_to_num(nan=torch.nan, posinf=largest, neginf=-largest), truth.clamp(-largest, largest)
    worst = worst_element("", truth, value, bounds.rounding, AXES[name], interval)
    found: tuple[WorstElement, ...] = ()
    if worst is not None:
        at_anchor = {"image", "anchor"} <= worst.where.keys()
        place = layout.place(int(worst.where["image"]), int(worst.where["anchor"])) if at_anchor else {}
        found = (replace(worst, where=place | dict(worst.where)),)
    read = _reader(outcome.gradients[name], lambda where: tuple(where[axis] for axis in AXES[name]))
    return QuantityError(f"gradient of {name}", found, {name: tuple(outcome.gradients[name].shape)}, read)


def _loss(outcome: Outcome, expected: Expected, spec: LossSpec) -> QuantityError:
    truth, tolerance, value = (_by_term(spec, terms) for terms in (expected.truth.loss, expected.tolerance.loss, outcome.loss))
    found = tuple(_scalar(name, truth[name], value[name], tolerance[name]) for name in spec.term_names)
    return QuantityError("loss", found, {"loss": tuple(outcome.loss.shape)}, lambda where: f"{float(value[str(where['term'])]):.9g}")


def _by_term(spec: LossSpec, terms: Tensor) -> dict[str, Tensor]:
    return dict(zip(spec.term_names, terms, strict=True))


def _items(outcome: Outcome, expected: Expected, spec: LossSpec) -> QuantityError:
    tolerance = _by_term(spec, expected.tolerance.loss / len(expected.truth.gradients["boxes"]))
    found = tuple(
        _scalar(name, _number(expected.truth.items[name]), _number(outcome.items[name]), tolerance[name])
        for name in spec.term_names
        if name in outcome.items
    )
    return QuantityError(
        "items", found, {}, lambda where: f"{outcome.items[str(where['term'])]:.9g}" if where["term"] in outcome.items else "missing"
    )


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _scalar(name: str, truth: Tensor, value: Tensor, tolerance: Tensor) -> WorstElement:
    found = worst_element(name, truth[None], value[None], tolerance[None])
    assert found is not None
    return replace(found, where={"term": name})


def _boxes(outcome: Outcome, expected: Expected, layout: Layout) -> QuantityError:
    held, bins, bounds = expected.assignment, layout.spec.reg_max, expected.tolerance.boxes
    whole = outcome.gradients["boxes"]
    value, truth = (gradient[held.image, :, held.anchor] for gradient in (whole, expected.truth.gradients["boxes"]))
    # A gradient beyond the largest number of the logits' dtype is infinite; it counts as that number.
    largest = expected.tolerance.largest
    low, high = ((truth + end).clamp(-largest, largest) for end in (bounds.below, bounds.above))
    value, truth = value.nan_to_num(nan=torch.nan, posinf=largest, neginf=-largest), truth.clamp(-largest, largest)
    found: list[WorstElement | None] = []
    for level, part in enumerate(layout.slices):
        here = _within(held, part)
        interval = Interval(low[here], high[here])
        worst = worst_element(f"level {level}", truth[here], value[here], bounds.rounding[here], ("entry", "channel"), interval)
        found.append(_at_held(worst, here, expected, layout))
    found.append(_unheld(outcome, held, layout))
    read = _reader(
        outcome.gradients["boxes"],
        lambda where: (where["image"], SIDES.index(str(where["side"])) * bins + int(where["bin"]), where["anchor"]),
    )
    return QuantityError(
        "gradient of boxes", tuple(p for p in found if p is not None), {"boxes": tuple(outcome.gradients["boxes"].shape)}, read
    )


def _within(held: Assignment, part: slice) -> Tensor:
    """Returns the entries (h,) whose anchors lie in one level's part of the columns."""
    return torch.nonzero((held.anchor >= part.start) & (held.anchor < part.stop))[:, 0]


def _at_held(worst: WorstElement | None, here: Tensor, expected: Expected, layout: Layout) -> WorstElement | None:
    """Returns the worst element with its anchor, side and bin, or class, and box instead of its index among the entries ``here``."""
    if worst is None:
        return None
    entry, held = int(here[int(worst.where["entry"])]), expected.assignment
    where = layout.place(int(held.image[entry]), int(held.anchor[entry]))
    if "channel" in worst.where:
        side, place = divmod(int(worst.where["channel"]), layout.spec.reg_max)
        where |= {"side": SIDES[side], "bin": place}
    else:
        where |= {"class": int(expected.label[entry])}
    return replace(worst, where=where | {"box": int(held.box[entry])})


def _unheld(outcome: Outcome, held: Assignment, layout: Layout) -> WorstElement | None:
    """Returns the worst element at anchors without box, where the gradient of the box logits is exactly zero."""
    largest = outcome.gradients["boxes"].abs().amax(1)
    largest[held.image, held.anchor] = 0
    worst = worst_element("anchors that are not held", torch.zeros_like(largest), largest, torch.zeros_like(largest), ("image", "anchor"))
    if worst is None:
        return None
    image, anchor = int(worst.where["image"]), int(worst.where["anchor"])
    channel = int(outcome.gradients["boxes"][image, :, anchor].abs().argmax())
    side, place = divmod(channel, layout.spec.reg_max)
    where = layout.place(image, anchor) | {"side": SIDES[side], "bin": place}
    return replace(worst, where=where)


def _scores(outcome: Outcome, expected: Expected, layout: Layout) -> QuantityError:
    held, label, allowed = expected.assignment, expected.label, expected.tolerance
    whole, right = outcome.gradients["scores"], expected.truth.gradients["scores"]
    found: list[WorstElement | None] = []
    for level, part in enumerate(layout.slices):
        here = _within(held, part)
        image, anchor, own = held.image[here], held.anchor[here], label[here]
        value, truth = whole[:, :, part], right[:, :, part]
        tolerance = expected.scores[:, :, part].abs().mul_(allowed.score_per_logit).add_(allowed.score_share)
        tolerance.mul_(truth.abs()).add_(allowed.smallest)
        tolerance[image, own, anchor - part.start] = torch.inf
        other = worst_element(f"level {level}, not held", truth, value, tolerance, ("image", "class", "anchor"))
        if other is not None:
            place = layout.place(int(other.where["image"]), int(other.where["anchor"]) + part.start) | {"class": other.where["class"]}
            found.append(replace(other, where=place))
        at = (image, own, anchor - part.start)
        worst = worst_element(f"level {level}, held", truth[at], value[at], allowed.held_score[here], ("entry",))
        found.append(_at_held(worst, here, expected, layout))
    read = _reader(whole, lambda where: (where["image"], where["class"], where["anchor"]))
    return QuantityError("gradient of scores", tuple(p for p in found if p is not None), {"scores": tuple(whole.shape)}, read)


def _reader(tensor: Tensor, index: Callable[[Where], tuple[int | str, ...]]) -> Callable[[Where], str]:
    return lambda where: f"{float(tensor[tuple(int(i) for i in index(where))]):.9g}"
