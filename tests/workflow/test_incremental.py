"""What a change makes run again, and what it leaves alone, to the bit."""

import csv
import json
import os

import numpy as np
import pytest
from flow import CROWD, Flow, add_labelled, counts, targets

from crowdmask import tables
from crowdmask.masks import rle

AUTHOR = {"author": "ada", "time": "2025-03-01T12:00:00Z"}
IMAGE = {"split": "test", "image_id": "scene-0000", "height": 120, "width": 160}
AFTER_MERGE = {"merge": 1, "export": 1, "evaluate": 1, "overlay": 1, "overlays": 1}


def correct(flow, *edits, name="scene-0000", **image):
    """Write the edit file of an image."""
    path = flow.folder / "corrections" / "crowd" / "test" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": 1, "image": {**IMAGE, "image_id": name, **image}, "edits": [{**AUTHOR, **e} for e in edits]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def rows(flow, name="scene-0000", stage="merge"):
    return tables.read(flow.path("crowd", stage, "test", f"{name}.parquet"), "masks")


def masks(flow):
    """Annotations of masks.json by image and point, as text."""
    read = json.loads(flow.path("crowd", "masks.json").read_text(encoding="utf-8"))
    return {
        (entry["image_id"], entry["point_id"]): json.dumps(
            {k: v for k, v in entry.items() if k != "id"}, sort_keys=True
        )
        for entry in read["annotations"]
    }


