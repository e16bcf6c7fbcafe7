"""The rule `corrections`: what edits changed, as a page, and nothing else runs for it."""

import json

import pytest
from flow import add_annotated, counts, targets
from test_incremental import correct, rows

from crowdmask import tables
from crowdmask.masks import rle
from crowdmask.metrics.instances import window_iou

FILES = ("corrections.html", "corrections.json")
HOSTILE = "<script>alert(1)</script>"


def runs(window, height=120, width=160):
    return {"counts": rle.full_counts(window, height, width).decode(), "size": [height, width]}


def report(flow):
    return json.loads(flow.path("crowd", "corrections.json").read_text(encoding="utf-8"))


def page(flow):
    return flow.path("crowd", "corrections.html").read_text(encoding="utf-8")


def test_corrections_of_a_crowd(changed):
    changed.make(*targets("crowd", *FILES))
    assert "No edits" in page(changed) and report(changed)["images"] == []
    assert changed.plan(*targets("crowd", *FILES)) == {}

    truth = {
        row["point_id"]: rle.Window.from_columns(row)
        for row in tables.read(changed.path("crowd", "truth", "test", "scene-0000.parquet"), "truth")
    }
    made = {row["point_id"]: rle.Window.from_columns(row) for row in rows(changed, stage="exclude")}
    ious = {point: window_iou(made[point], truth[point]) for point in made}
    worst, deleted, accepted, stale = sorted(ious, key=lambda point: ious[point])[:4]
    seen = rle.Window(0, 0, made[stale].cut(-2, -1, 160, 120))  # moved by 2 and 1 pixels
    correct(
        changed,
        {"action": "replace", "point_id": worst, "mask": runs(truth[worst]), "author": HOSTILE, "note": HOSTILE},
        {"action": "delete", "point_id": deleted},
        {"action": "accept", "point_id": accepted},
        {"action": "replace", "point_id": stale, "mask": runs(truth[stale]), "base": "0" * 64, "seen": runs(seen)},
    )
    # No job of SAM, and none of the other image.
    assert counts(changed.plan(*targets("crowd", *FILES))) == {"merge": 1, "corrections": 1}
    changed.make(*targets("crowd", *FILES))

    (image,) = report(changed)["images"]
    heads = {head["point_id"]: head for head in image["corrected"]}
    assert heads.keys() == {worst, deleted, accepted}
    assert heads[worst]["truth_before"] == pytest.approx(ious[worst], abs=1e-6)
    # The drawing is the truth, but for a pixel given to each mask that it buries.
    assert heads[worst]["truth_after"] > max(0.9, ious[worst])
    assert (heads[deleted]["area_after"], heads[deleted]["truth_after"]) == (None, 0)
    assert (heads[accepted]["action"], heads[accepted]["author"]) == ("accept", "ada")
    (old,) = image["stale"]
    now = next(rle.Window.from_columns(row) for row in rows(changed) if row["point_id"] == stale)
    assert old["iou_seen_now"] == pytest.approx(window_iou(seen, now), abs=1e-6) and 0 < old["area_seen"] == seen.area
    after = [heads[point]["gain"] for point in (worst, deleted)]
    assert report(changed)["totals"]["truth"]["corrected"]["mean_gain"] == pytest.approx(sum(after) / 2, abs=1e-5)

    text = page(changed)
    assert "<script" not in text and "&lt;script&gt;" in text
    # Before, after and truth of two changed heads; seen, now and drawing of the stale edit. The accepted one only where
    # its neighbours' corrections changed it.
    assert text.count("<img ") == 3 * (2 + (heads[accepted]["changed_px"] > 0) + 1)
    assert changed.plan(*targets("crowd", *FILES)) == {}


def test_a_data_set_without_truth_has_the_page_too(new):
    flow = new({"datasets": {"few": {"format": "ucf", "root": "in"}}})
    add_annotated(flow.folder / "in", "one", [(30, 30), (80, 50)])
    correct(flow, {"action": "circle", "point_id": 0, "radius": 3}, name="one", split="all", height=96, width=128)
    place = flow.folder / "corrections" / "few" / "all" / "one.json"
    place.parent.mkdir(parents=True)
    (flow.folder / "corrections" / "crowd" / "test" / "one.json").rename(place)
    flow.make(*targets("few", *FILES))
    found = json.loads(flow.path("few", "corrections.json").read_text(encoding="utf-8"))
    assert found["totals"]["truth"] is None and found["totals"]["heads"]["circle"] == 1
