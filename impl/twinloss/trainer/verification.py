"""Whether the twin computes what a model's own criterion computes, asked on one batch.

Both are asked on copies of the same predictions, half precision widened to float32, outside autocast. The own criterion's assignment is
taken from its assigner, and compared apart, since a decision between two anchors, or two boxes, that are equal but for rounding may fall
otherwise in two right programs; the terms are compared on that one assignment, where nothing but rounding can part them.

What differs by more than an allowance for rounding is asked again with logits and boxes moved by some roundings. What the twin itself does
otherwise then is open, and excused. What still differs is compared with the own criterion's answer in float64: in float32 its cross-entropy
of a logit x is rounded at the scale of x, not of the entropy, and where many logits are equal, as those of a model that has learnt nothing,
these roundings have one sign and add up (0.8 % at x = −10, 15 % at −14). The rest is a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from twinloss.assignment.assign import Assignment
from twinloss.end_to_end import EndToEndLoss
from twinloss.geometry.registry import GEOMETRIES
from twinloss.inputs.admission import layout_of, pyramid_of
from twinloss.loss import LOSSES, PoseLoss, TaskLoss
from twinloss.release_definitions import DEFINITIONS
from twinloss.spec import LossSpec
from twinloss.trainer.own_criterion import OwnCriterion
from twinloss.trainer.return_format import first_of, mapped, plain, undisturbed

Loss = TaskLoss | EndToEndLoss
Batch = Mapping[str, Any]
Asked = tuple[Any, Batch]

# Terms on a given assignment: sums of float32 in two orders, and 1 - CIoU of boxes that nearly coincide.
TERMS, TERMS_NEAR_ZERO = 1e-4, 2e-6
# Soft targets contain the sixth power of an overlap, whose rounding they multiply.
TARGET = 1e-3
# Below this largest soft target a box's anchors say little, since the overlaps behind them are mostly rounding.
TELLING_TARGET = 1e-3
# Moves that exceed the rounding of either program, so that whatever rounding can tip, one of several moves tips.
MOVED_LOGITS, MOVED_BOXES, MOVES = 1e-5, 3e-7, 8
MARGIN = 4.0  # the largest of a few moves, and what another program's rounding may be beside it


class OwnCriterionError(Exception):
    """A model's own criterion raised on a batch; the error is the ``__cause__``."""


@dataclass(frozen=True)
class Finding:
    """What came of comparing the two on one batch.

    Attributes:
        differs: in words, or nothing.
        largest: relative difference of the terms, the largest.
        telling: whether a box of the batch held anchors that would have shown another assignment or box term.
        weightless: held anchors without a soft target that the own criterion counts in its mask or keypoint terms, and the twin, whose ties
            are "stable", does not.
    """

    differs: str
    largest: float
    telling: bool
    weightless: int = 0


def verify(own: OwnCriterion, loss: Loss, preds: Any, batch: Batch) -> Finding:
    """Compare the twin with a model's own criterion on one batch.

    Args:
        own: the model's own criterion.
        loss: the twin, with the own criterion's numbers.
        preds: as the model's head gave them: one set, or those of an end-to-end head by name.
        batch: targets.

    Raises:
        OwnCriterionError: the own criterion raises on this batch.
    """
    with undisturbed(preds):
        asked = mapped(preds, plain), own.task.copied(batch)
        found = _compare(own, loss, asked)
        if found.differs and not _differs_in_float64(own, loss, asked):
            found = replace(found, differs="")
        if found.differs and (release := _matching_release(own, loss, asked)):
            found = replace(
                found, differs=f"{found.differs}. It agrees with the definition of release {release}: say install(..., release={release!r})"
            )
    return found


def _differs_in_float64(own: OwnCriterion, loss: Loss, asked: Asked) -> bool:
    """Whether the twin also differs from the own criterion's answer in float64, or there is no such answer."""
    try:
        return bool(_compare(own, loss, asked, dtype=torch.float64).differs)
    except OwnCriterionError:  # the device, or the criterion, knows no float64
        return True


