"""What corrections changed: masks before and after, and their numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from edited import H, W, box, compared, file_of, replace, runs, three, window
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdmask.corrections import gain, merge
from crowdmask.errors import DataError
from crowdmask.masks import rle


def test_a_replaced_mask_has_the_numbers_of_both_drawings():
    # Old 3 x 3 at (1, 4), new 3 x 4 at (1, 3): 9 of 12 pixels shared.
    (head,) = compared(replace(0, box(1, 3, 3, 4), provenance={"tool": "CVAT 1.1"}, note="hat")).corrected
    wanted = {"area_before": 9, "area_after": 12, "iou": 0.75, "changed_px": 3, "before": "pipeline"}
    wanted |= {"outcome": "applied", "action": "replace", "tool": "CVAT 1.1", "note": "hat", "gain": None}
    assert {key: head.record[key] for key in wanted} == wanted


def test_the_mask_that_the_author_saw_is_the_one_before():
    (head,) = compared(replace(0, box(1, 4, 3, 3), seen=runs(box(1, 4, 3, 1)))).corrected
    assert (head.record["before"], head.record["area_before"], head.record["iou"]) == ("seen", 3, round(1 / 3, 6))


def test_the_truth_tells_gain_and_loss():
    truth = {0: window(box(1, 3, 3, 4)), 1: window(box(5, 4, 3, 3)), 2: window(box(9, 4, 3, 3))}
    edits = [replace(0, box(1, 3, 3, 4)), replace(1, box(5, 4, 3, 1)), {"action": "delete", "point_id": 2}]
    found = compared(*edits, truth=truth)
    told = [[head.record[key] for key in ("truth_before", "truth_after", "gain")] for head in found.corrected]
    assert told == [[0.75, 1, 0.25], [1, 0.333333, -0.666667], [1, 0, -1]]
    totals = gain.Totals(True)
    totals.add([], found)
    assert totals.result()["truth"]["corrected"] == {
        "heads": 3,
        "better": 1,
        "worse": 2,
        "mean_before": round(2.75 / 3, 6),
        "mean_after": round(4 / 9, 6),
        "mean_gain": round(4 / 9 - 2.75 / 3, 6),
    }


def test_deleted_added_and_accepted_heads():
    found = compared(
        {"action": "delete", "point_id": 0},
        {"action": "add", "x": 13, "y": 1, "mask": runs(box(12, 0, 3, 2))},
        {"action": "accept", "point_id": 2},
        truth={},
    ).corrected
    told = [
        [h.record[k] for k in ("point_id", "action", "area_before", "area_after", "iou", "changed_px")] for h in found
    ]
    assert told == [[0, "delete", 9, None, None, 9], [2, "accept", 9, 9, 1, 0], [3, "add", None, 6, None, 6]]
    assert [h.record["x"] for h in found] == [2, 10, 13]


def test_an_accepted_drawing_speaks_for_the_drawing():
    (head,) = compared(replace(0, box(1, 4, 3, 2)), {"action": "accept", "point_id": 0, "author": "bob"}).corrected
    assert (head.record["action"], head.record["author"], head.record["accepted_by"]) == ("replace", "ada", ["bob"])


def test_an_accepted_head_counts_for_no_gain():
    totals = gain.Totals(True)
    totals.add([], compared({"action": "accept", "point_id": 0}, truth={0: window(box(1, 4, 3, 2))}))
    result = totals.result()
    assert result["heads"]["accept"] == 1 and result["mean_iou"] is None
    assert result["truth"]["corrected"]["heads"] == 0 and result["truth"]["corrected"]["mean_gain"] is None


def test_superseded_and_stale_edits_are_told_apart():
    old = box(2, 4, 3, 3)
    found = compared(
        replace(0, box(1, 4, 3, 2)),
        replace(0, box(1, 4, 3, 1)),
        replace(1, box(5, 3, 3, 3), base="0" * 64, seen=runs(old)),
        {"action": "circle", "point_id": 2, "base": "0" * 64},
        {"action": "delete", "point_id": 2, "base": "0" * 64},
    )
    assert [record["row"] for record in found.superseded] == [0]
    assert "edit 1" in found.superseded[0]["reason"]
    assert [head.record["row"] for head in found.corrected] == [1]
    drawn, circle, delete = found.stale
    # Seen 3 x 3 at (2, 4), now 3 x 3 at (5, 4): nothing shared. Drawing one row above: 6 of 12 pixels.
    assert (drawn.record["iou_seen_now"], drawn.record["iou_drawing_now"]) == (0, 0.5)
    assert (drawn.seen.full(H, W) == old).all()
    # All pixels at most 2 from (10, 5): 1 + 3 + 5 + 3 + 1.
    assert circle.record["area_drawing"] == 13 and circle.seen is None
    assert delete.drawing is None and delete.now.area == 9


def test_a_forced_edit_is_in_force_and_shows_the_mask_that_it_went_over():
    found = compared(replace(1, box(5, 3, 3, 1), base="0" * 64), stale="apply")
    assert [head.record["outcome"] for head in found.corrected] == ["forced"]
    assert found.stale[0].now.area == 9


def test_a_stale_drawing_that_cannot_be_drawn_is_told():
    edit = {"action": "replace", "point_id": 0, "base": "0" * 64, "polygons": [[90, 90, 95, 90, 95, 95]]}
    (stale,) = compared(edit).stale
    assert stale.drawing is None and "no pixel" in stale.record["fault"]


def test_neighbours_that_were_cut_and_what_that_did_to_them():
    truth = {0: window(box(1, 4, 5, 3)), 1: window(box(6, 4, 2, 3)), 2: window(box(9, 4, 3, 3))}
    found = compared(replace(0, box(1, 4, 5, 3)), truth=truth)  # takes the left column of mask 1
    (cut,) = found.neighbours
    assert [cut[key] for key in ("point_id", "row", "pixels", "area_before", "area_after")] == [1, 0, 3, 9, 6]
    assert (cut["truth_before"], cut["truth_after"]) == (round(6 / 9, 6), 1)
    totals = gain.Totals(True)
    totals.add([], found)
    assert totals.result()["neighbours_cut"] == 1 and totals.result()["pixels_cut"] == 3
    assert totals.result()["truth"]["neighbours"]["mean_gain"] == round(3 / 9, 6)


def test_a_cut_head_that_was_corrected_itself_counts_once():
    truth = {n: window(box(1 + 4 * n, 4, 3, 3)) for n in range(3)}
    found = compared(replace(1, box(5, 4, 3, 3)), replace(0, box(1, 4, 5, 3)), truth=truth)
    assert [(cut["point_id"], cut["gain"]) for cut in found.neighbours] == [(1, None)]
    assert [head.record["gain"] is None for head in found.corrected] == [False, False]


@pytest.mark.parametrize("change", [{"author": "bob"}, {"time": "2026-01-01"}, {"action": "accept"}, {"row": 5}])
def test_tables_of_other_edits_are_refused(change):
    file = file_of({"action": "delete", "point_id": 0})
    merged, table = merge.merge_image(three(), file, H, W, "a" * 64)
    for rows in ([{**table[0], **change}], [], table * 2):
        with pytest.raises(DataError, match=r"a\.json: the tables are not of these edits"):
            gain.of_image(file, rows, three(), merged, None, "a.json")


@st.composite
def _edits(draw):
    def mask():
        x, y = draw(st.integers(0, W - 1)), draw(st.integers(0, H - 1))
        return box(x, y, draw(st.integers(1, W - x)), draw(st.integers(1, H - y)))

    made = []
    for _ in range(draw(st.integers(0, 6))):
        action = draw(st.sampled_from(["replace", "add", "delete", "circle", "accept"]))
        edit: dict = {"action": action}
        if action == "add":
            edit |= {"x": draw(st.integers(0, W - 1)), "y": draw(st.integers(0, H - 1))}
        else:
            edit["point_id"] = draw(st.integers(0, 2))
            edit["base"] = draw(st.sampled_from([None, None, "0" * 64]))
            if draw(st.booleans()):
                edit["seen"] = runs(mask())
        if action in ("replace", "add"):
            edit["mask"] = runs(mask())
        made.append(edit)
    return made


@settings(max_examples=150, deadline=None)
@given(_edits(), st.sampled_from(["report", "apply"]))
def test_every_edit_has_its_place_and_every_number_is_that_of_whole_arrays(edits, stale):
    rows, file = three(), file_of(*edits)
    merged, table = merge.merge_image(rows, file, H, W, "a" * 64, stale)
    truth = {n: window(box(4 * n, 3, 4, 4)) for n in range(3)}
    found = gain.of_image(file, table, rows, merged, truth, "a.json")
    after = {r["point_id"]: rle.Window.from_columns(r).full(H, W) for r in merged}
    before = {r["point_id"]: rle.Window.from_columns(r).full(H, W) for r in rows}

    outcomes = {r["row"]: r["outcome"] for r in table if r["outcome"] != "cut"}
    assert {e.record["row"] for e in found.stale} == {n for n, o in outcomes.items() if o in ("stale", "forced")}
    assert {r["row"] for r in found.superseded} == {n for n, o in outcomes.items() if o == "superseded"}
    assert sum(r["pixels"] for r in found.neighbours) == sum(r["pixels"] for r in table if r["outcome"] == "cut")
    named = {e["point_id"] for n, e in enumerate(edits) if "point_id" in e and outcomes[n] in gain.IN_FORCE}
    heads = {head.record["point_id"]: head for head in found.corrected}
    # Source heads with an edit in force, and those added ones that are there, or were deleted again.
    assert {n for n in heads if n < 3} == named
    assert {n for n in after if n >= 3} <= {n for n in heads if n >= 3}
    for number, head in heads.items():
        edit = edits[head.record["row"]]
        old = rle.decode(edit["seen"]["counts"].encode(), H, W) if "seen" in edit else before.get(number)
        new = after.get(number)
        assert (head.record["area_before"], head.record["area_after"]) == tuple(
            None if mask is None else int(mask.sum()) for mask in (old, new)
        )
        zero = np.zeros((H, W), bool)
        assert head.record["changed_px"] == int(((zero if old is None else old) ^ (zero if new is None else new)).sum())
        if old is not None and new is not None:
            assert head.record["iou"] == round((old & new).sum() / (old | new).sum(), 6)
        if number < 3:
            true = truth[number].full(H, W)
            wanted = 0.0 if new is None else (new & true).sum() / (new | true).sum()
            assert head.record["truth_after"] == round(wanted, 6)
    json.dumps(found.as_json(), allow_nan=False)
