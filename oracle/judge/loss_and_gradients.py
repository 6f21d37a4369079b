"""The loss and its gradients against the definition's on one assignment: worst elements by term, by level, held and not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from oracle.contract.run import Outcome
from oracle.judge.indistinguishable import NONE, Room
from oracle.judge.worst_elements import Interval, Peak, Peaks, Where, peak_of
from oracle.tolerance.loss_and_gradients import Allowance
from twinloss import Assignment, LossSpec

SIDES = ("left", "top", "right", "bottom")
NUMBERS = ("loss", "items", "gradient of boxes", "gradient of scores")


@dataclass(frozen=True)
class Layout:
    """Where an anchor's index lies: the definition and each level's rows and columns."""

    spec: LossSpec
    grids: tuple[tuple[int, int], ...]

    @property
    def slices(self) -> list[slice]:
        """Each level's part of the A columns."""
        ends = list(accumulate(rows * columns for rows, columns in self.grids))
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def place(self, image: int, anchor: int) -> dict[str, int | str]:
        """An anchor's image, index, level and cell."""
        for level, part in enumerate(self.slices):
            if anchor < part.stop:
                row, column = divmod(anchor - part.start, self.grids[level][1])
                return {"image": image, "anchor": anchor, "level": level, "row": row, "column": column}
        return {"image": image, "anchor": anchor}


@dataclass(frozen=True)
class Standard:
    """What an outcome is held against: the definition's outcome on an assignment, and the rounding of each of its numbers."""

    assignment: Assignment
    truth: Outcome
    allowance: Allowance
    label: Tensor
    scores: Tensor

    def widened(self, outcome: Outcome, room: Room) -> Standard:
        """The same, with room for the terms of an outcome on the CPU beside their rounding, on the side on which they lie."""
        if room is NONE:
            return self
        less, more = (torch.from_numpy(bound) for bound in room)
        beyond = torch.where(outcome.loss < self.truth.loss, less, more)
        return replace(self, allowance=replace(self.allowance, loss=self.allowance.loss + beyond))


def outcome_peaks(outcome: Outcome, standard: Standard, layout: Layout) -> dict[str, Peaks]:
    """The worst elements of each of :data:`NUMBERS`.

    Args:
        outcome: a contender's, on the CPU.
        standard: what it is held against.
        layout: names the elements.
    """
    return {
        "loss": _loss(outcome, standard, layout.spec),
        "items": _items(outcome, standard, layout.spec),
        "gradient of boxes": _boxes(outcome, standard, layout),
        "gradient of scores": _scores(outcome, standard, layout),
    }


def _loss(outcome: Outcome, standard: Standard, spec: LossSpec) -> Peaks:
    truth, slack, value = standard.truth.loss, standard.allowance.loss, outcome.loss
    found = [_scalar(name, truth[k], value[k], slack[k]) for k, name in enumerate(spec.term_names)]
    return Peaks(
        "loss", tuple(found), {"loss": tuple(value.shape)}, lambda where: f"{float(value[spec.term_names.index(str(where['term']))]):.9g}"
    )


def _items(outcome: Outcome, standard: Standard, spec: LossSpec) -> Peaks:
    images = len(standard.truth.grad_boxes)
    slack = standard.allowance.loss / images
    found = [
        _scalar(name, _number(standard.truth.items[name]), _number(outcome.items[name]), slack[k])
        for k, name in enumerate(spec.term_names)
        if name in outcome.items
    ]
    return Peaks(
        "items", tuple(found), {}, lambda where: f"{outcome.items[str(where['term'])]:.9g}" if where["term"] in outcome.items else "missing"
    )


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _scalar(name: str, truth: Tensor, value: Tensor, slack: Tensor) -> Peak:
    found = peak_of(name, truth[None], value[None], slack[None])
    assert found is not None
    return replace(found, where={"term": name})


