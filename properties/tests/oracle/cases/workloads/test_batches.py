"""Real batches: which images meet, and where their boxes are placed."""

from __future__ import annotations

import numpy as np
import pytest

from oracle.cases.case import Box, Case
from oracle.cases.workloads import LabelledImages, real_batches
from twinloss import LossSpec


def within(case: Case, slack: float = 1e-3) -> bool:
    height, width = case.image_size
    return all(
        b.cx - b.w / 2 > -slack and b.cy - b.h / 2 > -slack and b.cx + b.w / 2 < width + slack and b.cy + b.h / 2 < height + slack
        for b in case.boxes
    )


@pytest.mark.parametrize("layout", ["letterbox", "mosaic", "rect", "crowded"])
def test_layouts(layout: str) -> None:
    name = "synthetic-coco" if layout == "letterbox" else f"synthetic-coco-{layout}"
    batches = list(real_batches(name, count=3, seed=2))
    assert {case.workload for case in batches} == {name}
    assert [case.prediction.kind for case in batches] == ["early", "middle", "late"]
    for case in batches:
        assert case.batch_size == 16
        assert case.spec == LossSpec(num_classes=80)
        assert [box.image for box in case.boxes] == sorted(box.image for box in case.boxes)
        assert within(case)
        assert max(case.image_size) == 640
        assert Case.from_json(case.to_json()) == case
    boxes = np.mean([len(case.boxes) for case in batches])
    if layout == "letterbox":
        assert all(case.image_size == (640, 640) for case in batches)
        assert 60 < boxes < 180
    if layout == "mosaic":
        assert 300 < boxes < 650  # 464 in the median of the real ones.
    if layout == "crowded":
        assert boxes > 16 * 20
    if layout == "rect":
        assert {case.image_size for case in batches} <= {(480, 640), (448, 640), (640, 480), (640, 640)}
        assert any(case.image_size != (640, 640) for case in batches)


def pack_of(*images: tuple[tuple[int, int], list[tuple[int, float, float, float, float]]]) -> LabelledImages:
    rows = [row for _, of_image in images for row in of_image]
    return LabelledImages(
        name="made",
        origin="made here",
        num_classes=3,
        sizes=np.array([size for size, _ in images]),
        starts=np.concatenate([[0], np.cumsum([len(of_image) for _, of_image in images])]),
        labels=np.array([row[0] for row in rows]),
        boxes=np.array([row[1:] for row in rows]),
    )


def test_letterboxing_by_hand() -> None:
    """Twice as wide as high: halved, and moved down by a quarter of the square."""
    pack = pack_of(((1280, 640), [(2, 100, 50, 40, 20)]))
    (square,) = real_batches(pack, batch=1)
    assert square.boxes == (Box(0, 2, 50, 25 + 160, 20, 10),)
    (rectangle,) = real_batches(pack, batch=1, layout="rect")
    assert rectangle.image_size == (320, 640)
    assert rectangle.boxes == (Box(0, 2, 50, 25, 20, 10),)


def test_mosaic_keeps_the_four_images_apart() -> None:
    whole = [((100, 100), [(label, 50.0, 50.0, 100.0, 100.0)]) for label in (0, 1, 2, 0)]
    (case,) = real_batches(pack_of(*whole), batch=1, layout="mosaic")
    assert len(case.boxes) == 4
    corners = [(b.cx - b.w / 2, b.cy - b.h / 2, b.cx + b.w / 2, b.cy + b.h / 2) for b in case.boxes]
    for i, (left, top, right, bottom) in enumerate(corners):
        for x1, y1, x2, y2 in corners[i + 1 :]:
            assert min(right, x2) <= max(left, x1) + 1e-3 or min(bottom, y2) <= max(top, y1) + 1e-3


def test_every_image_comes_once_before_any_comes_twice() -> None:
    pack = pack_of(*[((64, 64), [(0, 1.0 + image, 32.0, 2.0, 2.0)]) for image in range(12)])
    seen = [box.cx for case in real_batches(pack, imgsz=64, batch=4, count=3) for box in case.boxes]
    assert len(set(seen)) == 12
    again = [box.cx for case in real_batches(pack, imgsz=64, batch=4, count=3) for box in case.boxes]
    other = [box.cx for case in real_batches(pack, imgsz=64, batch=4, count=3, seed=1) for box in case.boxes]
    assert seen == again != other
    # A batch larger than the pack goes round again.
    (large,) = real_batches(pack, imgsz=64, batch=30)
    assert len(large.boxes) == 30


def test_unknown_names_are_refused() -> None:
    for name in ("cocoa", "labels", "coco-tiles"):
        with pytest.raises(ValueError, match=rf"workload '{name}' is unknown; choose one of coco, gwhd, bccd"):
            next(real_batches(name))
    with pytest.raises(ValueError, match="layout 'tiles' is unknown"):
        next(real_batches("synthetic-bccd", layout="tiles"))
    for imgsz in (650, 0, -64):
        with pytest.raises(ValueError, match=f"imgsz {imgsz} is not a multiple of the coarsest stride, 32"):
            next(real_batches("synthetic-bccd", imgsz=imgsz))
    with pytest.raises(ValueError, match="batch is 0; give 1 image or more"):
        next(real_batches("synthetic-bccd", batch=0))


# Label files.
