"""COCO out, as pycocotools sees it, and back, whatever tools made of it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from exchange_cases import (
    HEX,
    assert_same,
    file,
    full,
    label_maps,
    masks_of,
    picture_of,
    record,
    task,
    tricky,
)
from hypothesis import given, settings
from pycocotools import mask as judge
from pycocotools.coco import COCO

from crowdmask.corrections.exchange import coco, runs
from crowdmask.corrections.exchange.base import File
from crowdmask.corrections.exchange.budget import Budget

H, W = 20, 30
SQUARE = np.zeros((H, W), bool)
SQUARE[3:6, 2:5] = True
RING = [2, 3, 5, 3, 5, 6, 2, 6]


def written(folder: Path, *tasks) -> File:
    (path,) = coco.write(folder, record(*tasks, tool="coco"))
    assert path == folder / "annotations.json"
    return File(str(path), path.read_bytes(), HEX)


def runs_of(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths, counted one pixel after the other."""
    lengths, value = [0], False
    for pixel in mask.ravel(order="F"):
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return lengths


def content(*annotations, images=None, **keys) -> dict:
    images = images if images is not None else [{"id": 1, "file_name": "a.png", "height": H, "width": W}]
    entries = [{"id": number, "image_id": 1, **entry} for number, entry in enumerate(annotations, 1)]
    return {"images": images, "annotations": entries, **keys}


def back(*annotations, **keys):
    (picture,) = coco.read(file(json.dumps(content(*annotations, **keys))))
    return picture


def only_mask(segmentation) -> np.ndarray:
    (shape,) = back({"segmentation": segmentation}).shapes
    return shape.readings[0].full(H, W)


# Out


def test_pycocotools_sees_the_masks_that_were_handed_out(tmp_path):
    first = tricky()
    second = {3: SQUARE, 4: ~SQUARE}
    made = written(tmp_path, task(first, "b.png"), task(second, "a.png"))
    with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
        found = COCO(made.name)
    assert [image["file_name"] for image in found.loadImgs([1, 2])] == ["b.png", "a.png"]
    assert found.getAnnIds() == list(range(1, 8))
    assert found.loadCats([1])[0]["name"] == "head"
    for image, masks in ((1, first), (2, second)):
        entries = found.loadAnns(found.getAnnIds(imgIds=[image]))
        assert [entry["attributes"] for entry in entries] == [{"point_id": number} for number in masks]
        for entry, mask in zip(entries, masks.values(), strict=True):
            np.testing.assert_array_equal(found.annToMask(entry), mask)
            assert isinstance(entry["segmentation"]["counts"], str)
            assert entry["area"] == mask.sum()
            assert entry["bbox"] == judge.toBbox(entry["segmentation"]).tolist()
            assert entry["iscrowd"] == 0 and entry["category_id"] == 1
            assert "keypoints" not in entry


def test_a_crop_has_its_own_coordinates_and_no_heads_from_elsewhere(tmp_path):
    outside = np.zeros((H, W), bool)
    outside[15, 25] = True
    made = written(tmp_path, task({5: SQUARE, 6: outside}, crop=(3, 4, 10, 8)))
    (picture,) = coco.read(made)
    assert (picture.height, picture.width) == (8, 10)
    assert_same(picture, {5: SQUARE[4:12, 3:13]})
    assert picture.shapes[0].point_xy == (-3, -4)


def test_equal_records_give_equal_bytes_and_no_heads_give_a_file(tmp_path):
    parts = [task({5: SQUARE}), task({}, "none.png", (0, 0, W, H))]
    assert written(tmp_path / "a", *parts).content == written(tmp_path / "b", *parts).content
    assert [len(picture.shapes) for picture in coco.read(written(tmp_path, *parts))] == [1, 0]
    assert list(coco.read(written(tmp_path))) == []


@settings(max_examples=60, deadline=None)
@given(label_maps())
def test_ids_and_pixels_come_back(tmp_path_factory, labels):
    masks = masks_of(labels)
    made = written(tmp_path_factory.mktemp("coco"), task(masks, "ä.png", (0, 0, *labels.shape[::-1])))
    assert coco.belongs(made)
    (picture,) = coco.read(made)
    assert (picture.name, picture.height, picture.width) == ("ä.png", *labels.shape)
    assert_same(picture, masks)


