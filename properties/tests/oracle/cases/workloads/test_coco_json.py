"""COCO-style label files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oracle.cases.workloads import load_labels
from properties.tests.oracle.cases.workloads.label_files import coco_file


def test_coco_style_labels(tmp_path: Path) -> None:
    pack = load_labels(coco_file(tmp_path))
    assert pack.name == "labels:instances_made"
    assert pack.num_classes == 3
    assert pack.counts.tolist() == [1, 1]
    assert pack.labels.tolist() == [0, 2]
    assert pack.boxes.tolist() == [[100.25, 50, 200.5, 100], [20, 25, 20, 30]]
    assert load_labels(coco_file(tmp_path, categories=None)).num_classes == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotation": {"bbox": [1, 2, 3]}}, r"annotations\[1\]\.bbox: expected `array` of length 4.*; give \[left, top, width, height\]"),
        ({"annotation": {"bbox": [1, 2, -3, 4]}}, r"annotations\[1\] has bbox \[1.0, 2.0, -3.0, 4.0\] in an image of 200 × 100; give"),
        ({"annotation": {"bbox": [1, 2, 300, 4]}}, r"annotations\[1\] has bbox .* within the image"),
        ({"annotation": {"bbox": [-300, 2, 4, 4]}}, r"annotations\[1\] has bbox .* within the image"),
        ({"annotation": {"bbox": [1, 2, float("nan"), 4]}}, r"not JSON \(line 1\)"),
        ({"annotation": {"bbox": "1 2 3 4"}}, r"annotations\[1\]\.bbox: expected `array`, got `str`; give \[left"),
        ({"annotation": {"bbox": ["1", 2, 3, 4]}}, r"annotations\[1\]\.bbox\[0\]: expected `float`, got `str`; give \[left"),
        ({"annotation": {"bbox": None}}, r"annotations\[1\]\.bbox: expected `array`, got `null`; give \[left"),
        ({"annotation": {"iscrowd": "0"}}, r"annotations\[1\]\.iscrowd: expected .*, got `str`; give 0 or 1, without quotes"),
        ({"annotation": {"image_id": 8}}, r"annotations\[1\] has image_id 8; images lists no such id: add it"),
        ({"annotation": {"image_id": "7"}}, r"annotations\[1\] has image_id '7'; the id in images is 7: write both as numbers"),
        ({"annotation": {"image_id": 7.0}}, r"annotations\[1\]\.image_id: expected `int \| str`, got `float`; give the id"),
        ({"annotation": {"category_id": 1}}, r"annotations\[1\] has category_id 1; categories lists no such id"),
        ({"annotation": {"category_id": "5"}}, r"annotations\[1\] has category_id '5'; the id in categories is 5"),
        ({"annotation": {"category_id": None}}, r"annotations\[1\]\.category_id: expected `int \| str`, got `null`"),
        ({"image": {"width": 0}}, r"images\[0\]\.width: expected `int` >= 1; give the image's width in pixels"),
        ({"image": {"width": 10**30}}, r"images\[0\]\.width: .*; give the image's width in pixels"),
        ({"image": {"height": "100"}}, r"images\[0\]\.height: expected `int`, got `str`; give the image's height"),
        ({"image": {"id": 3}}, r"images\[1\] has id 3 like an earlier image; give each image an id of its own"),
        ({"images": None}, r"object missing required field `images`; give a COCO-style instances"),
        ({"images": {}}, r"images: expected `array`, got `object`; give a COCO-style"),
        ({"annotations": ["a"]}, r"annotations\[0\]: expected `object`, got `str`; give a COCO-style"),
        ({"annotations": []}, r"there is no box in any of its 2 images; give labels of a part that has some"),
        ({"categories": [{"id": 5}, {"id": "90"}]}, r"some ids of categories are numbers and some texts, such as 5 and '90'; make all"),
        ({"categories": [{"id": 5}, {"id": 5}]}, r"categories has the id 5 twice"),
        ({"categories": [{"name": "a"}]}, r"categories\[0\]: object missing required field `id`; give each image and category"),
        ({"categories": "none"}, r"categories: expected `array \| null`, got `str`; give a list of objects with id"),
        ({"categories": [{"id": i} for i in range(20_000)]}, r"20,000 categories; at most 16,384 classes fit into memory"),
    ],
)
def test_a_bad_coco_entry_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"instances_made\.json: {message}"):
        load_labels(coco_file(tmp_path, **change))


def test_coco_entries_without_a_field_are_named(tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": [{"id": 1, "height": 3}], "annotations": []}))
    with pytest.raises(ValueError, match=r"images\[0\]: object missing required field `width`; give the image's width"):
        load_labels(file)
    file.write_text(
        json.dumps({"images": [{"id": 1, "width": 3, "height": 3}], "annotations": [{"id": 4, "category_id": 1, "bbox": [1, 1, 1, 1]}]})
    )
    with pytest.raises(ValueError, match=r"annotations\[0\]: object missing required field `image_id`; give the id of one of the images"):
        load_labels(file)


def test_null_categories_are_as_none_and_crowds_may_be_written_in_three_ways(tmp_path: Path) -> None:
    file = coco_file(tmp_path)
    record = json.loads(file.read_text())
    record["categories"] = None
    first, second = record["annotations"][:2]
    record["annotations"] = [
        first | {"iscrowd": None, "segmentation": {"counts": "xyz", "size": [50, 50]}},
        first | {"id": 9},
        second | {"iscrowd": False},
        second | {"iscrowd": True},
        second | {"bbox": [3, 3, 0, 5]},
    ]
    file.write_text("\ufeff" + json.dumps(record))
    pack = load_labels(file)
    assert pack.num_classes == 2
    assert pack.counts.tolist() == [1, 1], "a crowd, a box without area and one that is there twice are left out"
    assert "2 images; 3 annotations left out" in pack.origin


def test_ids_may_be_texts(tmp_path: Path) -> None:
    record = json.loads(coco_file(tmp_path).read_text())
    for image in record["images"]:
        image["id"] = f"img-{image['id']}"
    for annotation in record["annotations"]:
        annotation["image_id"] = f"img-{annotation['image_id']}"
    (tmp_path / "texts.json").write_text(json.dumps(record))
    assert load_labels(tmp_path / "texts.json").counts.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not JSON"),
        (b"[]", r"expected `object`, got `array`"),
        (b"null", r"expected `object`, got `null`"),
        (b'{"images": [],\n"annotations": [}', r"not JSON \(line 2\)"),
        (b'{"x": ' + b"[" * 100_000, r"nested too deeply"),
        (b'{"images": [{"id": 1, "width": 1e400, "height": 1}], "annotations": []}', r"images\[0\]\.width: .*; give the image's width"),
        ('{"images": []}'.encode("utf-16"), r"is UTF-16 text; save it as UTF-8"),
        (b"PK\x03\x04\x00", r"line 1: a zero byte"),
    ],
)
def test_a_file_that_is_no_coco_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"broken\.json.*{message}"):
        load_labels(tmp_path / "broken.json")


def test_coco_files_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"instances_made\.json lists no image"):
        load_labels(coco_file(tmp_path, images=[], annotations=[]))