def edits(flow, name="crowd"):
    with flow.path(name, "edits.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def smallest(flow):
    """Point id of the mask of scene-0000 with the fewest pixels."""
    return min(rows(flow), key=lambda row: row["area"])["point_id"]


def test_nothing_is_left_to_do(crowd):
    assert crowd.plan(*targets("crowd")) == {}


def test_a_correction_runs_merge_of_its_batch_and_what_reads_it_and_taking_it_back_undoes_it(changed):
    before, names = masks(changed), targets("crowd")
    whole = changed.path("crowd", "masks.json").read_bytes()
    point = smallest(changed)
    path = correct(changed, {"action": "circle", "point_id": point, "radius": 0})

    plan = changed.plan(*names)
    assert counts(plan) == AFTER_MERGE
    assert plan["merge"] == ["dataset=crowd, split=test, batch=scene-0000"]
    assert plan["overlay"] == ["dataset=crowd, split=test, image_id=scene-0000"]

    changed.make(*names)
    after = masks(changed)
    assert before.keys() == after.keys()
    assert [key for key in before if before[key] != after[key]] == [(1, point)]
    assert json.loads(after[1, point])["area"] == 1
    assert [(row["point_id"], row["outcome"]) for row in edits(changed)] == [(str(point), "applied")]
    assert changed.plan(*names) == {}

    path.unlink()
    assert counts(changed.plan(*names)) == AFTER_MERGE
    changed.make(*names)
    assert changed.path("crowd", "masks.json").read_bytes() == whole
    assert edits(changed) == []


def test_a_correction_over_a_neighbour_changes_the_two_and_nothing_else(changed):
    before, made = masks(changed), rows(changed)
    whole = {row["point_id"]: rle.Window.from_columns(row).cut(0, 0, 160, 120) for row in made}
    # A drawing that takes some pixels of exactly one other mask, and not all of them.
    first, other, drawing = next(
        (a, b, square)
        for b in whole
        for y, x in np.argwhere(whole[b])
        for square in [np.zeros((120, 160), bool)]
        for square[max(y - 1, 0) : y + 1, max(x - 1, 0) : x + 1] in [True]
        if [c for c in whole if (whole[c] & square).any()] == [b] and not (whole[b] <= square).all()
        for a in whole
        if a != b
    )
    counts_text = rle.full_counts(rle.Window(0, 0, drawing), 120, 160).decode()
    correct(changed, {"action": "replace", "point_id": first, "mask": {"counts": counts_text, "size": [120, 160]}})
    changed.make(*targets("crowd", "masks.json"))
    after = masks(changed)
    assert {key for key in before if before[key] != after[key]} == {(1, first), (1, other)}
    lost = int((whole[other] & drawing).sum())
    assert json.loads(before[1, other])["area"] - json.loads(after[1, other])["area"] == lost
    assert [(row["point_id"], row["outcome"], row["pixels"]) for row in edits(changed)] == [
        (str(first), "applied", str(int(drawing.sum()))),
        (str(other), "cut", str(lost)),
    ]


def test_a_stale_correction_is_reported_and_not_applied(changed):
    before = changed.path("crowd", "masks.json").read_bytes()
    correct(changed, {"action": "circle", "point_id": smallest(changed), "radius": 0, "base": "0" * 64})
    changed.make(*targets("crowd", "masks.json"))
    assert changed.path("crowd", "masks.json").read_bytes() == before
    (row,) = edits(changed)
    assert (row["outcome"], row["reason"]) == ("stale", "the mask has changed since")


@pytest.mark.parametrize("name", ["test/scene-0009", "train/scene-0000", "scene-0000", "test/deep/scene-0000"])
@pytest.mark.parametrize("target", ["masks.json", None])
def test_a_correction_of_no_image_is_an_error_that_names_it_also_where_results_are_there(changed, name, target):
    """Asked for through another rule, Snakemake would hide the error and call the old masks up to date."""
    stray = changed.folder / "corrections" / "crowd" / f"{name}.json"
    stray.parent.mkdir(parents=True)
    stray.write_text("{}", encoding="utf-8")
    before = changed.path("crowd", "masks.json").read_bytes()
    if target is None:
        # As `rule demo` does.
        config = (changed.folder / "config.yaml").read_text(encoding="utf-8").replace("crowd:", "demo:")
        (changed.folder / "config.yaml").write_text(config, encoding="utf-8")
        changed.path("crowd").rename(changed.path("demo"))
        (changed.folder / "corrections" / "crowd").rename(changed.folder / "corrections" / "demo")
        stray = changed.folder / "corrections" / "demo" / f"{name}.json"
    done = changed.run(*(targets("crowd", target) if target else []))
    assert done.code == 1
    assert f"{stray.relative_to(changed.folder)}: the data set" in done.tail
    assert "has no such image" in done.tail and "Traceback" not in done.text
    assert stray.is_file()
    assert changed.path("crowd" if target else "demo", "masks.json").read_bytes() == before


def test_a_checkpoint_that_is_not_there_is_an_error_also_where_results_are_there(changed):
    changed.configure({"datasets": {"crowd": CROWD}, "sam": {"checkpoint": "nowhere.pth"}})
    done = changed.run(*targets("crowd"))
    assert done.code == 1
    assert "crowdmask: error: nowhere.pth: checkpoint not found" in done.tail


@pytest.mark.parametrize(
    ("config", "again", "kept"),
    [
        (
            {"exclusion": {"r_max": 9.0}},
            {"exclude", "merge", "export", "evaluate", "overlay"},
            {"segment", "superpixels"},
        ),
        ({"exclusion": {"disjoint": False}}, {"exclude", "merge", "export"}, {"segment", "superpixels"}),
        (
            {"prompt": {"neighbours": 1}},
            {"segment", "exclude", "merge", "export"},
            {"superpixels", "datasets", "truth"},
        ),
        ({"superpixels": {"n_segments": 61}}, {"superpixels", "segment", "exclude"}, {"datasets", "truth", "render"}),
        ({"export": {"category": "person", "overlays": 2}}, {"export"}, {"merge", "exclude", "evaluate", "overlay"}),
        ({"corrections": {"stale": "apply"}}, {"merge", "export"}, {"exclude", "segment"}),
        ({"sam": {"chunk": 7}}, {"segment"}, {"superpixels"}),
        ({"train_sam": {"steps": 5}}, set(), {"segment", "export"}),
        ({"gpu": "auto"}, set(), {"segment", "export"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_runs_the_stages_again_that_read_it(changed, config, again, kept):
    changed.configure({"datasets": {"crowd": CROWD}, **config})
    plan = changed.plan(*targets("crowd"))
    assert again <= plan.keys()
    assert not kept & plan.keys()
    assert "render" not in plan


def test_an_override_runs_its_own_data_set_again(changed):
    changed.configure({"datasets": {"crowd": {**CROWD, "exclusion": {"r_max": 9.0}}, "other": CROWD}})
    assert "segment" not in changed.plan(*targets("crowd"))


def test_one_more_scene_runs_only_that_one(changed):
    changed.configure({"datasets": {"crowd": {**CROWD, "count": 3}}})
    each = ("render", "datasets", "superpixels", "segment", "exclude", "merge", "export")
    assert counts(changed.plan(*targets("crowd", "masks.json"))) == dict.fromkeys(each, 1)


ONE_IMAGE = {"datasets": 1, "superpixels": 1, "segment": 1, "exclude": 1, "merge": 1, "export": 1}


@pytest.fixture(scope="module")
def discs(tmp_path_factory) -> Flow:
    """A finished run on five images in a folder, in two batches."""
    flow = Flow(
        tmp_path_factory.mktemp("discs"), {"batches": 2, "datasets": {"discs": {"format": "label_map", "root": "in"}}}
    )
    for number in range(5):
        add_labelled(flow.folder / "in", f"disc {number}", number)
    flow.make(*targets("discs", "masks.json"))
    return flow


def test_batches_hold_several_images(discs):
    assert {path.name for path in discs.path("discs", "merge", "all").iterdir()} == {
        "batch-0000.parquet",
        "batch-0001.parquet",
    }
    read = json.loads(discs.path("discs", "masks.json").read_text(encoding="utf-8"))
    assert len(read["images"]) == 5
    true = sum(int((np.unique(_labels(discs, n)) > 0).sum()) for n in range(5))
    assert len(read["annotations"]) == true


def _labels(flow, number):
    from PIL import Image

    with Image.open(flow.folder / "in" / "labels" / f"disc {number}.png") as file:
        return np.array(file)


def test_one_more_image_runs_only_its_batch(discs, tmp_path):
    flow = discs.copy(tmp_path / "copy")
    add_labelled(flow.folder / "in", "disc 5", 5)
    assert counts(flow.plan(*targets("discs", "masks.json"))) == ONE_IMAGE


def test_one_image_less_runs_only_its_batch(discs, tmp_path):
    flow = discs.copy(tmp_path / "copy")
    for folder in ("images", "labels"):
        (flow.folder / "in" / folder / "disc 1.png").unlink()
    assert counts(flow.plan(*targets("discs", "masks.json"))) == ONE_IMAGE


def test_a_source_file_that_is_touched_but_not_changed_runs_nothing_else(discs, tmp_path):
    flow = discs.copy(tmp_path / "copy")
    os.utime(flow.folder / "in" / "images" / "disc 1.png")
    assert set(flow.plan(*targets("discs", "masks.json"))) <= {"datasets"}


def test_a_source_file_that_is_changed_runs_its_batch(discs, tmp_path):
    flow = discs.copy(tmp_path / "copy")
    add_labelled(flow.folder / "in", "disc 1", 77)
    assert counts(flow.plan(*targets("discs", "masks.json"))) == ONE_IMAGE


def test_images_are_added_to_a_folder_of_one_image_a_batch(discs, tmp_path):
    """Adding one, and running it, leaves every other mask as it was."""
    config = {"datasets": {"discs": {"format": "label_map", "root": "in"}}}
    flow = Flow(tmp_path / "few", config)
    for number in range(2):
        add_labelled(flow.folder / "in", f"disc {number}", number)
    flow.make(*targets("discs", "masks.json"))
    before = {path.name: path.read_bytes() for path in flow.path("discs", "merge", "all").iterdir()}
    add_labelled(flow.folder / "in", "disc 2", 2)
    names = targets("discs", "masks.json")
    assert counts(flow.plan(*names)) == ONE_IMAGE
    flow.make(*names)
    after = {path.name: path.read_bytes() for path in flow.path("discs", "merge", "all").iterdir()}
    assert after.keys() - before.keys() == {"disc 2.parquet"}
    assert {name: after[name] for name in before} == before


def test_an_annotation_that_is_gone_is_an_error_also_where_results_are_there(discs, tmp_path):
    flow = discs.copy(tmp_path / "copy")
    (flow.folder / "in" / "labels" / "disc 1.png").unlink()
    done = flow.run(*targets("discs", "masks.json"))
    assert done.code == 1
    assert "crowdmask: error:" in done.tail and "disc 1.png: no annotation" in done.tail
    assert flow.path("discs", "masks.json").is_file()
