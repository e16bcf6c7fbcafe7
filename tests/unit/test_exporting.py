"""Handing out masks for correction: pictures, the folder, and that nothing half-done stays."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from crowdmask import cli, tables
from crowdmask.corrections import howto
from crowdmask.corrections.exchange import record as records
from crowdmask.corrections.exchange import tools
from crowdmask.corrections.exporting import export
from crowdmask.corrections.looks import looks
from crowdmask.datasets import images, reader_for
from crowdmask.datasets.stage import collect
from crowdmask.errors import DataError
from layouts.handout import (
    CORNER,
    FORMS,
    PLAIN,
    POINTS,
    TIME,
    WHO,
    H,
    W,
    batches,
    config,
    edit,
    fails,
    mask_row,
    run_merge,
    table,
    written,
)

# Pictures


def test_pictures_are_the_files_themselves_or_what_the_pipeline_sees(handout_project):
    done = export(config(), "crowd", "cvat", time=TIME)
    assert len(done.record.tasks) == len(FORMS) + 1
    copied = []
    for task in done.record.tasks:
        source = next(
            Path("data/images", name)
            for name in [*FORMS, "sub/rgb.png"]
            if name.replace("/", "-").rpartition(".")[0] == task.image_id
        )
        content = (done.folder / "images" / task.name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == task.picture
        assert hashlib.sha256(source.read_bytes()).hexdigest() == task.sha256
        seen = images.read_image(source)
        assert (images.read_image(done.folder / "images" / task.name) == seen).all()
        assert task.thumb == looks(seen)
        assert (task.height, task.width, task.x0, task.y0, task.w, task.h) == (
            *seen.shape[:2],
            0,
            0,
            *seen.shape[1::-1],
        )
        opened = Image.open(io.BytesIO(content))
        assert opened.getexif().get(0x0112, 1) == 1
        if content == source.read_bytes():
            copied.append(source.name)
        else:
            assert opened.format == "PNG" and task.name.endswith(".png")
    assert sorted(copied) == sorted([*PLAIN, "rgb.png"])


def test_exif_is_applied_where_the_data_set_says_so(handout_project):
    done = export(config(), "other", "cvat", named=["turned", "test/photo"])
    turned, photo = done.record.tasks
    assert (turned.height, turned.width) == (W, H) and (photo.height, photo.width) == (H, W)
    seen = images.read_image("data/images/turned.jpg", "apply")
    assert (images.read_image(done.folder / "images" / turned.name) == seen).all()
    assert (done.folder / "images" / photo.name).read_bytes() == Path("data/images/photo.jpg").read_bytes()


def test_crops_have_their_pixels_their_heads_and_a_dark_rim(handout_project):
    done = export(config(), "crowd", "cvat", named=["test/rgb"], shapes=2, margin=4)
    whole = images.read_image("data/images/rgb.png")
    tasks = done.record.tasks
    assert len(tasks) == 3 and sorted(head.point_id for task in tasks for head in task.heads) == [0, 1, 2, 3, 4]
    bright = np.zeros((H, W), int)
    for number, task in enumerate(tasks, 1):
        assert task.name == f"{number:04d}-test-rgb-x{task.x0}y{task.y0}-{done.record.tag}.png"
        part = images.read_image(done.folder / "images" / task.name)
        seen = whole[task.y0 : task.y0 + task.h, task.x0 : task.x0 + task.w]
        same = (part == seen).all(axis=2)
        assert ((part == seen // 2).all(axis=2) | same).all()
        bright[task.y0 : task.y0 + task.h, task.x0 : task.x0 + task.w] += same
        assert looks(part) == task.thumb
        for head in task.heads:
            full = mask_row(("test", "rgb"), head.point_id, *POINTS[head.point_id])
            assert head.window().area == full["area"] == task.local(head).area
            assert (head.x0, head.y0) == (full["x0"], full["y0"])
    assert (bright >= 1).all()
    assert (bright > 1).mean() < 0.01  # black pixels alone are as bright as dark ones


# The folder


def test_the_folder_its_list_its_instructions_and_the_record(handout_project):
    done = export(config(), "crowd", "cvat", named=["grey", "test/rgb"], shapes=4, time=TIME)
    tag = done.record.tag
    assert done.folder == Path("results/crowd/corrections", f"cvat-{tag}")
    assert done.path == Path("corrections/.exports/crowd", f"{tag}.json")
    assert records.load(done.path) == done.record
    assert (done.record.tool, done.record.time, done.record.dataset) == ("cvat", TIME, "crowd")
    names = sorted(path.relative_to(done.folder).as_posix() for path in done.folder.rglob("*") if path.is_file())
    assert names == sorted(
        ["README.txt", "sub/masks.json", "tasks.csv", *(f"images/{task.name}" for task in done.record.tasks)]
    )
    lines = list(csv.DictReader(io.StringIO((done.folder / "tasks.csv").read_text(encoding="utf-8"))))
    assert [line["picture"] for line in lines] == [task.name for task in done.record.tasks]
    assert [(line["number"], line["image_id"], line["heads"], line["score"]) for line in lines] == [
        ("1", "grey", "2", ""), ("2", "grey", "3", ""), ("3", "rgb", "2", ""), ("4", "rgb", "3", ""),
    ]  # fmt: skip
    task = done.record.tasks[1]
    assert lines[1]["crop"] == f"{task.w}x{task.h}+{task.x0}+{task.y0}"
    text = (done.folder / "README.txt").read_text(encoding="utf-8")
    assert "crowdmask corrections import crowd FILE" in text and "sub/masks.json" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("tool", tools.TOOLS)
def test_every_tool_has_instructions(handout_project, tool):
    done = export(config(), "crowd", tool, named=["grey"])
    text = (done.folder / "README.txt").read_text(encoding="utf-8")
    assert tool in text and "\nCrops\n" not in text and "\n4. " in text


def test_many_files_of_a_kind_are_one_line_of_the_instructions(handout_project):
    record = export(config(), "crowd", "labelme", named=["grey"]).record
    text = howto.text(record, ["a.json", *(f"images/{i}.json" for i in range(4)), "images/x.xml"])
    assert "\n- a.json\n- images/*.json: 4 files\n- images/x.xml\n" in text


def test_an_export_has_its_own_tag_and_the_same_export_the_same(handout_project):
    first = export(config(), "crowd", "cvat", named=["grey"], time=TIME, output="1")
    assert export(config(), "crowd", "cvat", named=["grey"], time=TIME, output="2").record == first.record
    others = [
        export(config(), "crowd", "cvat", named=["rgb-none", "grey"][1:], time="2025-01-02T03:04:06Z", output="3"),
        export(config(), "crowd", "coco", named=["grey"], time=TIME, output="4"),
        export(config(), "crowd", "cvat", named=["deep"], time=TIME, output="5"),
        export(config(), "crowd", "cvat", named=["grey"], time=TIME, output="6", shapes=3),
        export(config(), "other", "cvat", named=["grey"], time=TIME, output="7"),
    ]
    edit("test", "grey", {"action": "replace", "point_id": 0, **CORNER, **WHO})
    run_merge()
    others.append(export(config(), "crowd", "cvat", named=["grey"], time=TIME, output="8"))
    assert len({first.record.tag, *(done.record.tag for done in others)}) == 7


def test_a_folder_with_something_in_it_is_left_alone(handout_project):
    Path("out").mkdir()
    export(config(), "crowd", "cvat", named=["grey"], output="out")
    shutil.rmtree("corrections")
    fails(DataError, "out: the folder is not empty", named=["grey"], output="out")
    fails(DataError, "config.yaml: there is a file of this name", named=["grey"], output="config.yaml")
    Path("out/link").symlink_to("nowhere")
    fails(DataError, "link: there is a file of this name", named=["grey"], output="out/link")


@pytest.mark.parametrize("given", [None, "out", "out/deep/er"])
@pytest.mark.parametrize("fault", ["writer", "record", "interrupt", "image"])
def test_what_fails_in_the_middle_leaves_nothing(handout_project, monkeypatch, given, fault):
    if given == "out":
        Path("out").mkdir()

    def write(folder, record):
        (folder / "made").mkdir()
        (folder / "made" / "half.json").write_text("[", encoding="utf-8")
        if fault != "record":
            raise KeyboardInterrupt if fault == "interrupt" else OSError(28, "No space left on device")
        return []

    def save(record, folder):
        raise PermissionError(13, "Permission denied", "corrections")

    if fault == "record":
        monkeypatch.setattr(records, "save", save)
    if fault == "image":  # the last of all
        Path("data/images/sub/rgb.png").write_bytes(b"")
    else:
        monkeypatch.setattr(tools, "module", lambda tool: SimpleNamespace(write=write))
    expected = {
        "writer": (DataError, r"cannot be written \(No space left on device\)"),
        "record": (DataError, r"^corrections: cannot be written \(Permission denied\)"),
        "interrupt": (KeyboardInterrupt, "^$"),
        "image": (DataError, "the file has changed"),
    }
    everything = set(Path().rglob("*"))
    fails(*expected[fault], output=given)
    assert set(Path().rglob("*")) == everything


def test_ids_with_odd_characters_give_plain_names(handout_project):
    long = "b" * 240
    for folder, name in (("data/images", f"{long}.png"), ("data/images", "a b (1),=@+.c.png")):
        shutil.copy("data/images/rgb.png", Path(folder, name))
    with open("data/points.csv", "a", encoding="utf-8") as file:
        file.write(f'\n{long}.png,5,5,test\n"a b (1),=@+.c.png",5,5,test\n')
    shutil.rmtree("results")
    text = Path("config.yaml").read_text(encoding="utf-8")
    Path("config.yaml").write_text(text.replace('"batches": 1', '"batches": 64'), encoding="utf-8")
    for name in (long, "a b (1),=@+.c"):
        refs = batches("crowd")["test", name]
        rows = list(collect(reader_for("crowd", config().datasets["crowd"], "results"), refs, "stored"))
        tables.write(table("crowd", "datasets", "test", name), "images", rows, version=2, settings="{}")
        mask = mask_row(("test", name), 0, 5, 5)
        for stage in ("exclude", "merge"):
            text = json.dumps({"stale": "report", "disjoint": True})
            tables.write(table("crowd", stage, "test", name), "masks", [mask], version=2, settings=text)
        tables.write(table("crowd", "edits", "test", name), "edits", [], version=2, settings="{}")
    done = export(config(), "crowd", "cvat", named=[long, "a b (1),=@+.c"])
    first, second = (task.name for task in done.record.tasks)
    assert first == f"0001-test-{'b' * 100}-{done.record.tag}.png"
    assert second == f"0002-test-a_b__1______c-{done.record.tag}.png"


# The command


def test_the_command_prints_what_it_wrote(handout_project, capsys):
    arguments = ["corrections", "export", "crowd", "--to", "label-studio", "--images", "test/rgb,grey", "deep"]
    assert cli.main([*arguments, "--json", "--output", "out", "--shapes", "3"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["folder"], said["pictures"], said["masks"]) == ("out", 6, 15)
    assert [task["image_id"] for task in said["tasks"]] == ["rgb", "rgb", "grey", "grey", "deep", "deep"]
    assert records.load(said["record"]).tag == said["tag"]
    assert cli.main(["corrections", "export", "crowd", "--to", "coco", "--all"]) == 0
    text = capsys.readouterr().out
    assert f"pictures: {len(FORMS) + 1}, of {len(FORMS) + 1} images" in text and "masks: 55" in text
    # Records among the edit files are no edit files.
    edit("test", "rgb", {"action": "delete", "point_id": 1, **WHO})
    assert cli.main(["corrections", "check", "corrections"]) == 0
    assert capsys.readouterr().out == "1 edit files are valid\n"


@pytest.mark.parametrize(
    "options",
    [
        ["--to", "paint", "--all"],
        ["--to", "coco"],
        ["--to", "coco", "--all", "--worst", "2"],
        ["--to", "coco", "--worst", "0"],
        ["--to", "coco", "--all", "--shapes", "0"],
        ["--to", "coco", "--all", "--margin", "-1"],
    ],
)
def test_options_that_make_no_sense(handout_project, options, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["corrections", "export", "crowd", *options])
    assert end.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope", "--all"], "no data set 'nope'"),
        (["crowd", "--images", "test"], "No image 'test'"),
        (["crowd", "--images", "gray"], "similar: test/grey"),
        (["crowd", "--worst", "1"], "review.parquet: not made yet. Run: snakemake"),
    ],
)
def test_an_error_is_one_line(handout_project, arguments, words, capsys):
    assert cli.main(["corrections", "export", *arguments, "--to", "coco"]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not written()
