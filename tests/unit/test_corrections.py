"""The native edit file: reading, refusing, drawing, writing."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from crowdmask.corrections import drawing, native
from crowdmask.corrections.template import check, template
from crowdmask.errors import DataError
from crowdmask.masks import rle

H, W = 12, 20
WHO = {"author": "ada", "time": "2025-01-02T03:04:05Z"}


def square(x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def rle_of(mask: np.ndarray) -> dict:
    return {"counts": rle.encode(mask).decode(), "size": list(mask.shape)}


def content(*edits: dict, **image) -> dict:
    known = {"split": "test", "image_id": "a", "height": H, "width": W}
    return {"version": 1, "image": {**known, **image}, "edits": list(edits)}


def replace(**values) -> dict:
    return {"action": "replace", "point_id": 0, **WHO, **values}


def put(tmp_path, value, name: str = "test/a.json"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def mask_of(edit: dict) -> np.ndarray:
    file = native.EditFile.model_validate(content(edit))
    return native.to_mask(file.edits[0], H, W).full(H, W)


# Reading and writing


def test_every_action_is_read_and_written_again_byte_for_byte(tmp_path):
    path = put(
        tmp_path,
        content(
            replace(mask=rle_of(square(2, 3, 4)), base="0" * 64, note="ä"),
            replace(polygons=[[1, 1, 5.5, 1, 5, 5]]),
            {"action": "add", "x": 3.5, "y": 4, "polygons": [[1, 1, 5, 1, 5, 5]], "point_id": 9, **WHO},
            {"action": "delete", "point_id": 1, "base": None, **WHO},
            {"action": "circle", "point_id": 2, "radius": 3.25, **WHO},
            {
                "action": "accept",
                "point_id": 3,
                **WHO,
                "provenance": {"tool": "CVAT 2.4", "file": "x.zip", "sha256": "a" * 64},
            },
            sha256="f" * 64,
        ),
    )
    file = native.load(path)
    assert [edit.action for edit in file.edits] == ["replace", "replace", "add", "delete", "circle", "accept"]
    text = native.dump(file)
    again = native.load(put(tmp_path, text, "test/b.json"))
    assert again == file
    assert native.dump(again) == text
    assert len(text.splitlines()) == 4 + 6 + 2


def test_a_file_without_edits_is_fine(tmp_path):
    file = native.load(put(tmp_path, content()))
    assert file.edits == ()
    assert native.load(put(tmp_path, native.dump(file))) == file


def test_models_are_frozen():
    file = native.EditFile.model_validate(content())
    with pytest.raises(ValueError, match="frozen"):
        file.version = 2


def test_the_schema_names_every_action():
    text = json.dumps(native.schema())
    for action in ("replace", "add", "delete", "circle", "accept"):
        assert f'"const": "{action}"' in text
    assert '"additionalProperties": false' in text


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (replace(), "either `mask` or `polygons`"),
        (replace(mask=rle_of(square(0, 0, 2)), polygons=[[1, 1, 5, 1, 5, 5]]), "either `mask` or `polygons`"),
        (replace(polygons=[]), "polygons"),
        (replace(polygons=[[1, 1, 5, 1]]), "at least 3"),
        (replace(polygons=[[1, 1, 5, 1, 5, 5, 6]]), "an x lacks its y"),
        (replace(polygons=[[1, 1, 5, 1, 5, "5"]]), "valid number"),
        (replace(polygons=[[1, 1, 5, 1, 5, True]]), "valid number"),
        (replace(polygons=[[1, 1, 5, 1, 5, 2e6]]), "beyond 1000000"),
        (replace(polygons=[[0] * 200_002]), "more than 100000 points"),
        (replace(polygons=[[1, 1, 5, 1, 5, 10**400]]), "valid number"),
        (replace(mask=rle_of(np.ones((W, H), bool))), r"mask of size \[20, 12\]"),
        (replace(mask=rle_of(square(0, 0, 2)), base="xyz"), "base: .*pattern"),
        (replace(mask=rle_of(square(0, 0, 2)), colour="red"), "colour: unknown key"),
        (replace(mask=rle_of(square(0, 0, 2)), author=""), "author"),
        (replace(mask=rle_of(square(0, 0, 2)), time="yesterday"), "not an ISO 8601 time"),
        (replace(mask=rle_of(square(0, 0, 2)), point_id=-1), "point_id"),
        (replace(mask=rle_of(square(0, 0, 2)), point_id=1.0), "point_id"),
        ({"action": "paint", **WHO}, "'paint'"),
        ({"point_id": 3, **WHO}, "action"),
        ({"action": "delete", **WHO}, "point_id: Field required"),
        ({"action": "delete", "point_id": 0, "author": "ada"}, "time: Field required"),
        ({"action": "circle", "point_id": 0, "radius": -1, **WHO}, "radius"),
        ({"action": "circle", "point_id": 0, "radius": 1e9, **WHO}, "radius"),
        ({"action": "add", "x": 99, "y": 0, "polygons": [[1, 1, 5, 1, 5, 5]], **WHO}, "outside of the image"),
    ],
)
def test_a_bad_edit_is_refused_by_file_and_row(tmp_path, edit, words):
    path = put(tmp_path, content({"action": "accept", "point_id": 0, **WHO}, edit))
    with pytest.raises(DataError, match=words) as caught:
        native.load(path)
    assert caught.value.row == 1
    assert caught.value.path == str(path)
    assert len(str(caught.value)) < 600 + len(str(path))


def test_two_added_heads_cannot_share_an_id(tmp_path):
    add = {"action": "add", "x": 1, "y": 1, "polygons": [[1, 1, 5, 1, 5, 5]], "point_id": 7, **WHO}
    with pytest.raises(DataError, match="already given to edit 0") as caught:
        native.load(put(tmp_path, content(add, add)))
    assert caught.value.row == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[1]", "valid dictionary"),
        ('{"version": 1, "version": 1}', "key 'version' twice"),
        ('{"version": NaN}', "NaN is not a number"),
        ('{"version": -Infinity}', "Infinity"),
        ('{"version": 1e999}', "version"),
        ("[" * 100_000, "not valid JSON"),
        ("1" * 10_000, "not valid JSON"),
        (json.dumps(content() | {"version": 2}), "version"),
        (json.dumps(content() | {"extra": 2}), "extra: unknown key"),
        (json.dumps({"version": 1, "edits": []}), "image: Field required"),
        (json.dumps(content(height=0)), "height"),
        (json.dumps(content(height=60_000, width=60_000)), "more than"),
        (json.dumps(content(height="12")), "height"),
        (json.dumps(content(sha256="00")), "sha256"),
        (json.dumps(content(split="../x")), "split"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text, words):
    with pytest.raises(DataError, match=words) as caught:
        native.load(put(tmp_path, text))
    assert caught.value.row is None


def test_a_missing_binary_or_huge_file_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cannot be read"):
        native.load(tmp_path / "none.json")
    path = put(tmp_path, "x")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        native.load(path)
    monkeypatch.setattr(native, "MAX_BYTES", 2)
    with pytest.raises(DataError, match="more than the 2"):
        native.load(path)


@pytest.mark.parametrize("name", ["train/a.json", "test/b.json"])
def test_a_file_at_the_wrong_place_is_refused(tmp_path, name):
    path = put(tmp_path, content(), name)
    with pytest.raises(DataError, match="speaks of image test/a"):
        native.check_location(path, native.load(path))


# Run lengths


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_run_lengths_give_the_mask_that_pycocotools_gives(h, w, data):
    bits = data.draw(st.lists(st.booleans(), min_size=h * w, max_size=h * w))
    mask = np.array(bits).reshape(h, w)
    counts = rle.encode(mask).decode()
    if not mask.any():
        with pytest.raises(ValueError, match="no pixel"):
            drawing.parse_counts(counts, h, w)
        return
    window = drawing.from_runs(drawing.parse_counts(counts, h, w), h)
    assert np.array_equal(window.full(h, w), mask)
    assert window.mask.shape == window.tight().mask.shape


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=[chr(c) for c in range(40, 120)], max_size=12))
def test_hostile_run_lengths_never_reach_a_decoder(text):
    try:
        runs = drawing.parse_counts(text, 5, 7)
    except ValueError:
        return
    assert runs.min() >= 0 and runs.sum() == 35
    window = drawing.from_runs(runs, 5)
    assert np.array_equal(window.full(5, 7), coco.decode({"size": [5, 7], "counts": text.encode()}).astype(bool))


def raw_counts(numbers: list[int]) -> str:
    """COCO's text of numbers as they are (no differences), so that any hostile list can be written."""
    text = ""
    for number in numbers:
        more = True
        while more:
            part, number = number & 31, number >> 5
            more = number != (-1 if part & 16 else 0)
            text += chr(48 + part + (32 if more else 0))
    return text


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ("é", "foreign character"),
        ("\x00\x00", "foreign character"),
        ("zzz~", "foreign character"),
        ("oooooooooooooooo0", "fits no image"),
        ("0P", "cut off"),
        (raw_counts([0, -5, 245]), "negative"),
        (raw_counts([10, 5]), "add up"),
        (raw_counts([0, 10_000_000_000]), "add up"),
        (raw_counts([0, 2**33]), "add up"),
        (raw_counts([240]), "no pixel"),
        (raw_counts([100, 0, 140]), "no pixel"),
    ],
)
def test_hostile_run_lengths_are_refused_by_row(tmp_path, counts, words):
    with pytest.raises(DataError, match=words) as caught:
        native.load(put(tmp_path, content(replace(mask={"counts": counts, "size": [H, W]}))))
    assert caught.value.row == 0