def _compare(own: OwnCriterion, loss: Loss, asked: Asked, dtype: torch.dtype | None = None) -> Finding:
    """Compare the twin with the own criterion, which is asked in ``dtype``, or in that of the predictions."""
    preds, batch = asked
    with _recording(own) as recorded:
        try:
            value, items = own.criterion(preds if dtype is None else mapped(preds, lambda logits: logits.to(dtype)), batch)
        except Exception as error:  # such as for fewer anchors than candidates, which the twin serves
            raise OwnCriterionError(f"{type(error).__name__} ({str(error).partition(chr(10))[0]})") from error
    twins = twins_of(loss)
    if set(recorded) != set(twins):
        return Finding("its assigner was not asked", math.nan, telling=True)
    held = {name: _assignment(answer, twins[name], *_part(asked, name)) for name, answer in recorded.items()}
    images = first_of(asked[0]).shape[0]
    theirs = _named(value, items, images, next(iter(twins.values())).spec)
    if not all(map(math.isfinite, theirs.values())):
        return Finding("", math.nan, telling=False)  # predictions that have overflowed tell nothing of either
    terms, largest = _differing_terms(loss, held, theirs, asked)
    rows, telling = 0, False
    for name, twin in twins.items():
        clear, judged = _differing_boxes(twin, held[name], _part(asked, name))
        rows, telling = rows + len(clear), telling or judged
    words = [*terms, *([_assigned_otherwise(rows, loss, theirs, asked)] if rows and not terms else [])]
    return Finding("; ".join(words), largest, telling, sum(_left_out(twin, held[name]) for name, twin in twins.items()))


def _left_out(twin: TaskLoss, theirs: Assignment) -> int:
    """How many held anchors without a soft target count in the own criterion's terms and not in the twin's."""
    return int((theirs.weight == 0).sum()) if twin.spec.counts_weightless and twin.ties == "stable" else 0


def twins_of(loss: Loss) -> dict[str, TaskLoss]:
    """The losses of a twin by the set of predictions that each takes, "" where there is one set."""
    return {"": loss} if isinstance(loss, TaskLoss) else {"one2many": loss.one2many, "one2one": loss.one2one}


def _part(asked: Asked, name: str) -> Asked:
    """The question to one of the twins."""
    return (asked[0][name] if name else asked[0]), asked[1]


@contextmanager
def _recording(own: OwnCriterion) -> Iterator[dict[str, tuple[Tensor, ...]]]:
    """What the own criterion's assigners answer meanwhile, by the name of their part."""
    recorded: dict[str, tuple[Tensor, ...]] = {}

    def listener(name: str) -> Callable[[Any, Any, Any], None]:
        return lambda _, __, answer: recorded.__setitem__(name, answer)

    handles = [part.assigner.register_forward_hook(listener(name)) for name, part in own.parts.items()]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _assignment(answer: tuple[Tensor, ...], twin: TaskLoss, preds: Any, batch: Batch) -> Assignment:
    """What an own assigner answered (labels, boxes, soft targets, foreground, index within the image) in our terms."""
    _, _, targets, foreground, index = answer
    weight = targets.sum(-1)
    held = foreground.bool() if twin.spec.counts_weightless else (weight > 0) & foreground.bool()
    image, anchor = held.nonzero(as_tuple=True)
    images = batch["batch_idx"].reshape(-1).to(image.device, torch.int64)
    order = images.argsort(stable=True)  # an image's rows keep the order in which they arrived
    order = order[_counted(twin.spec, preds, batch).to(order.device)[order]]
    first = torch.searchsorted(images[order], image)
    return Assignment(image, anchor, order[first + index[image, anchor].long()], weight[image, anchor])


def _counted(spec: LossSpec, preds: Any, batch: Batch) -> Tensor:
    """Rows of the batch (N,) that have an index within their image."""
    geometry = GEOMETRIES[spec.geometry]
    bboxes = batch["bboxes"].reshape(-1, len(geometry.targets))
    return geometry.counted(geometry.in_pixels(bboxes, pyramid_of(layout_of(preds, spec), spec).image_size))


def _named(value: Any, items: Any, images: int, spec: LossSpec) -> dict[str, float]:
    """Terms and logged items by name; a loss that is a scalar as the sum of the terms."""
    names, value = spec.term_names, torch.as_tensor(value) / images
    vector = value.numel() == len(names)
    terms = {f"{name} (in the loss)": float(term) for name, term in zip(names, value, strict=True)} if vector else {}
    logged = items.values() if isinstance(items, Mapping) else items
    summed = {} if terms else {"sum of the terms": float(value)}
    return terms | summed | {name: float(item) for name, item in zip(names, logged, strict=True)}


def _given(loss: Loss, held: Mapping[str, Assignment], asked: Asked, shape: Mapping[str, float]) -> dict[str, float]:
    """The twin's terms on an assignment, named as :func:`_named` names them."""
    preds, batch = asked
    parts = {name: twin.loss_given(preds[name] if name else preds, batch, held[name]) for name, twin in twins_of(loss).items()}
    value, items = parts[""] if isinstance(loss, TaskLoss) else loss.combine(parts["one2many"], parts["one2one"])
    spec = next(iter(twins_of(loss).values())).spec
    return _named(value if len(shape) == 2 * len(spec.terms) else value.sum(), items, first_of(preds).shape[0], spec)


