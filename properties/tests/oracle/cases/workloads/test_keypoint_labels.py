"""YOLO label files with keypoints: as the reference's reader of pose reads them, or an error that names the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oracle.cases.workloads import load_labels
from oracle.cases.workloads.label_files import labels_of, source_of
from oracle.cases.workloads.task_batches import task_batches
from oracle.cases.workloads.task_packs import keypoint_images
from oracle.reference.label_files import read_images
from oracle.tools.options import KPT_SHAPE
from properties.tests.oracle.cases.workloads.label_files import described, pictured, yolo

BOX = "0 0.5 0.5 0.4 0.4"
FLAGGED = f"{BOX} 0.5 0.5 2 0.6 0.6 0"
PLAIN = f"{BOX} 0.5 0.5 0.6 0.6"
THREE = {
    "flags": FLAGGED,
    "outside": f"{BOX} 0.5 0.5 2 0.6 1.005 1",
    "hidden": f"{BOX} 0 0 0 0.6 0.5 1\n1 0.2 0.2 0.1 0.1 0.2 0.2 1 0.21 0.2 2",
    "twice": f"{FLAGGED}\n{BOX} 0.7 0.5 2 0.6 0.6 0\n{FLAGGED}\n",
    "empty": "",
}
TWO = {"plain": PLAIN, "low": f"{BOX} -0.005 0.5 0.6 0.6", "corner": f"{BOX} 0 0 0.5 1.01", "twice": f"{PLAIN}\n{PLAIN}"}


@pytest.mark.parametrize(("files", "shape"), [(THREE, (2, 3)), (TWO, (2, 2))])
def test_the_reference_reads_the_same(files: dict[str, str], shape: tuple[int, int], tmp_path: Path) -> None:
    """Boxes that stand twice with other keypoints stay; where there is no visibility, a negative coordinate hides a keypoint."""
    labels = described(tmp_path, **files, description=f"nc: 2\nkpt_shape: {list(shape)}")
    for name in files:
        pictured(tmp_path, f"{name}.png")
    theirs = read_images(tmp_path / "images" / "train", 2, shape, posed=True)
    ours = load_labels(labels, posed=True)
    assert set(theirs) == set(files)
    assert ours.keypoint_shape == shape
    points = np.array(ours.extras["keypoints"]).reshape(-1, shape[0], 3)
    for image, name in enumerate(sorted(files)):
        rows, kept = ours.rows(image), theirs[name]
        assert kept.keypoints is not None
        np.testing.assert_array_equal(ours.labels[rows], kept.rows[:, 0])
        np.testing.assert_allclose(ours.boxes[rows] / (200, 100, 200, 100), kept.rows[:, 1:], atol=1e-7)
        np.testing.assert_allclose(points[rows] / (200, 100, 1), kept.keypoints, atol=1e-7)


@pytest.mark.parametrize(
    ("line", "shape", "message"),
    [
        (
            BOX,
            "[2, 3]",
            r"5 values; .*data\.yaml has kpt_shape \[2, 3\]: expected 11; write zeros for the keypoints of a box that has none",
        ),
        (PLAIN, "[2, 3]", r"9 values; .*: expected 11"),
        (f"{BOX} 0.5 0.5 2 0.6 1.5 0", "[2, 3]", r"keypoint 1 at 0.6, 1.5 is not between 0 and 1; divide by"),
        (f"{BOX} nan 0.5 0 0.6 0.5 0", "[2, 3]", r"keypoint 0 at nan, 0.5 is not between"),
        (f"{BOX} 0.5 0.5 3 0.6 0.5 0", "[2, 3]", r"keypoint 0 has visibility 3; write 0 \(not labelled\), 1 \(hidden\) or 2"),
        (f"{BOX} 0.5 0.5 -1 0.6 0.5 0", "[2, 3]", r"keypoint 0 has visibility -1; write"),
        (f"{BOX} 0.5 0.5 0.6 -0.1", "[2, 2]", r"keypoint 1 at 0.6, -0.1 is not between"),
    ],
)
def test_a_bad_line_is_named(line: str, shape: str, message: str, tmp_path: Path) -> None:
    fine = FLAGGED if "3" in shape else PLAIN
    labels = described(tmp_path, a=f"{fine}\n{line}", description=f"kpt_shape: {shape}")
    with pytest.raises(ValueError, match=rf"a\.txt, line 2, .*: {message}"):
        load_labels(labels, posed=True)


def test_the_shape_comes_from_the_description_or_from_the_option(tmp_path: Path) -> None:
    labels = yolo(tmp_path, a=FLAGGED, b=FLAGGED)
    with pytest.raises(ValueError, match=r"nothing says what keypoints its lines have; put the dataset's data\.yaml, .* --kpt-shape K,2"):
        keypoint_images(source_of(str(labels)))
    told = KPT_SHAPE.keywords["type"]("2,3")
    assert told == KPT_SHAPE.keywords["type"]("[2, 3]")
    images = keypoint_images(source_of(str(labels), told))
    assert images.extras["keypoints"][0] == (320, 320, 2, 384, 384, 0)
    boxes = labels_of(source_of(str(labels), told))
    assert boxes is not None
    assert boxes.boxes.tolist() == images.boxes.tolist(), "also for the tasks that do not read keypoints"
    (tmp_path / "data.yaml").write_text("kpt_shape: [3, 2]")
    with pytest.raises(ValueError, match=r"data\.yaml has kpt_shape \[3, 2\], and the option \[2, 3\]; correct one"):
        keypoint_images(source_of(str(labels), told))


def test_other_label_files_have_no_keypoints(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text("{}")
    with pytest.raises(ValueError, match=r"instances\.json is read for its boxes; keypoints are read from YOLO label files"):
        load_labels(tmp_path / "instances.json", posed=True)


@pytest.mark.parametrize(("line", "shape"), [(FLAGGED, (2, 3)), (PLAIN, (2, 2))])
def test_a_model_predicts_the_numbers_that_the_labels_have(line: str, shape: tuple[int, int], tmp_path: Path) -> None:
    (case,) = task_batches("pose", keypoint_images(source_of(str(yolo(tmp_path, a=line)), shape)), imgsz=64, batch=1)
    assert case.spec.keypoint_shape == shape  # type: ignore[attr-defined]
    assert case.extras["keypoints"][0][:3] == (32.0, 32.0, 2.0 if shape[1] == 3 else 1.0)
