"""The assignment of a contender that shows none, read from its gradients (spec section 7).

Only open anchors are in question: at the others the right answer is known, and a wrong one will show in the numbers. At an open one every
box that may hold it says what the gradients would then be (:mod:`oracle.inference.evidence`); of those that say what was seen, the
definition's own is taken, or the one that fits best. A weight depends on what else the box holds, so this is repeated. Where a prediction
is all but perfect no gradient tells whether the anchor is held: then it is S that says how many are.

Nothing is excused by it: what is read here is judged as an assignment and by its numbers, as one that was shown would be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from oracle.contract.run import Outcome
from oracle.inference.evidence import Clues, Explained, clues_of, expected_weights
from oracle.judge.indistinguishable import NONE, Choice, Room, room
from oracle.judge.truth import Definition
from oracle.tolerance.allowed_assignments import NOBODY, Allowed
from oracle.tolerance.assignment import Holdings
from oracle.tolerance.margins import Floats, Ints
from oracle.tolerance.precision import Arithmetic

_PASSES = 6
_FITS = 2.0  # Roundings, or as many times those of the best explanation, within which the gradients are explained.
_CHANCE = 30.0  # Logarithm of how much likelier another explanation makes what was seen.
_BALANCED = 64.0  # Roundings of S, within which it is as it was seen.


class Reading(NamedTuple):
    """Holdings that explain the gradients, and how far the terms may be from theirs: other holdings may explain them as well."""

    holdings: Holdings
    room: Room


class _Option(NamedTuple):
    """Who may hold an anchor, and what the gradients say to it; lower is likelier.

    Attributes:
        box: or ``NOBODY``.
        expected, fitted, surprise, off: as in :class:`~oracle.inference.evidence.Explained`.
    """

    box: int
    expected: float
    fitted: float
    surprise: float
    off: float


@dataclass(frozen=True)
class Reader:
    """Reads an assignment from a contender's gradients.

    Args:
        outcome: the contender's.
        allowed: what it may answer.
        exact: the definition's answer: it stands wherever no other is allowed.
        definition: the case.
        arithmetic: the contender's.
    """

    outcome: Outcome
    allowed: Allowed
    exact: Holdings
    definition: Definition
    arithmetic: Arithmetic

    def readings(self) -> Iterator[Reading]:
        """Assignments that explain the gradients, with rough weights: first those that leave most as the definition has it."""
        pairs = self.allowed.margins.pairs
        options = np.bincount(pairs.cell[self.allowed.pair], minlength=len(self.allowed.nobody))
        is_open = (options > 1) | ((options == 1) & self.allowed.nobody)
        (asked,) = np.nonzero(self.allowed.pair & is_open[pairs.cell])
        if not len(asked):
            return
        clues = clues_of(self.outcome, self.allowed, asked, self.definition, self.arithmetic)
        seen = set()
        for idle in (False, True):
            holder = self._settled(clues, idle=idle)
            for answer in (holder, self._balanced(clues, holder)):
                held = self._holdings(answer)
                if held.key not in seen:
                    seen.add(held.key)
                    yield Reading(held, self._room(clues, answer))

    def _own(self) -> Ints:
        return self.exact.holder(len(self.allowed.nobody))

    def _holdings(self, holder: Ints) -> Holdings:
        (held,) = np.nonzero(holder != NOBODY)
        box = holder[held]
        weight = self._weights(holder)
        return Holdings(held, box, self.allowed.margins.boxes.row[box], np.maximum(weight, np.finfo(np.float64).tiny))

    def _weights(self, holder: Ints) -> Floats:
        """Soft targets (H,) of what is held."""
        (held,) = np.nonzero(holder != NOBODY)
        return expected_weights(self.allowed, self.allowed.lookup(held, holder[held]), holder, self.definition.case.spec).value

    def _rate(self, clues: Clues, holder: Ints) -> float:
        """B / S: as the scores show it, or of these holders [7]."""
        return clues.rate or self.definition.case.batch_size / max(float(self._weights(holder).sum()), 1.0)

    def _settled(self, clues: Clues, *, idle: bool) -> Ints:
        """Box (B·A,) that holds each anchor, or ``NOBODY``, read again until it stays; ``idle``: what shows nothing is held by nobody."""
        holder = self._own()
        for _ in range(_PASSES):
            before, holder = holder, self._own()
            for cell, options in self._options(clues, before):
                holder[cell] = _likeliest(options, NOBODY if idle else int(holder[cell]))
            if (holder == before).all():
                break
        return holder

    def _options(self, clues: Clues, holder: Ints) -> Iterator[tuple[int, list[_Option]]]:
        """Each open anchor, and who may hold it, given what the boxes hold by ``holder``."""
        pairs = self.allowed.margins.pairs
        expected = expected_weights(self.allowed, clues.pair, holder, self.definition.case.spec)
        explained = clues.explained(expected, self._rate(clues, holder))
        silent = (clues.seen == 0).all(1)
        box = pairs.box[clues.pair]
        for cell, here in _by_cell(pairs.cell[clues.pair]):
            yield cell, _options_at(box, here, clues, explained, silent=bool(silent[here[0]]), nobody=bool(self.allowed.nobody[cell]))

    def _balanced(self, clues: Clues, holder: Ints) -> Ints:
        """The same, but that so many of the anchors of which no gradient tells are held that S is as it was seen."""
        answer = holder.copy()
        if clues.rate is None:
            return answer
        wanted, spec = self.definition.case.batch_size / clues.rate, self.definition.case.spec
        expected = expected_weights(self.allowed, clues.pair, holder, spec).value
        entries = self._entries(clues)
        weight = {key: float(expected[at]) for key, at in entries.items()}
        left = wanted - float(self._weights(holder).sum())
        free = [(cell, box) for cell, fit in self._told_alike(clues, holder) for box in fit]
        pairs, uncontested = self.allowed.margins.pairs, self.allowed.alone
        alone = {key for key, at in entries.items() if uncontested[clues.pair[at]]}
        number = Counter(pairs.box[uncontested & (holder[pairs.cell] == pairs.box)].tolist())
        for _ in free:
            able = [one for one in free if one not in alone or number[one[1]] < spec.topk]
            steps = [(weight.get(one, 0.0) - weight.get((one[0], int(answer[one[0]])), 0.0), one) for one in able]
            change, (cell, box) = min(steps, key=lambda step: abs(left - step[0]), default=(0.0, (0, NOBODY)))
            if abs(left) <= _BALANCED * clues.roundoff * wanted or abs(left - change) >= abs(left):
                break
            number[int(answer[cell])] -= (cell, int(answer[cell])) in alone
            number[box] += (cell, box) in alone
            left, answer[cell] = left - change, box
        return answer

    def _entries(self, clues: Clues) -> dict[tuple[int, int], int]:
        """Number of the entry (Q,) of each anchor and box."""
        pairs = self.allowed.margins.pairs
        keys = zip(pairs.cell[clues.pair].tolist(), pairs.box[clues.pair].tolist(), strict=True)
        return {key: at for at, key in enumerate(keys)}

    def _room(self, clues: Clues, holder: Ints) -> Room:
        """How far the terms may be from those of these holders (B·A,): what no gradient tells may be otherwise."""
        untold = [(cell, fit) for cell, fit in self._told_alike(clues, holder) if len(fit) > 1 and int(holder[cell]) in fit]
        if not untold:
            return NONE
        spec, entries, rate = self.definition.case.spec, self._entries(clues), self._rate(clues, holder)
        weight = expected_weights(self.allowed, clues.pair, holder, spec).value
        share = weight if spec.anchor_weights == "own" else np.full_like(weight, self._weights(holder).sum())
        worth = rate * share[:, None] * clues.worth
        choices = []
        for cell, fit in untold:
            at = [entries.get((cell, box)) for box in fit]
            weights = np.array([0.0 if k is None else weight[k] for k in at])
            worths = np.array([np.zeros(clues.worth.shape[1]) if k is None else worth[k] for k in at])
            choices.append(Choice(weights, worths, fit.index(int(holder[cell]))))
        return room(choices)

    def _told_alike(self, clues: Clues, holder: Ints) -> Iterator[tuple[int, list[int]]]:
        """Each open anchor, and all those, of boxes and ``NOBODY``, of which its gradients may be."""
        for cell, options in self._options(clues, holder):
            yield cell, [option.box for option in _plausible(options)]


def _by_cell(cell: Ints) -> Iterator[tuple[int, Ints]]:
    """Each anchor, and which of the entries (Q,) are there."""
    order = np.argsort(cell, kind="stable")
    for here in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1):
        yield int(cell[here[0]]), here


def _options_at(box: Ints, here: Ints, clues: Clues, explained: Explained, *, silent: bool, nobody: bool) -> list[_Option]:
    """Who may hold an anchor, from the entries (Q,) that are there; ``silent``: its boxes' gradient is 0."""
    label, without = clues.label[here], explained.without[here]
    elsewhere = np.where(label[:, None] != label, without, 0.0).max(1)
    impossible = np.where(explained.loud[here] & silent, np.inf, elsewhere)
    fits = (np.maximum(fit[here], impossible).tolist() for fit in (explained.expected, explained.fitted))
    # That a gradient is exactly 0 is no matter of densities.
    surprise = np.zeros(len(here)) if silent else explained.surprise[here]
    others = (surprise.tolist(), explained.off[here].tolist())
    options = [_Option(*one) for one in zip(box[here].tolist(), *fits, *others, strict=True)]
    if nobody and silent:
        options.append(_Option(NOBODY, float(without.max()), float(without.max()), 0.0, 0.0))
    return options


def _plausible(options: list[_Option]) -> list[_Option]:
    """Those that say what was seen, but for those that say it by chance alone."""
    fits = [option for option in options if option.expected <= _FITS]
    least = min((option.surprise for option in fits), default=0.0)
    return [option for option in fits if option.surprise <= least + _CHANCE]


def _likeliest(options: list[_Option], own: int) -> int:
    """The box, or ``NOBODY``, that explains best what was seen at an anchor; where several do, ``own`` if it is among them."""
    as_expected = [(o.box != own, o.expected, o.box) for o in _plausible(options)]
    if as_expected:
        return min(as_expected)[-1]
    # What else the boxes hold is not known yet, or not right, so that the weights expected are not.
    fits = [(min(o.expected, o.fitted), o.off, o.box) for o in options]
    limit = _FITS * max(1.0, min(fits, default=(np.inf,))[0])
    likely = [(off, box != own, fit, box) for fit, off, box in fits if fit <= limit]
    return min(likely)[-1] if likely else own
