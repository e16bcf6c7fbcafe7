"""labelme's JSON: what is written, what is read, what is refused."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import zlib

import numpy as np
import pytest
from exchange_cases import (
    assert_same,
    file,
    full,
    label,
    label_maps,
    masks_of,
    mutations,
    picture_of,
    record,
    survive,
    task,
)
from exchange_cases import tricky as tricky_masks
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from crowdmask.corrections.exchange import labelme
from crowdmask.errors import DataError

DRAWN = picture_of(".##.. #.#.. ###..")


def png(array: np.ndarray | Image.Image) -> str:
    out = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode()


def shape(kind: str | None, points: list, **more) -> dict:
    """As labelme 5 and later write it."""
    return {"label": "head", "points": points, "group_id": None, "description": "", "shape_type": kind, "flags": {},
            "mask": None, **more}  # fmt: skip


def bitmap(array: np.ndarray, x: float, y: float, **more) -> dict:
    h, w = array.shape
    return shape("mask", [[x, y], [x + w - 1, y + h - 1]], **{"mask": png(array.astype(np.uint8)), **more})


def content(*shapes, **more) -> dict:
    known = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": "0001-a.png", "imageData": None,
             "imageHeight": 12, "imageWidth": 16}  # fmt: skip
    return {**known, **more}


def only(*shapes, **more):
    (picture,) = labelme.read(file(json.dumps(content(*shapes, **more))))
    return picture


def refused(raw) -> str:
    with pytest.raises(DataError) as caught:
        list(labelme.read(file(raw if isinstance(raw, bytes | str) else json.dumps(raw))))
    return str(caught.value)


def written(tmp_path, *tasks) -> list[bytes]:
    paths = labelme.write(tmp_path, record(*tasks))
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [f"images/{t.name[:-4]}.json" for t in tasks]
    return [path.read_bytes() for path in paths]


# Writing


@settings(max_examples=100, deadline=None)
@given(label_maps())
def test_masks_come_back_as_they_went(tmp_path_factory, labels):
    height, width = labels.shape
    masks = masks_of(labels)
    (raw,) = written(tmp_path_factory.mktemp("out"), task(masks, crop=(0, 0, width, height)))
    (picture,) = labelme.read(file(raw))
    assert (picture.height, picture.width, picture.name) == (height, width, "0001-a.png")
    assert_same(picture, masks)


def test_masks_of_a_crop_are_in_its_pixels_and_what_it_does_not_show_is_left_out(tmp_path):
    masks = tricky_masks()
    for raw in written(tmp_path, task(masks), task(masks, "0002-a.png", crop=(18, 2, 30, 30))):
        (picture,) = labelme.read(file(raw))
        if picture.name == "0001-a.png":
            assert_same(picture, masks)
        else:
            assert_same(picture, {key: value[2:32, 18:48] for key, value in masks.items() if value[2:32, 18:48].any()})


def test_a_file_is_what_labelme_takes(tmp_path):
    (raw,) = written(tmp_path, task({12: DRAWN}, "0001 ä.png"))
    made = json.loads(raw)
    (head,) = made.pop("shapes")
    assert made == {"version": "5.5.0", "flags": {}, "imagePath": "0001 ä.png", "imageData": None, "imageHeight": 3,
                    "imageWidth": 5}  # fmt: skip
    with Image.open(io.BytesIO(base64.b64decode(head.pop("mask")))) as found:
        assert found.format == "PNG"
        np.testing.assert_array_equal(np.asarray(found), DRAWN[:, :3])
    # Corners are the centres of the first and the last pixel.
    assert head == {"label": "head", "points": [[0, 0], [2, 2]], "group_id": 12, "description": "point_id=12",
                    "shape_type": "mask", "flags": {}}  # fmt: skip


def test_pictures_that_would_share_a_file_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"is to be the file of both a.png and a.jpg. Rename one image"):
        labelme.write(tmp_path, record(task({1: DRAWN}, "a.png"), task({1: DRAWN}, "a.jpg")))


# Reading


def test_a_file_is_read():
    media = b"\x89PNG whatever"
    ring = shape("polygon", [[1.0, 2.0], [5.0, 2.0], [5.0, 4.0], [1.0, 4.0]], group_id=7)
    picture = only(bitmap(DRAWN[:, :3], 9, 4, description="mine, point_id=3"), ring, imagePath="..\\images\\0001-a.png",
                   imageData=base64.b64encode(media).decode())  # fmt: skip
    assert (picture.name, picture.height, picture.width) == ("../images/0001-a.png", 12, 16)
    assert (picture.tool, picture.media, picture.author, picture.time) == ("labelme 5.4.1", media, None, None)
    assert [(s.point_id, s.exact, s.where) for s in picture.shapes] == [
        (3, True, "shape 0 ('head')"), (7, False, "shape 1 ('head')")]  # fmt: skip
    (_, mask), (_, polygon) = full(picture)
    wanted = np.zeros((12, 16), bool)
    wanted[4:7, 9:12] = DRAWN[:, :3]
    np.testing.assert_array_equal(mask, wanted)
    wanted[:] = False
    wanted[2:5, 1:6] = True  # from centre to centre, both included
    np.testing.assert_array_equal(polygon, wanted)
    corners = np.zeros((12, 16), bool)
    corners[2:4, 1:5] = True
    assert any(np.array_equal(window.full(12, 16), corners) for window in picture.shapes[1].readings[1:])


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "255"])
def test_bitmaps_of_any_grey_mode_are_read(mode):
    values = DRAWN.astype(np.uint8) * (255 if mode == "255" else 1)
    image = Image.fromarray(values)
    if mode == "1":
        image = Image.fromarray(DRAWN)
    elif mode == "P":
        image = Image.fromarray(values, "L").convert("P")
        image.putdata(values.ravel().tolist())
    elif mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16) * 300)
    picture = only(shape("mask", [[2, 3], [6, 5]], mask=png(image)))
    np.testing.assert_array_equal(full(picture)[0][1][3:6, 2:7], DRAWN)


def test_a_mask_that_was_dragged_by_parts_of_a_pixel_keeps_its_bitmap():
    # Both corners are moved alike, and rounded each on its own: 9.3 -> 9, 11.3 -> 11; then 9.5 -> 10, 11.49 -> 11.
    for points, x in (([[9.3, 4.0], [11.3, 6.0]], 9), ([[9.5, 4.0], [11.49, 6.0]], 10)):
        picture = only(shape("mask", points, mask=png(DRAWN[:, :3].astype(np.uint8))))
        np.testing.assert_array_equal(full(picture)[0][1][4:7, x : x + 3], DRAWN[:, :3])


def test_what_sticks_out_of_the_picture_is_cut_off():
    picture = only(bitmap(DRAWN[:, :3], -1, 11), bitmap(DRAWN[:, :3], 40, 2), imageHeight=12)
    window, gone = (s.readings[0] for s in picture.shapes)
    assert (window.x0, window.y0, window.mask.tolist()) == (0, 11, [[True, True]])
    assert gone.mask.shape == (0, 0)


numbers = st.one_of(st.floats(-6, 22), st.integers(-6, 22), st.sampled_from([-0.5, 0.5, 3.5, 15.5, 1e6, -1e6]))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=9))
@example([(-1.9, -1.9), (7.9, 2.9), (4.6, 7.99)])
@example([(3, 3), (3, 3), (3, 3)])
def test_polygons_are_drawn_as_pillow_draws_them_on_the_whole_picture(points):
    canvas = Image.new("L", (16, 12))
    ImageDraw.Draw(canvas).polygon([tuple(map(float, point)) for point in points], outline=1, fill=1)
    wanted = np.asarray(canvas).astype(bool)
    for kind in ("polygon", "", None, "oriented_rectangle"):
        found = [w.full(12, 16) for w in only(shape(kind, [list(map(float, p)) for p in points])).shapes[0].readings]
        if wanted.any():
            np.testing.assert_array_equal(found[0], wanted)
        assert len({array.tobytes() for array in found}) == len(found)


@settings(max_examples=150, deadline=None)
@given(st.tuples(*[st.floats(-6, 22)] * 4))
def test_rectangles_and_circles_are_drawn_as_labelme_draws_them(values):
    x, y, u, v = values
    rectangle, circle = only(shape("rectangle", [[x, y], [u, v]]), shape("circle", [[x, y], [u, v]])).shapes
    canvas = Image.new("L", (16, 12))
    ImageDraw.Draw(canvas).rectangle((min(x, u), min(y, v), max(x, u), max(y, v)), outline=1, fill=1)
    np.testing.assert_array_equal(rectangle.readings[0].full(12, 16), np.asarray(canvas).astype(bool))
    canvas = Image.new("L", (16, 12))
    r = math.dist((x, y), (u, v))
    ImageDraw.Draw(canvas).ellipse((x - r, y - r, x + r, y + r), outline=1, fill=1)
    np.testing.assert_array_equal(circle.readings[0].full(12, 16), np.asarray(canvas).astype(bool))


@pytest.mark.parametrize("points", [[[3, 4]], [[3, 4], [3, 4]]])
def test_tracing_a_mask_of_one_pixel_gives_it_back(points):
    picture = only(shape("polygon", points))
    assert np.argwhere(full(picture)[0][1]).tolist() == [[4, 3]]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"group_id": 12}, 12),
        ({"group_id": 0, "description": "point_id=5"}, 0),
        ({"group_id": None, "description": "a hat\npoint_id: 5"}, 5),
        ({"group_id": -3, "description": "point_id=5."}, 5),
        ({"group_id": True}, None),
        ({"group_id": "12"}, 12),
        ({"group_id": 12.0}, 12),
        ({"group_id": 12.5}, None),
        ({"group_id": 2**31}, None),
        ({"group_id": 10**400}, None),
        ({"group_id": [12]}, None),
        ({"description": "point_id=", "label": "head 12"}, None),
        ({"description": 12}, None),
    ],
)
def test_the_id_is_the_group_or_in_the_description(more, wanted):
    assert only(bitmap(DRAWN, 0, 0, **more)).shapes[0].point_id == wanted


def test_files_of_early_versions_have_polygons_without_a_kind():
    early = {"label": "head", "line_color": None, "fill_color": None, "points": [[1, 1], [4, 1], [4, 3], [1, 3]]}
    picture = only(early, version="3.6.1", lineColor=[0, 255, 0, 128])
    assert (picture.tool, full(picture)[0][1].sum(), picture.shapes[0].exact) == ("labelme 3.6.1", 12, False)
    assert only(version=None).tool == only(version="5 \x1b[31m").tool == "labelme"


def test_belonging():
    assert labelme.belongs(file(json.dumps(content())))
    assert labelme.belongs(file("\ufeff " + json.dumps(content(), indent=4)))
    assert not labelme.belongs(file(json.dumps([content()])))
    assert not labelme.belongs(file('{"shapes": []}'))
    assert not labelme.belongs(file('{"images": [], "annotations": []}'))
    assert not labelme.belongs(file(""))


# Refusing


def header(width: int, height: int) -> bytes:
    """A PNG that claims a size, without pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def claimed(raw: bytes, w: int = 3, h: int = 3) -> dict:
    return shape("mask", [[0, 0], [w - 1, h - 1]], mask=base64.b64encode(raw).decode())