def test_run_lengths_on_an_image_of_another_size_are_refused():
    file = native.EditFile.model_validate(content(replace(mask=rle_of(square(2, 3, 4)))))
    with pytest.raises(ValueError, match="mask of size"):
        native.to_mask(file.edits[0], W, H)


def test_zero_runs_in_the_middle_are_read():
    runs = drawing.parse_counts(raw_counts([2, 3, 0, 4 - 3, 23]), 4, 8)
    assert runs.tolist() == [2, 3, 0, 4, 23]
    assert drawing.from_runs(runs, 4).area == 7


# Polygons


def test_pixels_on_the_outline_count():
    mask = mask_of(replace(polygons=[[2, 3, 4, 3, 4, 5, 2, 5]]))
    assert np.array_equal(mask, square(2, 3, 3))


def test_corner_coordinates_of_other_tools_need_half_a_pixel_taken_off():
    mask = mask_of(replace(polygons=[[1.5, 2.5, 4.5, 2.5, 4.5, 5.5, 1.5, 5.5]]))
    assert np.array_equal(mask, square(2, 3, 3))


def test_a_ring_in_a_ring_is_a_hole_and_keeps_its_line():
    mask = mask_of(replace(polygons=[[2, 2, 8, 2, 8, 8, 2, 8], [4, 4, 6, 4, 6, 6, 4, 6]]))
    wanted = square(2, 2, 7) & ~square(5, 5, 1)
    assert np.array_equal(mask, wanted)