# Back


@pytest.mark.parametrize("crowd", [0, 1])
@pytest.mark.parametrize("key", tricky())
def test_every_form_of_run_lengths_is_read(key, crowd):
    mask = tricky()[key]
    size = list(mask.shape)
    text = judge.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    forms = [text.decode(), str(text), runs_of(mask), [float(run) for run in runs_of(mask)]]
    images = [{"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}]
    entries = [{"iscrowd": crowd, "segmentation": {"size": size, "counts": form}} for form in forms]
    shapes = back(*entries, images=images).shapes
    assert len(shapes) == 4
    for shape in shapes:
        assert shape.exact and len(shape.readings) == 1
        np.testing.assert_array_equal(shape.readings[0].full(*size), mask)


@settings(max_examples=150, deadline=None)
@given(label_maps())
def test_run_lengths_become_tight_windows(labels):
    mask = labels == 1
    height, width = mask.shape
    for counts in (runs_of(mask), judge.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()):
        budget = Budget()
        window = runs.window(runs.checked(counts, height, width, budget), height, budget)
        np.testing.assert_array_equal(window.full(height, width), mask)
        assert window.tight().mask.shape == window.mask.shape
        assert window.mask.flags.c_contiguous


def test_runs_of_no_length_change_nothing():
    text = [0, 0, 4, 0, 3, 2, 0, 1, H * W - 10]
    wanted = np.zeros(H * W, bool)
    wanted[7:10] = True
    np.testing.assert_array_equal(only_mask({"size": [H, W], "counts": text}), wanted.reshape(W, H).T)


@pytest.mark.parametrize("counts", [[H * W], [H * W, 0], "hb0"])
def test_a_mask_without_pixels_is_a_shape_of_size_0(counts):
    if counts == "hb0":  # what pycocotools makes of it
        assert judge.encode(np.zeros((H, W), np.uint8, order="F"))["counts"] == b"hb0"
    (shape,) = back({"segmentation": {"size": [H, W], "counts": counts}}).shapes
    assert [window.mask.shape for window in shape.readings] == [(0, 0)]


@pytest.mark.parametrize(("box", "area"), [([3, 4, 0, 0], 1), ([3, 4, 5.0, 0.0], 6.0), ([3, 4, 5, 5], 6)])
def test_a_line_of_pixels_that_became_no_polygon_is_a_shape_of_size_0(box, area):
    """As supervision writes a pixel, a row of six and a diagonal of six: the box from pixel centre to pixel centre."""
    (shape,) = back({"segmentation": [], "bbox": box, "area": area, "point_id": 7}).shapes
    assert [window.mask.shape for window in shape.readings] == [(0, 0)]
    assert shape.point_id == 7 and not shape.exact


def test_outlines_have_0_at_the_corner_of_the_first_pixel_as_pycocotools_has_it():
    theirs = judge.decode(judge.frPyObjects([RING], H, W))[:, :, 0].astype(bool)
    np.testing.assert_array_equal(theirs, SQUARE)
    np.testing.assert_array_equal(only_mask([RING]), SQUARE)
    np.testing.assert_array_equal(only_mask(RING), SQUARE)
    assert not back({"segmentation": [RING]}).shapes[0].exact


def test_rings_of_one_annotation_are_its_fragments():
    other = [10, 10, 12, 10, 12, 11, 10, 11]
    wanted = SQUARE.copy()
    wanted[10, 10:12] = True
    np.testing.assert_array_equal(only_mask([RING, other]), wanted)


def test_images_and_annotations_come_in_any_order_with_any_ids():
    images = [
        {"id": -5, "file_name": "b/b.png", "height": 3, "width": 4, "license": 0},
        {"id": 2**40, "file_name": "a.png", "height": 20.0, "width": 30},
        {"id": 7, "file_name": "c.png", "height": 1, "width": 1},
    ]
    entries = [
        {"id": 9, "image_id": 2**40, "segmentation": [RING], "extra": {"a": [None]}},
        {"id": 9, "image_id": -5, "segmentation": {"size": [3, 4], "counts": [0, 12]}},
        {"id": None, "image_id": 2**40, "segmentation": [RING]},
    ]
    found = list(coco.read(file(json.dumps({"annotations": entries, "images": images, "licenses": None}))))
    assert [(p.where, p.name, p.height, p.width) for p in found] == [
        ("image -5", "b/b.png", 3, 4),
        (f"image {2**40}", "a.png", 20, 30),
        ("image 7", "c.png", 1, 1),
    ]
    assert [[shape.where for shape in p.shapes] for p in found] == [
        ["annotation 9"],
        ["annotation 9", "annotations[2]"],
        [],
    ]
    np.testing.assert_array_equal(full(found[0])[0][1], picture_of("#### #### ####"))


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, None),
        ({"attributes": {"point_id": 12}}, 12),
        ({"attributes": {"point_id": "12"}}, 12),
        ({"attributes": {"point_id": " 12.0 "}}, 12),
        ({"attributes": {"point_id": 12.0}}, 12),
        ({"attributes": {"point_id": 0}}, 0),
        ({"attributes": {"point_id": ""}, "point_id": 3}, None),
        ({"attributes": {"occluded": False}, "point_id": 3}, 3),
        ({"attributes": [], "point_id": "2147483647"}, 2**31 - 1),
        ({"point_id": 2**31}, None),
        ({"point_id": "2147483648"}, None),
        ({"point_id": -1}, None),
        ({"point_id": "-1"}, None),
        ({"point_id": 12.5}, None),
        ({"point_id": True}, None),
        ({"point_id": "twelve"}, None),
        ({"point_id": "١٢"}, None),
        ({"point_id": [12]}, None),
        ({"point_id": 1e300}, None),
    ],
)
def test_ids_come_back_in_any_form_and_nothing_is_made_up(keys, wanted):
    (shape,) = back({"segmentation": [RING], **keys}).shapes
    assert shape.point_id == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [([1, 2.5], (1.0, 2.5)), (None, None), ([1], None), ([1, "2"], None), ([1, 1e7], None), ({}, None)],
)
def test_the_head_point_comes_back_where_it_is_one(value, wanted):
    assert back({"segmentation": [RING], "point": value}).shapes[0].point_xy == wanted


