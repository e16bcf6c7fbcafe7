"""Bad input: what a person sees, and that other results survive. The table of all faults: docs/bad-input.md."""

import json

import pytest
from flow import CROWD, Flow, add_annotated, add_labelled, targets
from PIL import Image
from test_incremental import correct

from crowdmask import tables

FOLDER = {"format": "ucf", "root": "in"}


def refused(done, *words):
    """The command failed, and the end of what it printed says all of these."""
    assert done.code == 1, done.text
    for word in words:
        assert word in done.tail
    assert 'File "/' not in done.tail.partition("Traceback")[0]


def test_unusable_files_are_named_and_the_other_images_are_made(new):
    flow = new({"datasets": {"odd": FOLDER}})
    for name in ("good", "empty", "cut", "garbage"):
        add_annotated(flow.folder / "in", name, [(20, 20), (60, 40), (60, 40)])
    (flow.folder / "in" / "empty.jpg").write_bytes(b"")
    whole = (flow.folder / "in" / "cut.jpg").read_bytes()
    (flow.folder / "in" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (flow.folder / "in" / "garbage_ann.mat").write_bytes(b"no MATLAB file" * 40)

    done = flow.run("--keep-going", *targets("odd", "masks.json"))
    refused(
        done,
        "in/empty.jpg: the file is empty (0 bytes)",
        "in/cut.jpg: the image is truncated or corrupt",
        "in/garbage_ann.mat: ",
        *(f"datasets: {{odd: {{skip_images: [all/{name}]}}}}" for name in ("empty", "cut", "garbage")),
    )
    assert "Traceback" not in done.text
    assert [path.name for path in flow.path("odd", "merge", "all").iterdir()] == ["good.parquet"]
    assert not flow.path("odd", "masks.json").exists()

    # The way out that the message gives; what is there already is not made again.
    flow.configure({"datasets": {"odd": {**FOLDER, "skip_images": ["all/empty", "all/cut", "all/garbage"]}}})
    plan = flow.plan(*targets("odd", "masks.json"))
    assert set(plan) == {"export"}
    flow.make(*targets("odd", "masks.json"))
    assert len(json.loads(flow.path("odd", "masks.json").read_text())["annotations"]) == 3


def test_few_points_and_names_with_blanks_and_signs_run_through(new):
    flow = new({"datasets": {"odd-1.x": FOLDER}})
    points = {
        "no points": [],
        "one (1), a=b@c+d,e.f": [(50, 40)],
        "twice_": [(30, 30), (30, 30), (-7, 200), (30.4, 30.4)],
    }
    for name, rows in points.items():
        add_annotated(flow.folder / "in", name, rows)
    flow.configure({"datasets": {"odd-1.x": FOLDER}, "export": {"overlays": 3}})
    names = targets("odd-1.x", "masks.json", "overlays/index.html")
    flow.make(*names)
    assert flow.plan(*names) == {}

    read = json.loads(flow.path("odd-1.x", "masks.json").read_text(encoding="utf-8"))
    assert [image["file_name"] for image in read["images"]] == [f"{name}.jpg" for name in points]
    number = {image["id"]: image["file_name"][:-4] for image in read["images"]}
    made = {name: [] for name in points}
    for entry in read["annotations"]:
        assert entry["area"] > 0
        made[number[entry["image_id"]]].append(entry["point_id"])
    assert made == {name: list(range(len(rows))) for name, rows in points.items()}
    images = tables.read(flow.path("odd-1.x", "datasets", "all", "twice_.parquet"), "images")
    assert [point["outside"] for point in images[0]["points"]] == [False, False, True, False]
    for name in points:
        with Image.open(flow.path("odd-1.x", "overlays", "all", f"{name}.png")) as picture:
            picture.load()


def test_a_missing_folder_says_what_where_and_how_and_touches_nothing_else(crowd, tmp_path):
    flow = crowd.copy(tmp_path / "copy")
    flow.configure({"datasets": {"crowd": CROWD, "gone": {"format": "shanghaitech", "root": "data/part_A"}}})
    refused(
        flow.run(*targets("gone", "masks.json")),
        "data/part_A: the folder of the data set 'gone' (one part (A or B) of ShanghaiTech) is missing",
        "train_data and test_data",
        "datasets: {gone: {root: /path/to/them}}",
        "--configfile",
    )
    assert flow.plan(*targets("crowd")) == {}


def test_an_image_without_annotation_is_found_before_any_job(new):
    flow = new({"datasets": {"odd": FOLDER}})
    add_annotated(flow.folder / "in", "whole", [(1, 1)])
    add_annotated(flow.folder / "in", "bare", [(1, 1)])
    (flow.folder / "in" / "bare_ann.mat").unlink()
    refused(flow.run(*targets("odd", "masks.json")), "in/bare.jpg: no annotation: bare_ann.mat is missing")
    assert not flow.path().exists()


@pytest.mark.parametrize("name", ["a..b", "-a", "a;b", "a'b", 'a"b', "a$b", "a{b}", "ä", "a\nb", "a*"])
def test_an_unsafe_name_is_refused(new, name):
    flow = new({"datasets": {"odd": {"format": "label_map", "root": "in"}}})
    add_labelled(flow.folder / "in", name, 1)
    refused(flow.run("--dry-run", *targets("odd", "masks.json")), "cannot be an image id", "Rename the file")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"exclusion": {"r_mx": 3}}, "exclusion.r_mx: unknown key (did you mean r_max?)"),
        ({"datasets": {"crowd": {**CROWD, "sam": {"modl": "small"}}}}, "datasets.crowd.sam.modl: unknown key"),
        ({"batches": 0}, "batches: must be a whole number from 1 to 10000 (got 0)"),
        ({"datasets": {"../x": CROWD}}, "not a name of a data set"),
    ],
)
def test_a_typo_in_the_configuration_is_named_by_its_path(new, config, words):
    flow = new({"datasets": {"crowd": CROWD}, **config})
    done = flow.run("--dry-run", *targets("crowd"))
    refused(done, "crowdmask: error: configuration: ", words)
    assert "Traceback" not in done.text


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("results/nope/masks.json", "no data set 'nope' in the configuration; known: crowd, plain"),
        ("results/nope/evaluation.json", "no data set 'nope' in the configuration; known: crowd, plain"),
        ("results/nope/overlays/index.html", "no data set 'nope' in the configuration; known: crowd, plain"),
        ("demo", "no data set 'demo' in the configuration; known: crowd, plain"),
        ("results/plain/evaluation.json", "data set plain has no true masks: it cannot be evaluated"),
        ("results/crowd/merge/test/scene-9.parquet", "data set crowd: no batch test/scene-9"),
        ("results/crowd/overlays/train/scene-0000.png", "data set crowd: no image train/scene-0000"),
        ("results/train_sam/sam.safetensors", "train_sam.datasets: name at least one data set"),
    ],
)
def test_a_target_that_cannot_be_made_says_why(new, target, words):
    flow = new({"datasets": {"crowd": CROWD, "plain": FOLDER}})
    add_annotated(flow.folder / "in", "a", [(1, 1)])
    refused(flow.run("--dry-run", target), words)