def test_rings_apart_are_fragments_and_rings_that_overlap_leave_out_what_they_share():
    apart = mask_of(replace(polygons=[[0, 0, 1, 0, 1, 1, 0, 1], [5, 5, 7, 5, 7, 7, 5, 7]]))
    assert np.array_equal(apart, square(0, 0, 2) | square(5, 5, 3))
    shared = mask_of(replace(polygons=[[0, 0, 6, 0, 6, 6, 0, 6], [3, 3, 9, 3, 9, 9, 3, 9]]))
    assert not shared[4:6, 4:6].any()
    assert shared[3, 4] and shared[6, 6] and shared[1, 1] and shared[8, 8]


def test_a_polygon_past_the_border_is_clipped_and_one_outside_refused():
    mask = mask_of(replace(polygons=[[-5, -5, 3, -5, 3, 2, -5, 2]]))
    assert mask.sum() == 12 and mask[:3, :4].all()
    for ring in ([-9, -9, -2, -9, -2, -2], [50, 1, 60, 1, 60, 5], [1.2, 1.2, 1.4, 1.2, 1.4, 1.4]):
        with pytest.raises(ValueError, match="no pixel centre"):
            mask_of(replace(polygons=[ring]))


def test_a_polygon_that_is_a_point_or_a_line_has_its_pixels():
    assert mask_of(replace(polygons=[[4, 5, 4, 5, 4, 5]])).sum() == 1
    assert mask_of(replace(polygons=[[2, 5, 6, 5, 2, 5]])).sum() == 5
    assert mask_of(replace(polygons=[[2, 2, 5, 5, 2, 2]])).sum() == 4


def test_a_polygon_too_costly_to_draw_is_refused(monkeypatch):
    monkeypatch.setattr(drawing, "MAX_CROSSINGS", 10)
    with pytest.raises(ValueError, match="cross more than"):
        mask_of(replace(polygons=[[0, 0, 1, 11, 2, 0, 3, 11]]))


def naive(rings: list[list[float]], h: int, w: int) -> np.ndarray:
    """Even-odd rule with lines included, in exact arithmetic, pixel by pixel."""
    out = np.zeros((h, w), bool)
    exact = [[(Fraction(a), Fraction(b)) for a, b in zip(r[::2], r[1::2], strict=True)] for r in rings]
    for y, x in itertools.product(range(h), range(w)):
        inside = on = False
        for ring in exact:
            for (ax, ay), (bx, by) in itertools.pairwise([*ring, ring[0]]):
                cross = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
                if cross == 0 and min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by):
                    on = True
                if (ay <= y) != (by <= y) and (ax + (y - ay) * (bx - ax) / (by - ay)) > x:
                    inside = not inside
        out[y, x] = inside or on
    return out


