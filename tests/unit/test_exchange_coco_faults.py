"""COCO files that are damaged, hostile or wrong: refused by name, before anything is allocated."""

from __future__ import annotations

import json

import numpy as np
import pytest
from exchange_cases import file, mutations, survive
from pycocotools import mask as judge

from crowdmask.corrections.exchange import coco, jsons
from crowdmask.corrections.exchange.budget import Budget
from crowdmask.errors import DataError

H, W = 20, 30
SQUARE = np.zeros((H, W), bool)
SQUARE[3:6, 2:5] = True
RING = [2, 3, 5, 3, 5, 6, 2, 6]


def content(*annotations, images=None, **keys) -> dict:
    images = images if images is not None else [{"id": 1, "file_name": "a.png", "height": H, "width": W}]
    entries = [{"id": number, "image_id": 1, **entry} for number, entry in enumerate(annotations, 1)]
    return {"images": images, "annotations": entries, **keys}


def problem(text: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        list(coco.read(file(text)))
    assert str(caught.value).startswith("x.dat: ")
    return caught.value.problem


def rle_entry(counts, size=(H, W)) -> dict:
    return {"segmentation": {"size": list(size), "counts": counts}}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, "no mask, at most a box"),
        ({"bbox": [1, 2, 3, 4]}, "no mask, at most a box"),
        ({"bbox": [1, 2, 3, 4], "segmentation": []}, "no mask, at most a box"),
        ({"segmentation": "polygon"}, "neither run lengths nor"),
        ({"segmentation": [[]]}, "without points"),
        ({"segmentation": [[1, 2, 3]]}, "an x lacks its y"),
        ({"segmentation": [[1, 2, 3, None]]}, "no number"),
        ({"segmentation": [{"size": [H, W], "counts": "0"}]}, "a list of run lengths"),
        ({"segmentation": [RING, "x"]}, "no list"),
        ({"segmentation": [[0, 0, 1e6 + 1, 0, 5, 5]]}, "within 1000000"),
        ({"segmentation": [[1e999, 0, 5, 0, 5, 5]]}, "Infinity"),
        ({"segmentation": [[0.5] * 2_000_000]}, "100000 points"),
        ({"segmentation": [[0, 0]] * 1001}, "1001 rings"),
        (rle_entry([H * W], (W, H)), "another size"),
        (rle_entry([H * W], (H,)), "another size"),
        (rle_entry([10**10], (10**5, 10**5)), "another size"),
        ({"segmentation": {"counts": [H * W]}}, "another size"),
        (rle_entry(None), "neither text nor"),
        (rle_entry([]), "0 run lengths"),
        (rle_entry([-1, H * W + 1]), "negative"),
        (rle_entry([10**30]), "larger than the picture"),
        (rle_entry([1.5, H * W - 1.5]), "no whole number"),
        (rle_entry([True, H * W - 1]), "no whole number"),
        (rle_entry([1, 2, 3]), "add up to 6, not to the 600"),
        (rle_entry("\x00"), "foreign character"),
        (rle_entry("é"), "foreign character"),
        (rle_entry("oooooooo"), "cut off"),
        (rle_entry("ooooooooooo0"), "fits no image"),
        (rle_entry("O0"), "negative run"),
        (rle_entry("`f_n`90"), "add up"),
        (rle_entry("0" * (4 << 20) + "0"), "characters"),
    ],
)
def test_bad_shapes_are_refused_by_annotation(entry, words):
    text = json.dumps(content({"segmentation": [RING]}, entry))
    with pytest.raises(DataError, match=words) as caught:
        list(coco.read(file(text)))
    if "Infinity" not in words:
        assert "annotation 2" in str(caught.value)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("a", r"images\[1\] is no object"),
        ({"file_name": "b", "height": 1, "width": 1}, "no whole number as `id`"),
        ({"id": True}, "no whole number as `id`"),
        ({"id": 1.0, "file_name": "b", "height": 1, "width": 1}, "the id 1 of another image"),
        ({"id": 2, "height": 1, "width": 1}, "image 2 has no `file_name`"),
        ({"id": 2, "file_name": 5, "height": 1, "width": 1}, "image 2 has no `file_name`"),
        ({"id": 2, "file_name": "b", "height": 0, "width": 1}, "image 2 needs `height`"),
        ({"id": 2, "file_name": "b", "width": 1}, "image 2 needs `height`"),
        ({"id": 2, "file_name": "b", "height": 65_536, "width": 1}, "image 2 needs `height`"),
        ({"id": 2, "file_name": "b", "height": 65_535, "width": 65_535}, "image 2 claims"),
    ],
)
def test_bad_images_are_refused(image, words):
    images = [{"id": 1, "file_name": "a.png", "height": H, "width": W}, image]
    with pytest.raises(DataError, match=words):
        list(coco.read(file(json.dumps(content(images=images)))))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("{", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"images": [], "annotations": [], "images": []}', "'images' twice"),
        ('{"images": [], "annotations": [NaN]}', "NaN is not a number"),
        ('{"images": [], "annotations": [-Infinity]}', "-Infinity is not a number"),
        ('{"images": [], "annotations": [' + "9" * 5000 + "]}", "not valid JSON"),
        ("[]", "no lists"),
        ('{"images": {}, "annotations": []}', "no lists"),
        ('{"images": [], "annotations": [5]}', r"annotations[0] is no object"),
        ('{"images": [], "annotations": [{"id": 4, "image_id": 1}]}', "annotation 4 is of an image"),
        ('{"images": [], "annotations": [{"image_id": [1]}]}', "annotations[0] is of an image"),
    ],
)
def test_bad_files_are_refused(text, words):
    assert words in problem(text)