def test_a_checkpoint_with_another_hash_is_refused(changed):
    changed.configure({"datasets": {"crowd": CROWD}, "sam": {"sha256": "a" * 64}})
    done = changed.run("results/crowd/segment/test/scene-0000.parquet")
    refused(done, "small.safetensors: wrong SHA-256: ", f"expected {'a' * 64}", "download it again")


def test_corrections_that_cannot_be_are_named_by_file_and_edit_and_stop_only_their_image(changed):
    path = correct(changed, {"action": "delete", "point_id": 0}, {"action": "delete", "point_id": 4711})
    correct(changed, {"action": "accept", "point_id": 0}, name="scene-0001")
    before = changed.path("crowd", "masks.json").read_bytes()
    done = changed.run("--keep-going", *targets("crowd", "masks.json"))
    name = path.relative_to(changed.folder)
    refused(done, f"{name}, row 1: point 4711 does not exist")
    rows = tables.read(changed.path("crowd", "edits", "test", "scene-0001.parquet"), "edits")
    assert [row["outcome"] for row in rows] == ["applied"]
    assert changed.path("crowd", "masks.json").read_bytes() == before

    correct(changed, {"action": "delete", "point_id": 0}, height=121)
    words = f"{name}: drawn on an image of 121 x 160 pixels (height x width), this one has 120 x 160"
    refused(changed.run(*targets("crowd", "masks.json")), words)

    path.write_text('{"version": 1, "version": 1}', encoding="utf-8")
    refused(changed.run(*targets("crowd", "masks.json")), f"{name}: not valid JSON (key 'version' twice in one object)")

    path.unlink()
    changed.make(*targets("crowd", "masks.json"))
    assert isinstance(changed, Flow) and changed.path("crowd", "masks.json").read_bytes() != before  # the accepted one