QUARTERS = st.integers(-8, 44).map(lambda v: v / 4)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.tuples(QUARTERS, QUARTERS), min_size=3, max_size=6), min_size=1, max_size=3),
    st.sampled_from([1, 7, 10_000]),
)
def test_polygons_match_an_exact_count_pixel_by_pixel(rings, band):
    flat = [[v for point in ring for v in point] for ring in rings]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "BAND", band)
        window = drawing.fill_polygons(flat, 8, 10)
    assert np.array_equal(window.full(8, 10), naive(flat, 8, 10))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=6, max_size=6))
def test_traced_masks_come_back_or_are_not_offered(bits):
    mask = np.array(bits)
    if not mask.any():
        return
    rings = drawing.trace(rle.Window(3, 2, mask))
    if rings is not None:
        assert np.array_equal(drawing.fill_polygons(rings, 20, 20).full(20, 20)[2:8, 3:10], mask)


def test_ring_fragments_pixel_and_line_are_traced():
    ring = square(2, 2, 7) & ~square(4, 4, 3)
    for mask in (ring, square(0, 0, 2) | square(5, 5, 1), square(3, 3, 1), square(0, 0, 12)):
        assert drawing.trace(rle.Window(0, 0, mask)) is not None


# Discs


def test_a_disc_has_the_pixels_within_its_radius():
    mask = drawing.disc(5.0, 5.0, 2.0, H, W).full(H, W)
    yy, xx = np.mgrid[:H, :W]
    assert np.array_equal(mask, (xx - 5) ** 2 + (yy - 5) ** 2 <= 4)


@pytest.mark.parametrize("point", [(5.5, 5.5), (-3.0, 4.0), (900.0, 900.0), (0.4, 11.0)])
@pytest.mark.parametrize("radius", [0.0, 0.1, 0.6, 3.0])
def test_a_disc_holds_its_own_pixel(point, radius):
    window = drawing.disc(*point, radius, H, W)
    x = min(max(int(np.floor(min(max(point[0], 0), W - 1) + 0.5)), 0), W - 1)
    y = min(max(int(np.floor(min(max(point[1], 0), H - 1) + 0.5)), 0), H - 1)
    assert window.full(H, W)[y, x]
    assert window.tight().mask.shape == window.mask.shape


# Template and check


def masks_row(point_id: int, mask: np.ndarray) -> dict:
    window = rle.Window(0, 0, mask).tight()
    return {"point_id": point_id, "sha256": rle.digest(window), **window.columns()}


IMAGE = {"split": "test", "image_id": "a", "height": H, "width": W, "sha256": "c" * 64}


@pytest.mark.parametrize("form", ["polygons", "rle"])
def test_a_template_holds_the_present_masks_and_hashes(tmp_path, form):
    ring = square(2, 2, 7) & ~square(4, 4, 3)
    rows = [masks_row(0, square(0, 0, 2)), masks_row(1, ring)]
    file = template(rows, IMAGE, [1, 0], "ada", time="2025-01-01T00:00:00Z", form=form)
    assert native.load(put(tmp_path, native.dump(file))) == file
    assert file.image.sha256 == "c" * 64
    assert [edit.base for edit in file.edits] == [rows[1]["sha256"], rows[0]["sha256"]]
    assert np.array_equal(native.to_mask(file.edits[0], H, W).full(H, W), ring)
    assert (file.edits[0].mask is None) == (form == "polygons")


def test_a_template_of_merged_masks_is_based_on_the_masks_of_the_pipeline():
    merged = [masks_row(0, square(0, 0, 3)), masks_row(7, square(8, 8, 2))]
    source = [masks_row(0, square(0, 0, 2))]
    file = template(merged, IMAGE, [0, 7], "ada", source_rows=source)
    assert [edit.base for edit in file.edits] == [source[0]["sha256"], None]
    assert native.to_mask(file.edits[0], H, W).area == 9


def test_a_template_of_an_unknown_point_is_refused():
    with pytest.raises(DataError, match="no mask of point 5"):
        template([masks_row(0, square(0, 0, 2))], IMAGE, [5], "ada")
    with pytest.raises(DataError, match="no mask of point 5"):
        template([], IMAGE, [5], "ada")


def test_check_lists_every_fault_and_nothing_else(tmp_path):
    good = put(tmp_path, content(replace(polygons=[[1, 1, 5, 1, 5, 5]])))
    empty = put(tmp_path, content(replace(polygons=[[90, 1, 95, 1, 95, 5]]), image_id="b"), "test/b.json")
    broken = put(tmp_path, "{", "test/c.json")
    moved = put(tmp_path, content(), "test/d.json")
    assert check([good]) == []
    lines = check([good, empty, broken, moved], images={("test", "a"), ("test", "b")})
    assert len(lines) == 3
    assert "b.json, row 0: the polygon covers no pixel" in lines[0]
    assert "c.json: not valid JSON" in lines[1]
    assert "d.json: it speaks of image test/a" in lines[2]
    assert "no image test/a" in check([good], images=set())[0]