GOOD = base64.b64decode(png(np.ones((3, 3), np.uint8)))


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ([shape("point", [[1, 1]])], "shape 0 ('head'): a shape of the type 'point' is no mask. Delete it in labelme"),
        ([shape("line", [[1, 1], [2, 2]])], "the type 'line' is no mask"),
        ([shape("linestrip", [[1, 1], [2, 2]])], "the type 'linestrip' is no mask"),
        ([shape("points", [[1, 1], [2, 2]])], "the type 'points' is no mask"),
        ([shape(None, [[1, 1]])], "the type 'point' is no mask"),
        ([shape(["polygon"], [[1, 1]])], "the type a list of 1 is no mask"),
        ([bitmap(DRAWN, 0, 0), 5], "shape 1: it is no table"),
        ([{"label": "x"}], "shape 0 ('x'): it has no list of points"),
        ([shape("polygon", [[1, 1], [2], [3, 3]])], "its points are not pairs of numbers"),
        ([shape("polygon", [[1, 1], [2, None], [3, 3]])], "its points are not pairs of numbers"),
        ([shape("polygon", [[1, 1], [2, True], [3, 3]])], "its points are not pairs of numbers"),
        ([shape("polygon", [])], "an outline without points"),
        ([shape("polygon", [[1, 1], [2, 1e999], [3, 3]])], "not valid JSON (Infinity is not a number)"),
        ([shape("polygon", [[1, 1], [2, math.nan], [3, 3]])], "not valid JSON (NaN is not a number)"),
        ([shape("polygon", [[1, 1], [2, 10**400], [3, 3]])], "a coordinate is not finite"),
        ([shape("polygon", [[1, 1], [2, 1e7], [3, 3]])], "a coordinate beyond 1000000 pixels"),
        ([shape("polygon", [[1, 1]] * 1_000_000)], "an outline of more than 100000 points"),
        ([shape("circle", [[1, 1], [2, 2], [3, 3]])], "a circle of 3 points, it needs 2"),
        ([shape("circle", [[1, 1], [20_000, 2]])], "a circle with a radius of 19999 pixels"),
        ([shape("rectangle", [[1, 1]])], "a rectangle of 1 points, it needs 2"),
        ([shape("mask", [[0, 0], [2, 2]])], "it is no base64 text"),
        ([shape("mask", [[0, 0], [2, 2]], mask="%%%")], "it is no base64 text"),
        ([shape("mask", [[0, 0], [2, 2]], mask="ä")], "it is no base64 text"),
        ([claimed(b"GIF89a")], "its mask is no PNG"),
        ([claimed(GOOD[:20])], "its mask is no PNG"),
        ([claimed(GOOD, 4)], "its mask has 3 x 3 pixels, its points are the corners of 4 x 3"),
        ([claimed(GOOD, 3, 2)], "its mask has 3 x 3 pixels, its points are the corners of 3 x 2"),
        ([shape("mask", [[0.2, 0.0], [4.3, 2.0]], mask=png(np.ones((3, 3), np.uint8)))], "the corners of 5 x 3"),
        ([shape("mask", [[2, 2], [0, 0]], mask=png(np.ones((3, 3), np.uint8)))], "are the corners of -1 x -1"),
        ([claimed(header(60_000, 60_000), 60_000, 60_000)], "claims 60000 x 60000 pixels, which so short a PNG cannot"),
        ([claimed(header(70_000, 1), 70_000, 1)], "claims 70000 x 1 pixels"),
        ([claimed(header(3, 3))], "its mask is no usable PNG"),
        ([claimed(GOOD[:45])], "its mask is no usable PNG"),
        ([claimed(GOOD[:40] + b"\x00\x00" + GOOD[42:])], "its mask is no usable PNG"),
        ([shape("mask", [[0, 0], [1, 1]], mask=png(Image.new("RGB", (2, 2))))], "no usable PNG (colour mode RGB)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(shapes, problem):
    message = refused(content(*shapes))
    assert message.startswith("x.dat: ") and problem in message
    assert message.endswith(".") and len(message) < 700


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (content(imageHeight=None), "imageHeight, imageWidth: its size is no pair of whole numbers from 1: 16 x None"),
        (content(imageWidth=10**6), "its size 1000000 x 12 is beyond 65535 pixels a side"),
        (content(imagePath=None), "it does not say which picture it is of (imagePath)"),
        (content(imagePath="/"), "it does not say which picture it is of"),
        (content(imageData="x"), "imageData: it is no base64 text"),
        (content(imageData=[1]), "imageData: it is no base64 text"),
        (content(shapes={}), "not a labelme file: it has no list 'shapes'"),
        ([1], "not a labelme file"),
        ("", "not valid JSON"),
        ('{"shapes": ' + "[" * 100_000, "nested too deeply"),
        ('{"shapes": [' + "[]," * 6_000_000, "too large to be read at once"),
        ('{"shapes": [' + "1," * 18_000_000, "too large to be read at once"),
        (b'{"shapes": [], "x": "\xff"}', "not UTF-8 text"),
    ],
    ids=label,
)
def test_files_that_do_not_fit_are_refused_by_name(raw, problem):
    message = refused(raw)
    assert message.startswith("x.dat: ") and problem in message and message.endswith(".")


