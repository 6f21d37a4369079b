"""Crowds keep to their pattern."""

from __future__ import annotations

from oracle.cases.case import Case
from properties.strategies import PATTERNS, Crowd, Frame, tags_of
from twinloss import LossSpec


def test_crowds_keep_to_their_pattern() -> None:
    frame = Frame(LossSpec(num_classes=3), 64, 128)
    for pattern in PATTERNS:
        boxes = Crowd(image=0, count=30, pattern=pattern, seed=5).boxes(frame, image=2)
        assert len(boxes) == 30
        assert {box.image for box in boxes} == {2}
        assert all(box.w >= 0 and box.h >= 0 for box in boxes)
        case = Case(frame.spec, (64, 128), 3, tuple(boxes), workload="generated")
        if pattern == "tiles":  # Tiles share borders only, but the inside test lengthens them.
            assert "nested" not in tags_of(case)
        elif pattern != "scatter":
            assert "crowded" in tags_of(case), pattern
    assert "identical-classes" in tags_of(Case(frame.spec, (64, 128), 1, tuple(Crowd(0, 5, "copies", 1).boxes(frame, 0))))
