"""The rule `review`: runs with and without truth, and again when a mask is accepted."""

import json

from flow import add_annotated, targets

from crowdmask import tables

FILES = ("review.parquet", "review.html", "review.json")


def test_review_of_a_crowd_and_again_after_a_correction(changed):
    plan = changed.plan(*targets("crowd", *FILES))
    assert set(plan) == {"review"}  # all that it reads is there
    changed.make(*targets("crowd", *FILES))
    rows = tables.read(changed.path("crowd", "review.parquet"), "review")
    report = json.loads(changed.path("crowd", "review.json").read_text(encoding="utf-8"))
    masks = json.loads(changed.path("crowd", "masks.json").read_text(encoding="utf-8"))["annotations"]
    assert len(rows) == report["masks"] == len(masks)
    assert report["truth"]["masks"] == len(rows) and report["verified"] == 0
    page = changed.path("crowd", "review.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == min(120, len(rows))
    assert changed.plan(*targets("crowd", *FILES)) == {}

    worst = max(rows, key=lambda row: row["score"])
    name = f"{worst['split']}/{worst['image_id']}</strong> point {worst['point_id']},"
    assert page.count(name) == 1
    (image,) = (row for row in tables.read(
        changed.path("crowd", "datasets", "test", f"{worst['image_id']}.parquet"), "images"
    ))  # fmt: skip
    edit = {"action": "accept", "point_id": worst["point_id"], "author": "ada", "time": "2025-01-01T00:00:00Z"}
    known = {key: image[key] for key in ("split", "image_id", "height", "width")}
    path = changed.folder / "corrections" / "crowd" / "test" / f"{worst['image_id']}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"version": 1, "image": known, "edits": [edit]}), encoding="utf-8")
    assert set(changed.plan(*targets("crowd", *FILES))) == {"merge", "review"}
    changed.make(*targets("crowd", *FILES))
    after = tables.read(changed.path("crowd", "review.parquet"), "review")
    (row,) = (r for r in after if r["verified"])
    assert (row["image_id"], row["point_id"], row["score"]) == (worst["image_id"], worst["point_id"], 0.0)
    assert name not in changed.path("crowd", "review.html").read_text(encoding="utf-8")


def test_a_weight_makes_only_the_review_again(changed):
    changed.make(*targets("crowd", *FILES))
    assert changed.plan(*targets("crowd", *FILES), "--config", "review={cut: 5.0}").keys() == {"review"}


def test_review_without_truth(new):
    flow = new({"datasets": {"odd": {"format": "ucf", "root": "in"}}})
    add_annotated(flow.folder / "in", "some", [(20, 20), (60, 40)])
    add_annotated(flow.folder / "in", "none", [])
    flow.make(*targets("odd", *FILES))
    report = json.loads(flow.path("odd", "review.json").read_text(encoding="utf-8"))
    assert (report["images"], report["masks"], report["truth"]) == (2, 2, None)
    assert not flow.path("odd", "truth").exists()
