"""The rule `audit`: also where the list has faults, again only when files change, and for rendered scenes."""

import json

from flow import CROWD, add_annotated, targets

FOLDER = {"format": "ucf", "root": "in"}
FILES = ("audit.html", "audit.json")


def report(flow, name):
    return json.loads(flow.path(name, "audit.json").read_text(encoding="utf-8"))


def test_audit_of_a_folder_with_faults(new):
    flow = new({"datasets": {"odd": FOLDER}})
    for name in ("good", "empty", "bare"):
        add_annotated(flow.folder / "in", name, [(20, 20), (60, 40), (600, 40)])
    (flow.folder / "in" / "empty.jpg").write_bytes(b"")
    (flow.folder / "in" / "bare_ann.mat").unlink()
    (flow.folder / "in" / "link.jpg").symlink_to("nowhere.jpg")
    (flow.folder / "in" / "link_ann.mat").symlink_to("good_ann.mat")

    # Every other target stops at the list; the audit tells all of it.
    assert flow.run(*targets("odd", "masks.json")).code == 1
    flow.make(*targets("odd", *FILES))
    found = {(item["kind"], item["image_id"]) for item in report(flow, "odd")["findings"]}
    wanted = {("missing_annotation", "bare"), ("empty_file", "empty"), ("broken_link", "link"), ("outside", "good")}
    assert wanted <= found
    assert "<svg" in flow.path("odd", "audit.html").read_text(encoding="utf-8")
    assert flow.plan(*targets("odd", *FILES)) == {}

    add_annotated(flow.folder / "in", "bare", [(20, 20)], seed=1)
    assert set(flow.plan(*targets("odd", *FILES))) == {"audit"}
    flow.make(*targets("odd", *FILES))
    assert "missing_annotation" not in report(flow, "odd")["kinds"]
    (flow.folder / "in" / "empty.jpg").unlink()
    assert set(flow.plan(*targets("odd", *FILES))) == {"audit"}


def test_audit_is_made_again_where_no_file_that_it_reads_is_another(new):
    flow = new({"datasets": {"odd": FOLDER}})
    add_annotated(flow.folder / "in", "good", [(20, 20), (60, 40)])
    (flow.folder / "in" / "orphan_ann.mat").write_bytes((flow.folder / "in" / "good_ann.mat").read_bytes())
    flow.make(*targets("odd", *FILES))
    assert "orphan_annotation" in report(flow, "odd")["kinds"]
    (flow.folder / "in" / "orphan_ann.mat").unlink()
    assert set(flow.plan(*targets("odd", *FILES))) == {"audit"}
    flow.make(*targets("odd", *FILES))
    assert report(flow, "odd")["totals"]["errors"] == 0
    flow.configure({"datasets": {"odd": {**FOLDER, "exif": "apply"}}})
    assert set(flow.plan(*targets("odd", *FILES))) == {"audit"}


def test_audit_of_rendered_scenes(new):
    flow = new({"datasets": {"crowd": CROWD}})
    flow.make(*targets("crowd", *FILES))
    found = report(flow, "crowd")
    assert found["totals"]["images"] == CROWD["count"] and found["totals"]["errors"] == 0


def test_audit_of_a_missing_folder_says_where_it_looked(new):
    done = new({"datasets": {"odd": FOLDER}}).run(*targets("odd", *FILES))
    assert done.code == 1 and "the folder of the data set 'odd'" in done.text
