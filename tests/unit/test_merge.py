"""Merging edits: who wins, what is reported, and what must not change."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask import tables
from crowdmask.corrections import merge, native
from crowdmask.corrections.contest import free_pixel
from crowdmask.errors import DataError
from crowdmask.masks import rle

H, W = 12, 16
SHA = "a" * 64
OTHER = "b" * 64
WHO = {"author": "ada", "time": "2025-01-02T03:04:05Z"}


def box(x: int, y: int, w: int, h: int, height: int = H, width: int = W) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def row(point_id: int, mask: np.ndarray, x: float, y: float, **values) -> dict:
    window = rle.Window(0, 0, mask).tight()
    return {
        "split": "test",
        "image_id": "a",
        "point_id": point_id,
        "x": float(x),
        "y": float(y),
        "source": "sam",
        "verified": False,
        "author": None,
        "score": 0.5,
        "radius_px": 2.0,
        "lost_px": 3,
        "area": window.area,
        "sha256": rle.digest(window),
        **window.columns(),
        **values,
    }


def three() -> list[dict]:
    """Three masks of 3 x 3 side by side, their points in the middle."""
    return [row(i, box(1 + 4 * i, 4, 3, 3), 2 + 4 * i, 5) for i in range(3)]


def drawn(mask: np.ndarray) -> dict:
    return {"mask": {"counts": rle.encode(mask).decode(), "size": list(mask.shape)}}


def replace(point_id: int, mask: np.ndarray, **values) -> dict:
    return {"action": "replace", "point_id": point_id, **drawn(mask), **WHO, **values}


def add(x: float, y: float, mask: np.ndarray, **values) -> dict:
    return {"action": "add", "x": x, "y": y, **drawn(mask), **WHO, **values}


def simple(action: str, point_id: int, **values) -> dict:
    return {"action": action, "point_id": point_id, **WHO, **values}


def edit_file(*edits: dict, height: int = H, width: int = W, **image) -> native.EditFile:
    known = {"split": "test", "image_id": "a", "height": height, "width": width, **image}
    return native.EditFile.model_validate({"version": 1, "image": known, "edits": list(edits)})


def merged(rows, *edits, stale="report", disjoint=True, height=H, width=W, **image):
    file = edit_file(*edits, height=height, width=width, **image)
    return merge.merge_image(rows, file, height, width, SHA, stale, disjoint)


def mask_of(entry: dict, height: int = H, width: int = W) -> np.ndarray:
    return rle.Window.from_columns(entry).full(height, width)


def outcomes(table) -> list[tuple]:
    return [(entry["row"], entry["point_id"], entry["outcome"], entry["pixels"]) for entry in table]


# Single actions


def test_no_edits_give_the_same_rows():
    rows = three()
    for file in (None, edit_file()):
        made, table = merge.merge_image(rows, file, H, W, SHA)
        assert all(a is b for a, b in zip(made, rows, strict=True)) and table == []


def test_replace_sets_the_mask_and_leaves_the_others_alone():
    rows = three()
    before = copy.deepcopy(rows)
    made, table = merged(rows, replace(1, box(5, 8, 2, 2), base=rows[1]["sha256"]))
    assert rows == before
    assert made[0] is rows[0] and made[2] is rows[2]
    assert np.array_equal(mask_of(made[1]), box(5, 8, 2, 2))
    assert (made[1]["source"], made[1]["score"], made[1]["area"], made[1]["lost_px"]) == ("manual", None, 4, 0)
    assert (made[1]["x0"], made[1]["y0"], made[1]["w"], made[1]["h"]) == (5, 8, 2, 2)
    assert made[1]["sha256"] == rle.digest(rle.Window(0, 0, box(5, 8, 2, 2)))
    assert outcomes(table) == [(0, 1, "applied", 4)]
    assert table[0]["reason"] == "" and table[0]["author"] == "ada" and table[0]["action"] == "replace"


def test_delete_removes_the_row_and_gives_its_pixels_to_nobody():
    rows = three()
    made, table = merged(rows, simple("delete", 1))
    assert [entry["point_id"] for entry in made] == [0, 2]
    assert made[0] is rows[0] and made[1] is rows[2]
    assert outcomes(table) == [(0, 1, "applied", 0)]


def test_circle_is_the_disc_of_the_exclusion_circle_or_of_its_own_radius():
    yy, xx = np.mgrid[:H, :W]
    distance = np.hypot(xx - 2, yy - 5)
    for values, radius in (({}, 2.0), ({"radius": 1}, 1.0), ({"radius": 0}, 0.0)):
        made, _ = merged(three(), simple("circle", 0, **values))
        assert np.array_equal(mask_of(made[0]), distance <= radius)
        assert made[0]["source"] == "manual" and made[0]["radius_px"] == 2.0


def test_accept_keeps_the_mask_and_sets_the_flag():
    rows = three()
    made, table = merged(rows, simple("accept", 2, base=rows[2]["sha256"]))
    assert made[2] == {**rows[2], "verified": True, "author": "ada"} and not rows[2]["verified"]
    assert made[0] is rows[0] and made[1] is rows[1]
    assert outcomes(table) == [(0, 2, "applied", 9)]


def test_added_heads_come_last_with_ids_above_the_source():
    rows = three()
    made, table = merged(
        rows,
        add(3, 10, box(3, 9, 2, 2)),
        add(9, 10, box(9, 9, 2, 2), point_id=3),
        add(13.5, 10, box(13, 9, 2, 2)),
        add(1, 1, box(1, 1, 1, 1), point_id=40),
    )
    assert [entry["point_id"] for entry in made] == [0, 1, 2, 3, 4, 5, 40]
    assert [(entry["x"], entry["y"]) for entry in made[3:]] == [(9, 10), (3, 10), (13.5, 10), (1, 1)]
    assert all(made[i] is rows[i] for i in range(3))
    assert all(entry["source"] == "manual" and entry["radius_px"] == 0 for entry in made[3:])
    assert [entry["point_id"] for entry in table] == [None, 3, None, 40]
    assert {entry["outcome"] for entry in table} == {"applied"}


def test_heads_can_be_added_to_an_image_without_points():
    made, _ = merged([], add(3, 10, box(3, 9, 2, 2)))
    assert [entry["point_id"] for entry in made] == [0]
    assert made[0].keys() == set(tables.MASKS.names)


def test_later_edits_may_name_an_added_head():
    made, table = merged(
        three(), add(3, 10, box(3, 9, 2, 2)), replace(3, box(3, 9, 3, 3)), simple("circle", 3, radius=1)
    )
    assert made[3]["area"] == 5
    assert [entry["outcome"] for entry in table] == ["superseded", "superseded", "applied"]
    made, _ = merged(three(), add(3, 10, box(3, 9, 2, 2)), simple("delete", 3))
    assert len(made) == 3


# Several edits of one point


def test_the_later_drawing_holds_and_the_earlier_is_reported():
    made, table = merged(three(), replace(0, box(0, 0, 2, 2)), replace(0, box(3, 0, 3, 1)))
    assert np.array_equal(mask_of(made[0]), box(3, 0, 3, 1))
    assert outcomes(table) == [(0, 0, "superseded", 3), (1, 0, "applied", 3)]
    assert "edit 1" in table[0]["reason"]


def test_accept_holds_for_the_mask_before_it():
    made, table = merged(three(), replace(0, box(0, 0, 2, 2)), simple("accept", 0))
    assert made[0]["verified"] and made[0]["source"] == "manual"
    assert [entry["outcome"] for entry in table] == ["applied", "applied"]
    made, table = merged(three(), simple("accept", 0, author="bo"), replace(0, box(0, 0, 2, 2)))
    assert made[0]["verified"] and made[0]["author"] == "ada"
    assert [entry["outcome"] for entry in table] == ["superseded", "applied"]


def test_delete_then_replace_brings_the_head_back_but_accept_does_not():
    made, table = merged(three(), simple("delete", 0), replace(0, box(0, 0, 2, 2)))
    assert len(made) == 3 and made[0]["area"] == 4
    assert [entry["outcome"] for entry in table] == ["superseded", "applied"]
    made, table = merged(three(), simple("delete", 0), simple("accept", 0))
    assert len(made) == 2
    assert [entry["outcome"] for entry in table] == ["applied", "superseded"]
    assert "edit 0 of this file deletes" in table[1]["reason"]


# Staleness


def test_an_edit_of_another_mask_is_reported_and_not_applied():
    rows = three()
    made, table = merged(rows, replace(0, box(0, 0, 2, 2), base=OTHER), simple("delete", 1, base=OTHER))
    assert all(a is b for a, b in zip(made, rows, strict=True))
    assert outcomes(table) == [(0, 0, "stale", 9), (1, 1, "stale", 9)]
    assert "mask has changed" in table[0]["reason"]


def test_edits_of_another_image_file_are_stale_all_of_them():
    rows = three()
    edits = [replace(0, box(0, 0, 2, 2), base=rows[0]["sha256"]), add(3, 10, box(3, 9, 2, 2)), simple("accept", 1)]
    made, table = merged(rows, *edits, sha256=OTHER)
    assert all(a is b for a, b in zip(made, rows, strict=True))
    assert [(entry["outcome"], entry["pixels"]) for entry in table] == [("stale", 9), ("stale", 0), ("stale", 9)]
    assert "image file has changed" in table[0]["reason"]
    made, _ = merged(rows, *edits, sha256=SHA)
    assert len(made) == 4


def test_stale_edits_are_applied_when_told_and_marked():
    made, table = merged(three(), replace(0, box(0, 0, 2, 2), base=OTHER), simple("accept", 1), stale="apply")
    assert made[0]["area"] == 4
    assert [entry["outcome"] for entry in table] == ["forced", "applied"]
    assert "mask has changed" in table[0]["reason"]


def test_a_stale_edit_does_not_supersede():
    made, table = merged(three(), replace(0, box(0, 0, 2, 2)), replace(0, box(0, 0, 3, 3), base=OTHER))
    assert made[0]["area"] == 4
    assert [entry["outcome"] for entry in table] == ["applied", "stale"]


def test_an_edit_may_be_based_on_an_earlier_drawing_of_the_file():
    rows = three()
    first = rle.digest(rle.Window(0, 0, box(0, 0, 2, 2)))
    for base in (first, rows[0]["sha256"], None):
        made, table = merged(rows, replace(0, box(0, 0, 2, 2)), replace(0, box(0, 0, 3, 3), base=base))
        assert made[0]["area"] == 9
        assert [entry["outcome"] for entry in table] == ["superseded", "applied"]


# Mistakes


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (simple("delete", 3), "point 3 does not exist"),
        (simple("accept", 99), "point 99 does not exist"),
        (add(1, 1, box(1, 1, 2, 2), point_id=2), "belongs to the annotation"),
        ({"action": "replace", "point_id": 0, "polygons": [[90, 1, 95, 1, 95, 5]], **WHO}, "no pixel centre"),
    ],
)
def test_a_mistake_names_file_and_row(edit, words):
    file = edit_file(simple("accept", 0), edit)
    with pytest.raises(DataError, match=words) as caught:
        merge.merge_image(three(), file, H, W, SHA, path="corrections/demo/test/a.json")
    assert caught.value.row == 1 and caught.value.path == "corrections/demo/test/a.json"


def test_a_circle_of_an_added_head_needs_a_radius():
    with pytest.raises(DataError, match="give a radius") as caught:
        merged(three(), add(3, 10, box(3, 9, 2, 2)), simple("circle", 3))
    assert caught.value.row == 1


@pytest.mark.parametrize("stale", ["report", "apply"])
def test_an_image_of_another_size_is_an_error_even_where_stale_edits_apply(stale):
    with pytest.raises(DataError, match=r"12 x 16 pixels .*has 16 x 12") as caught:
        merge.merge_image(three(), edit_file(simple("accept", 0)), W, H, SHA, stale)
    assert "test/a" in caught.value.path


# Contested pixels


def test_a_manual_mask_takes_pixels_and_every_cut_is_reported():
    rows = three()
    made, table = merged(rows, replace(0, box(1, 4, 6, 3)))
    assert made[0]["area"] == 18
    assert np.array_equal(mask_of(made[1]), box(7, 4, 1, 3))
    assert made[1]["source"] == "sam" and made[1]["lost_px"] == 3 and made[1]["score"] == 0.5
    assert made[2] is rows[2]
    assert outcomes(table) == [(0, 0, "applied", 18), (0, 1, "cut", 6)]
    assert table[1]["reason"] == "lost to point 0" and table[1]["author"] == "ada"


def test_overlaps_stay_where_masks_may_overlap():
    rows = three()
    made, table = merged(rows, replace(0, box(1, 4, 6, 3)), disjoint=False)
    assert made[1] is rows[1] and made[0]["area"] == 18 and len(table) == 1


def test_an_accepted_mask_gives_way_to_a_drawing_too_and_says_so():
    made, table = merged(three(), simple("accept", 1), replace(0, box(1, 4, 6, 3)))
    assert made[1]["verified"] and made[1]["area"] == 3
    assert outcomes(table)[2] == (1, 1, "cut", 6)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_drawings_the_later_edit_wins(order):
    edits = [replace(0, box(0, 0, 4, 3)), replace(1, box(2, 0, 4, 3))]
    made, table = merged(three(), *(edits[i] for i in order))
    winner, loser = order[1], order[0]
    assert (made[winner]["area"], made[loser]["area"]) == (12, 6)
    assert outcomes(table)[2] == (1, loser, "cut", 6)


def test_a_buried_mask_keeps_its_own_pixel_and_the_drawing_loses_just_that():
    rows = three()
    made, table = merged(rows, replace(0, box(0, 0, 9, 12)))
    assert np.array_equal(mask_of(made[1]), box(6, 5, 1, 1))
    assert (made[1]["source"], made[1]["score"], made[1]["area"]) == ("pixel", None, 1)
    assert np.array_equal(mask_of(made[0]), box(0, 0, 9, 12) & ~box(6, 5, 1, 1))
    assert outcomes(table) == [(0, 0, "applied", 107), (0, 0, "cut", 1), (0, 1, "cut", 8)]
    assert table[1]["reason"] == "gave a pixel to point 1, which would have had none"


def test_a_drawing_buried_by_a_later_one_keeps_a_pixel_too():
    made, table = merged(three(), replace(0, box(2, 0, 3, 3)), replace(1, box(0, 0, 9, 9)))
    assert np.array_equal(mask_of(made[0]), box(2, 5, 1, 1))
    assert made[0]["source"] == "manual"
    assert made[1]["area"] == 80
    assert outcomes(table)[2:] == [(1, 0, "cut", 9), (1, 1, "cut", 1)]


def test_points_on_one_pixel_get_the_nearest_pixels_each():
    rows = [row(0, box(5, 5, 1, 1), 5, 5), row(1, box(6, 5, 1, 1), 5.2, 5), row(2, box(4, 5, 1, 1), 5, 4.9)]
    made, _ = merged([*rows, row(3, box(0, 0, 1, 1), 0, 0)], replace(3, box(0, 0, 12, 12)))
    assert [np.argwhere(mask_of(entry)).tolist() for entry in made[:3]] == [[[5, 5]], [[4, 5]], [[5, 4]]]
    assert made[3]["area"] == 144 - 3
    assert made[0]["source"] == "sam" and made[0] is rows[0]


def test_own_pixels_are_given_before_others_look_for_one():
    rows = [row(0, box(1, 5, 1, 1), 5, 5), row(1, box(2, 5, 1, 1), 5, 5), row(2, box(3, 5, 1, 1), 5, 4)]
    made, _ = merged([*rows, row(3, box(0, 0, 1, 1), 0, 0)], replace(3, box(0, 0, 12, 12)))
    assert [np.argwhere(mask_of(entry)).tolist() for entry in made[:3]] == [[[5, 5]], [[5, 4]], [[4, 5]]]


def test_pixels_far_away_are_found_where_all_near_ones_are_taken():
    height = width = 90
    places = [(i % 88, i // 88) for i in range(88 * 42)]
    rows = [row(i, box(x, y, 1, 1, height, width), 40, 44) for i, (x, y) in enumerate(places)]
    made, _ = merged(rows, replace(0, box(0, 0, 90, 90, height, width)), height=height, width=width)
    order = sorted(((x - 40) ** 2 + (y - 44) ** 2, y, x) for y in range(height) for x in range(width))
    assert [(entry["y0"], entry["x0"]) for entry in made[1:]] == [(y, x) for _, y, x in order[: len(rows) - 1]]
    assert made[0]["area"] == height * width - len(rows) + 1


def test_more_heads_than_pixels_are_refused():
    rows = [row(i, box(0, 0, 1, 1, 1, 2), 0, 0) for i in range(3)]
    with pytest.raises(DataError, match="3 heads do not fit into the 2 pixels"):
        merged(rows, replace(0, box(0, 0, 2, 1, 1, 2)), height=1, width=2)


def test_the_nearest_free_pixel_is_the_nearest_then_the_upper_then_the_left():
    taken = np.zeros((40, 50), bool)
    assert free_pixel(taken, 7, 9) == (7, 9)
    taken[9, 7] = True
    assert free_pixel(taken, 7, 9) == (7, 8)
    taken[8, 7] = True
    assert free_pixel(taken, 7, 9) == (6, 9)
    taken[:] = True
    assert free_pixel(taken, 7, 9) is None
    taken[39, 49] = False
    assert free_pixel(taken, 0, 0) == (49, 39)


# Properties


@st.composite
def scenes(draw):
    """Disjoint masks of random label maps, points anywhere (also shared and outside), and random edits."""
    count = draw(st.integers(1, 6))
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    centres = np.stack([rng.integers(0, W, count), rng.integers(0, H, count)], axis=1)
    yy, xx = np.mgrid[:H, :W]
    distance = np.stack([np.hypot(xx - x, yy - y) for x, y in centres])
    label = np.where(distance.min(axis=0) < rng.uniform(0, 5), distance.argmin(axis=0), -1)
    for i in range(count):
        if not (label == i).any():
            label[tuple(np.argwhere(label == -1)[0])] = i
    shifts = [draw(st.sampled_from([0.0, 0.3, -40.0])) for _ in range(count)]
    rows = [row(i, label == i, centres[i, 0] + shifts[i], centres[i, 1]) for i in range(count) if (label == i).any()]
    for i, entry in enumerate(rows):
        entry["point_id"] = i
    boxes = st.tuples(st.integers(0, W - 1), st.integers(0, H - 1), st.integers(1, W), st.integers(1, H)).map(
        lambda b: box(*b)
    )
    ids = st.integers(0, len(rows) - 1)
    base = st.sampled_from([None, OTHER])
    edit = st.one_of(
        st.builds(lambda i, m, b: replace(i, m, base=b), ids, boxes, base),
        st.builds(lambda x, y, m: add(x, y, m), st.integers(0, W - 1), st.integers(0, H - 1), boxes),
        st.builds(lambda i, b: simple("delete", i, base=b), ids, base),
        st.builds(lambda i, r: simple("circle", i, radius=r), ids, st.sampled_from([None, 0, 1.5, 9])),
        st.builds(lambda i: simple("accept", i), ids),
    )
    return rows, draw(st.lists(edit, max_size=6))


@settings(max_examples=400, deadline=None)
@given(scenes())
def test_whatever_is_edited_masks_stay_disjoint_counted_and_untouched_ones_identical(scene):
    rows, edits = scene
    before = copy.deepcopy(rows)
    made, table = merged(rows, *edits)
    assert rows == before
    again, table_again = merged(copy.deepcopy(rows), *edits)
    assert (made, table) == (again, table_again)

    # Counted.
    gone: dict[int, bool] = {}
    for edit, entry in zip(edits, table, strict=False):
        if entry["outcome"] != "stale" and edit["action"] in ("replace", "circle", "delete"):
            gone[edit["point_id"]] = edit["action"] == "delete"
    added = sum(edit["action"] == "add" for edit in edits)
    assert len(made) == len(rows) - sum(gone.values()) + added
    ids = [entry["point_id"] for entry in made]
    assert ids == sorted(set(ids)) and not set(ids) & {i for i, dead in gone.items() if dead}

    # Disjoint, and stored as they are.
    label = np.full((H, W), -1)
    for entry in made:
        mask = mask_of(entry)
        assert entry["area"] == mask.sum() >= 1
        assert (label[mask] == -1).all()
        label[mask] = entry["point_id"]
        window = rle.Window(0, 0, mask).tight()
        assert entry["sha256"] == rle.digest(window)
        assert {key: entry[key] for key in window.columns()} == window.columns()
        assert entry.keys() == set(tables.MASKS.names)

    # Untouched rows are the very same objects; every changed automatic mask has its cuts in the table.
    lost: dict[int, int] = {}
    for entry in table[len(edits) :]:
        assert entry["outcome"] == "cut" and entry["pixels"] > 0 and 0 <= entry["row"] < len(edits)
        lost[entry["point_id"]] = lost.get(entry["point_id"], 0) + entry["pixels"]
    source = {entry["point_id"]: entry for entry in rows}
    named = {edit.get("point_id") for edit in edits}
    for entry in made:
        old = source.get(entry["point_id"])
        if old is None or entry["source"] == "manual":
            continue
        gone_pixels = int((mask_of(old) & ~mask_of(entry)).sum())
        assert gone_pixels == lost.get(entry["point_id"], 0)
        if entry["sha256"] == old["sha256"]:
            assert entry is old or (entry["point_id"] in named and entry == {**old, "verified": True, "author": "ada"})

    # The last drawing changes by at most one pixel for each mask that it buries, and such a mask has one pixel.
    if edits and edits[-1]["action"] == "replace" and table[len(edits) - 1]["outcome"] == "applied":
        wanted = native.to_mask(edit_file(edits[-1]).edits[0], H, W).full(H, W)
        takers = label[wanted & (label != edits[-1]["point_id"])].tolist()
        area = {entry["point_id"]: entry["area"] for entry in made}
        assert len(takers) == len(set(takers)) and all(area[taker] == 1 for taker in takers)
        assert not (~wanted & (label == edits[-1]["point_id"])).any()


@settings(max_examples=200, deadline=None)
@given(scenes())
def test_merging_the_result_again_changes_nothing(scene):
    rows, edits = scene
    edits = [edit for edit in edits if edit["action"] not in ("add", "delete")]
    once, _ = merged(rows, *edits)
    twice, _ = merged(once, *edits)
    assert [mask_of(entry).tolist() for entry in twice] == [mask_of(entry).tolist() for entry in once]
    plain, table = merge.merge_image(once, edit_file(), H, W, SHA)
    assert plain is once and table == []


def test_twenty_thousand_masks_with_edits():
    height, width = 800, 1600
    one = rle.Window(0, 0, np.ones((6, 6), bool))
    rows = []
    for i in range(20_000):
        x, y = 8 * (i % 200), 8 * (i // 200)
        window = rle.Window(x, y, one.mask)
        columns = window.columns()
        rows.append(row(i, box(0, 0, 1, 1), x + 3, y + 3) | columns | {"area": 36, "sha256": f"{i:064x}"})
    edits = [simple("circle", i, radius=6) for i in range(0, 20_000, 40)]
    edits.append(replace(7, box(0, 0, 400, 300, height, width)))
    made, table = merged(rows, *edits, height=height, width=width)
    assert len(made) == 20_000
    assert sum(a is b for a, b in zip(made, rows, strict=True)) > 14_000
    label = np.zeros((height, width), np.int32)
    for entry in made:
        view = label[entry["y0"] : entry["y0"] + entry["h"], entry["x0"] : entry["x0"] + entry["w"]]
        view += rle.Window.from_columns(entry).mask
    assert label.max() == 1
    assert sum(entry["outcome"] == "cut" for entry in table) > 1000


# Tables in, tables out


def image_row(image_id: str, points: list[tuple[float, float]]) -> dict:
    return {
        "split": "test",
        "image_id": image_id,
        "path": f"{image_id}.png",
        "height": H,
        "width": W,
        "mode": "RGB",
        "sha256": SHA,
        "points": [
            {"point_id": i, "x": x, "y": y, "outside": False, **tables.NO_BOX} for i, (x, y) in enumerate(points)
        ],
    }


@pytest.fixture
def batch(tmp_path):
    points = [(2.0, 5.0), (6.0, 5.0), (10.0, 5.0)]
    images = [image_row("b", points), image_row("empty", []), image_row("a", points)]
    rows = [entry | {"image_id": name} for name in ("b", "a") for entry in three()]
    tables.write(tmp_path / "images.parquet", "images", images, version=1, settings="{}")
    tables.write(tmp_path / "masks.parquet", "masks", rows, version=1, settings="{}")
    return tmp_path


def put(folder, name: str, *edits: dict, **image):
    path = folder / "corrections" / "demo" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    split, image_id = name.split("/")
    path.write_text(native.dump(edit_file(*edits, split=split, image_id=image_id, **image)), encoding="utf-8")
    return path


def run(folder, *paths, stale="report"):
    counts = merge.run(
        folder / "masks.parquet",
        folder / "images.parquet",
        list(paths),
        folder / "out" / "masks.parquet",
        folder / "out" / "edits.parquet",
        stale,
        True,
        '{"stale": "report"}',
    )
    out = folder / "out"
    return counts, tables.read(out / "masks.parquet", "masks"), tables.read(out / "edits.parquet", "edits")


def test_a_batch_is_merged_in_the_order_of_its_images(batch):
    paths = [
        put(batch, "test/a", replace(0, box(1, 4, 6, 3)), add(1, 11, box(0, 10, 2, 2))),
        put(batch, "test/empty", add(8, 8, box(8, 8, 2, 2))),
        put(batch, "test/b", simple("delete", 1), simple("accept", 0, base=OTHER)),
    ]
    counts, rows, edits = run(batch, *paths)
    names = [(entry["image_id"], entry["point_id"]) for entry in rows]
    assert names == [("b", 0), ("b", 2), ("empty", 0), ("a", 0), ("a", 1), ("a", 2), ("a", 3)]
    assert counts == {"applied": 4, "stale": 1, "cut": 1}
    assert [entry["image_id"] for entry in edits] == ["b", "b", "empty", "a", "a", "a"]
    assert tables.metadata(batch / "out" / "masks.parquet") == ("masks", merge.VERSION, {"stale": "report"})


def test_untouched_masks_of_a_batch_are_bit_identical(batch):
    _, plain, edits = run(batch)
    assert plain == tables.read(batch / "masks.parquet", "masks") and edits == []
    _, rows, _ = run(batch, put(batch, "test/a", replace(0, box(1, 4, 3, 4))))
    changed = [i for i, (new, old) in enumerate(zip(rows, plain, strict=True)) if new != old]
    assert changed == [3]


@pytest.mark.parametrize("name", ["test/nobody", "train/a"])
def test_a_file_of_an_unknown_image_is_refused(batch, name):
    with pytest.raises(DataError, match=f"no image {name}"):
        run(batch, put(batch, name, simple("accept", 0)))
    assert not (batch / "out").exists()


def test_a_file_at_the_wrong_place_or_twice_is_refused(batch):
    path = put(batch, "test/a", simple("accept", 0))
    other = path.with_name("b.json")
    other.write_text(path.read_text())
    with pytest.raises(DataError, match="speaks of image test/a"):
        run(batch, other)
    second = batch / "more" / "test" / "a.json"
    second.parent.mkdir(parents=True)
    second.write_text(path.read_text())
    with pytest.raises(DataError, match="another edit file"):
        run(batch, path, second)


def test_a_mistake_in_one_edit_names_the_file_and_leaves_no_table(batch):
    path = put(batch, "test/a", simple("accept", 0), simple("delete", 77))
    with pytest.raises(DataError, match="point 77") as caught:
        run(batch, path)
    assert caught.value.path == str(path) and caught.value.row == 1
    assert not list((batch / "out").glob("*.parquet"))


def test_tables_that_do_not_belong_together_are_refused(batch):
    images = tables.read(batch / "images.parquet", "images")
    for wrong in (images[:2], images[::-1], [images[0], image_row("empty", [(1.0, 1.0)]), images[2]]):
        tables.write(batch / "images.parquet", "images", wrong, version=1, settings="{}")
        with pytest.raises(DataError, match=r"masks\.parquet: image"):
            run(batch)


def test_the_example_correction_is_valid(request):
    path = request.config.rootpath / "corrections" / "demo" / "test" / "scene-0001.json"
    file = native.load(path)
    native.check_location(path, file)
    assert [(edit.action, edit.point_id) for edit in file.edits] == [("circle", 0), ("accept", 1)]
    assert json.loads(path.read_text())["image"] == {
        "split": "test",
        "image_id": "scene-0001",
        "height": 768,
        "width": 1024,
    }