def test_shapes_that_claim_gigabytes_together_are_refused_before_they_are_made():
    huge = {"imageHeight": 8000, "imageWidth": 8000}
    for kind in ("rectangle", "polygon"):
        corners = [[0, 0], [8000, 8000]] if kind == "rectangle" else [[0, 0], [0, 7999], [7999, 0]]
        assert "hold too many pixels altogether" in refused(content(*[shape(kind, corners)] * 40, **huge))
    zigzag = [[x % 2 * 50, x % 3 * 7999] for x in range(100_000)]
    assert "too costly to draw" in refused(content(*[shape("polygon", zigzag)] * 10, **huge))


def test_damage_gives_pictures_or_a_named_refusal(tmp_path):
    (raw,) = written(tmp_path, task(tricky_masks()))
    made = json.loads(raw)
    made["shapes"] += [shape("polygon", [[1, 1], [9.5, 2], [4, 8.25]]), shape("circle", [[9, 9], [4.5, 9]])]
    parts = [b"-1", b"256", b"99999999999", b"NaN", b"[", b"}", b'"', b",", b"null", b"{}", b"1e999", b"\xff", b"AAAA"]
    fine, wrong = survive(labelme.read, mutations(json.dumps(made).encode(), 400, parts))
    assert fine > 20 and wrong > 200