@pytest.mark.parametrize(
    ("info", "author", "time"),
    [
        (None, None, None),
        ([], None, None),
        ({"contributor": "", "date_created": "2025-01-02"}, None, None),
        ({"contributor": 5, "date_created": "2025-01-02"}, None, None),
        ({"contributor": "x" * 201}, None, None),
        ({"contributor": "a\x1b[2J"}, None, None),
        ({"contributor": " ada "}, "ada", None),
        ({"contributor": "ada", "date_created": ""}, "ada", None),
        ({"contributor": "ada", "date_created": 20250102}, "ada", "2025-01-02T00:00:00"),
        ({"contributor": "ada", "date_created": "2017/09/01"}, "ada", "2017-09-01T00:00:00"),
        ({"contributor": "ada", "date_created": "2025-01-02T03:04:05+00:00"}, "ada", "2025-01-02T03:04:05+00:00"),
    ],
)
def test_author_and_time_are_taken_where_they_are_plausible(info, author, time):
    picture = back(info=info)
    assert (picture.author, picture.time, picture.tool) == (author, time, "COCO")


def test_our_own_file_names_no_author(tmp_path):
    (picture,) = coco.read(written(tmp_path, task({5: SQUARE})))
    assert picture.author is None and picture.time is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"images": [], "annotations": []}', True),
        ('\ufeff \n{"annotations" : [], "images":\n[]}', True),
        ('{"images": [], "annotations": [{"id"', True),
        ('[{"images": [], "annotations": []}]', False),
        ('{"shapes": [], "imagePath": "a"}', False),
        ('{"images": 1, "annotations": []}', False),
        ("", False),
    ],
)
def test_a_file_is_recognised_by_its_two_lists(text, wanted):
    assert coco.belongs(file(text)) is wanted