def _boxes(outcome: Outcome, standard: Standard, layout: Layout) -> Peaks:
    held, bins, bounds = standard.assignment, layout.spec.reg_max, standard.allowance.boxes
    value, truth = (o.grad_boxes[held.image, :, held.anchor] for o in (outcome, standard.truth))
    # What the logits' dtype cannot hold is infinite, and no further off than the largest number that it can.
    largest = standard.allowance.largest
    low, high = ((truth + end).clamp(-largest, largest) for end in (bounds.below, bounds.above))
    value, truth = value.nan_to_num(nan=torch.nan, posinf=largest, neginf=-largest), truth.clamp(-largest, largest)
    found: list[Peak | None] = []
    for level, part in enumerate(layout.slices):
        here = ((held.anchor >= part.start) & (held.anchor < part.stop)).nonzero()[:, 0]
        interval = Interval(low[here], high[here])
        peak = peak_of(f"level {level}", truth[here], value[here], bounds.rounding[here], ("entry", "channel"), interval)
        found.append(_at_entry(peak, here, held, layout, bins))
    found.append(_unheld(outcome, held, layout))
    read = _reader(
        outcome.grad_boxes, lambda where: (where["image"], SIDES.index(str(where["side"])) * bins + int(where["bin"]), where["anchor"])
    )
    return Peaks("gradient of boxes", tuple(p for p in found if p is not None), {"boxes": tuple(outcome.grad_boxes.shape)}, read)


def _at_entry(peak: Peak | None, here: Tensor, held: Assignment, layout: Layout, bins: int) -> Peak | None:
    """The peak with its place named instead of its number among the held anchors of a level."""
    if peak is None:
        return None
    entry, channel = int(here[int(peak.where["entry"])]), int(peak.where["channel"])
    where = layout.place(int(held.image[entry]), int(held.anchor[entry]))
    where |= {"side": SIDES[channel // bins], "bin": channel % bins, "box": int(held.box[entry])}
    return replace(peak, where=where)


def _unheld(outcome: Outcome, held: Assignment, layout: Layout) -> Peak | None:
    """Where nothing is held the gradient of boxes is zero, exactly."""
    largest = outcome.grad_boxes.abs().amax(1)
    largest[held.image, held.anchor] = 0
    peak = peak_of("anchors that are not held", torch.zeros_like(largest), largest, torch.zeros_like(largest), ("image", "anchor"))
    if peak is None:
        return None
    image, anchor = int(peak.where["image"]), int(peak.where["anchor"])
    channel = int(outcome.grad_boxes[image, :, anchor].abs().argmax())
    side, place = divmod(channel, layout.spec.reg_max)
    where = layout.place(image, anchor) | {"side": SIDES[side], "bin": place}
    return replace(peak, where=where)


def _scores(outcome: Outcome, standard: Standard, layout: Layout) -> Peaks:
    held, label, allowed = standard.assignment, standard.label, standard.allowance
    found: list[Peak | None] = []
    for level, part in enumerate(layout.slices):
        here = ((held.anchor >= part.start) & (held.anchor < part.stop)).nonzero()[:, 0]
        image, anchor, own = held.image[here], held.anchor[here], label[here]
        value, truth = outcome.grad_scores[:, :, part], standard.truth.grad_scores[:, :, part]
        slack = standard.scores[:, :, part].abs().mul_(allowed.score_per_logit).add_(allowed.score_share)
        slack.mul_(truth.abs()).add_(allowed.smallest)
        slack[image, own, anchor - part.start] = torch.inf
        other = peak_of(f"level {level}, not held", truth, value, slack, ("image", "class", "anchor"))
        if other is not None:
            place = layout.place(int(other.where["image"]), int(other.where["anchor"]) + part.start) | {"class": other.where["class"]}
            found.append(replace(other, where=place))
        at = (image, own, anchor - part.start)
        found.append(
            _held_score(peak_of(f"level {level}, held", truth[at], value[at], allowed.held_score[here], ("entry",)), here, standard, layout)
        )
    read = _reader(outcome.grad_scores, lambda where: (where["image"], where["class"], where["anchor"]))
    return Peaks("gradient of scores", tuple(p for p in found if p is not None), {"scores": tuple(outcome.grad_scores.shape)}, read)


def _held_score(peak: Peak | None, here: Tensor, standard: Standard, layout: Layout) -> Peak | None:
    if peak is None:
        return None
    entry = int(here[int(peak.where["entry"])])
    held = standard.assignment
    where = layout.place(int(held.image[entry]), int(held.anchor[entry]))
    where |= {"class": int(standard.label[entry]), "box": int(held.box[entry])}
    return replace(peak, where=where)


def _reader(tensor: Tensor, index: Callable[[Where], tuple[int | str, ...]]) -> Callable[[Where], str]:
    return lambda where: f"{float(tensor[tuple(int(i) for i in index(where))]):.9g}"