def _differing_terms(loss: Loss, held: Mapping[str, Assignment], theirs: Mapping[str, float], asked: Asked) -> tuple[list[str], float]:
    """Terms that differ on the own assignment beyond rounding, in words, and the largest relative difference."""
    ours = _given(loss, held, asked, theirs)
    apart = {name: abs(ours[name] - value) for name, value in theirs.items()}
    largest = max(apart[name] / max(abs(value), TERMS_NEAR_ZERO) for name, value in theirs.items())
    allowed = {name: TERMS * abs(value) + TERMS_NEAR_ZERO for name, value in theirs.items()}
    if any(not apart[name] <= allowed[name] for name in theirs):
        for moved in _moves(asked):
            for name, value in _given(loss, held, moved, theirs).items():
                allowed[name] = max(allowed[name], MARGIN * abs(value - ours[name]))
    return [_words(name, ours[name], value) for name, value in theirs.items() if not apart[name] <= allowed[name]], largest


def _words(name: str, ours: float, theirs: float) -> str:
    return f"{name} is {theirs:.6g} where the twin has {ours:.6g}"


def _differing_boxes(twin: TaskLoss, theirs: Assignment, asked: Asked) -> tuple[set[int], bool]:
    """Rows of the batch whose anchors clearly have other soft targets, and whether any row can tell."""
    options: dict[str, Any] = {"flow": twin.flow} if isinstance(twin, PoseLoss) else {}
    strict = LOSSES[twin.spec.task](twin.spec, ties="reference", backend="torch", validate=False, **options)
    expected, ours = _targets(theirs), _targets(strict.assign(*asked))
    judged = {row for row, values in (*expected.items(), *ours.items()) if values[0] >= TELLING_TARGET}
    rows = {row for row in judged if _apart(expected.get(row, []), ours.get(row, []))}
    if rows:
        for moved in _moves(asked):
            other = _targets(strict.assign(*moved))
            tipped = {row for row in judged if _apart(other.get(row, []), ours.get(row, []))}
            rows, judged = rows - tipped, judged - tipped
    return rows, bool(judged)


def _targets(held: Assignment) -> dict[int, list[float]]:
    """The soft targets of each row's anchors, largest first: which of two equal anchors holds one makes no difference."""
    found: dict[int, list[float]] = {}
    for row, weight in zip(held.box.tolist(), held.weight.tolist(), strict=True):
        found.setdefault(row, []).append(weight)
    return {row: sorted(weights, reverse=True) for row, weights in found.items()}


def _apart(first: list[float], second: list[float]) -> bool:
    """Whether a box's soft targets are others, within what rounding leaves of its largest."""
    length = max(len(first), len(second))
    pairs = zip(first + [0.0] * (length - len(first)), second + [0.0] * (length - len(second)), strict=True)
    allowed = TARGET * max([*first[:1], *second[:1]], default=0.0)
    return any(abs(one - other) > allowed for one, other in pairs)


def _moves(asked: Asked) -> Iterator[Asked]:
    """The same question with every logit and coordinate moved by some roundings."""
    preds, batch = asked
    generator = torch.Generator().manual_seed(0)

    def move(tensor: Tensor, by: float, least: float) -> Tensor:
        sign = torch.randint(0, 2, tensor.shape, generator=generator).to(tensor.device, tensor.dtype) * 2 - 1
        return tensor + by * sign * tensor.abs().clamp(min=least)

    for _ in range(MOVES):
        yield mapped(preds, lambda logits: move(logits, MOVED_LOGITS, 1.0)), {**batch, "bboxes": move(batch["bboxes"], MOVED_BOXES, 0.0)}


def _assigned_otherwise(rows: int, loss: Loss, theirs: Mapping[str, float], asked: Asked) -> str:
    """Words for another assignment, with the term that it changes most."""
    preds, batch = asked
    held = {name: twin.assign(preds[name] if name else preds, batch) for name, twin in twins_of(loss).items()}
    ours = _given(loss, held, asked, theirs)
    worst = max(theirs, key=lambda name: abs(ours[name] - theirs[name]) / max(abs(theirs[name]), TERMS_NEAR_ZERO))
    return f"it assigns other anchors or soft targets to {rows} of the batch's boxes, so that {_words(worst, ours[worst], theirs[worst])}"


def _matching_release(own: OwnCriterion, loss: Loss, asked: Asked) -> str | None:
    """The newest release, other than the one assumed, whose definition agrees."""
    twins, numbers = twins_of(loss), own.numbers()
    before = {name: twin.spec for name, twin in twins.items()}
    try:
        for first, _ in reversed(DEFINITIONS[own.kind.spec.task]):
            specs = own.specs(numbers, replace(own.release, version=first))
            if any(spec.terms != before[name].terms for name, spec in specs.items()):
                continue  # the own criterion returns other terms than that release's
            for name, twin in twins.items():
                twin.spec = specs[name]
            if specs != before and not _compare(own, loss, asked).differs:
                return first
    finally:
        for name, twin in twins.items():
            twin.spec = before[name]
    return None