def test_a_number_that_is_infinite_as_float_is_refused():
    text = json.dumps(content({"segmentation": [RING]})).replace("[[2,", "[[1e999,")
    assert "annotation 1: a coordinate is no number within" in problem(text)


def test_large_files_are_refused_before_they_become_objects(monkeypatch):
    assert "too many values" in problem("[" + "{}," * 4_000_000 + "{}]")
    monkeypatch.setattr(jsons, "MAX_BYTES", 1000)
    assert "1001 bytes" in problem(" " * 999 + "[]")


def test_boxes_that_are_too_large_together_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr(coco, "Budget", lambda size: Budget(size, kept=1000))
    across = {"segmentation": {"size": [H, W], "counts": [0, 1, H * W - 2, 1]}}
    text = content(across, across, images=[{"id": 1, "file_name": "a.png", "height": H, "width": W}])
    assert "annotation 2: the boxes of the picture's shapes hold too many pixels" in problem(json.dumps(text))
    images = [{"id": 1, "file_name": "a.png", "height": 2**14, "width": 2**14}]
    alone = {"segmentation": {"size": [2**14, 2**14], "counts": [0, 2**28]}}
    assert "annotation 1: the boxes" in problem(json.dumps(content(alone, images=images)))


def test_a_file_pays_for_drawing_by_its_length():
    size = 8000
    images = [{"id": i, "file_name": f"{i}.png", "height": size, "width": size} for i in range(50)]
    ring = [0, 0, size, 0, size, size, 0, size]
    text = {
        "images": images,
        "annotations": [{"id": i, "image_id": i, "segmentation": [ring]} for i in range(50)],
    }
    with pytest.raises(DataError, match="too costly"):
        list(coco.read(file(json.dumps(text))))


def test_damaged_files_are_refused_or_read(tmp_path):
    text = content(
        {"segmentation": [RING, [10, 10, 12, 10, 12, 11]], "attributes": {"point_id": 5}},
        {"segmentation": {"size": [H, W], "counts": [43, 3, 17, 3, 17, 3, 514]}, "point_id": "7", "point": [1, 2]},
        {
            "segmentation": {
                "size": [H, W],
                "counts": judge.encode(np.asfortranarray(SQUARE, np.uint8))["counts"].decode(),
            }
        },
        info={"contributor": "ada", "date_created": "2025-01-02"},
    )
    parts = [b"-1", b"1e9", b"1e999", b"NaN", b"null", b"[]", b"{}", b'"', b"\\ud800", b"99999999999", b"true", b","]
    fine, refused = survive(coco.read, mutations(json.dumps(text).encode(), 600, parts))
    assert fine > 20 and refused > 100
