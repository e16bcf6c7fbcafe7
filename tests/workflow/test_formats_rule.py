"""The other formats, asked for as files of the workflow and by the command line; each gives the run's masks back."""

import json
import subprocess

import numpy as np
import pytest
from flow import CROWD, environment

from crowdmask import tables
from crowdmask.export import coco_reader, files, iim, parquet
from crowdmask.masks.rle import Window

WANTED = [f"export/{name}/test.json" for name in ("coco", *files.FORMATS)] + ["export/parquet/masks.parquet"]


@pytest.fixture(scope="module")
def made(crowd, tmp_path_factory):
    flow = crowd.copy(tmp_path_factory.mktemp("formats") / "copy")
    flow.make(*(f"results/crowd/{path}" for path in WANTED))
    return flow


def merged(flow):
    """Masks of the run by image and point."""
    found = {}
    for path in sorted(flow.path("crowd", "merge", "test").glob("*.parquet")):
        for row in tables.read(path, "masks"):
            found.setdefault(row["image_id"], {})[row["point_id"]] = Window.from_columns(row)
    return found


def test_each_gives_the_masks_back(made):
    expected = merged(made)
    root = made.path("crowd", "export")
    size = CROWD["height"], CROWD["width"]
    sizes = dict.fromkeys(expected, size)
    read = {
        "coco": coco_reader.CocoFile(root / "coco/test.json").instances(),
        "parquet": parquet.read(root / "parquet/masks.parquet"),
        "xmask": files.FORMATS["xmask"].read(root / "xmask", "test"),
        "label-map": files.FORMATS["label-map"].read(root / "label-map", "test"),
        "yolo": files.FORMATS["yolo"].read(root / "yolo", "test", sizes),
    }
    for name, items in read.items():
        found = {item.image_id: item for item in items}
        assert found.keys() == expected.keys(), name
        for image_id, item in found.items():
            points = sorted(expected[image_id])
            assert item.ids.tolist() == (list(range(len(points))) if name == "yolo" else points), name
            for point, window in zip(points, item.windows, strict=True):
                np.testing.assert_array_equal(window.full(*size), expected[image_id][point].full(*size))
    union = {image_id: np.any([w.full(*size) for w in masks.values()], axis=0) for image_id, masks in expected.items()}
    report = json.loads((root / "iim/test.json").read_text())
    heads = {item.image_id: item for item in iim.read(root / "iim", "test")}
    lost = 0
    for image_id, item in heads.items():
        drawn = np.any([w.full(*size) for w in item.windows], axis=0)
        assert not (drawn & ~union[image_id]).any()
        lost += int((union[image_id] & ~drawn).sum())
    assert lost == report["counts"]["pixels_given_up"]
    lines = iim.read_locations(root / "iim/test/test_gt_loc.txt")
    assert sorted(map(len, lines.values())) == sorted(map(len, expected.values()))


def test_coco_of_the_only_split_is_coco_of_the_data_set(made):
    assert made.path("crowd", "export/coco/test.json").read_bytes() == made.path("crowd", "masks.json").read_bytes()


def test_nothing_is_made_twice(made):
    assert not made.plan(*(f"results/crowd/{path}" for path in WANTED))


def test_the_command_line_writes_the_same(made, tmp_path):
    for name in ("coco", "parquet", *files.FORMATS):
        command = ["crowdmask", "export", "crowd", "--to", name, "--output", str(tmp_path / name)]
        done = subprocess.run(command, cwd=made.folder, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "masks in 2 images" in done.stdout
        root = made.path("crowd", "export", name)
        ours, theirs = ({p.relative_to(r) for p in r.rglob("*") if p.is_file()} for r in (root, tmp_path / name))
        assert ours == theirs
        for path in ours:
            assert (root / path).read_bytes() == (tmp_path / name / path).read_bytes(), path
        again = subprocess.run(command, cwd=made.folder, env=environment(), capture_output=True, text=True)
        assert again.returncode == 1 and "there is something already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["crowd", "--to", "yolo", "--split", "train"], "has no split 'train'; it has: test"),
        (["crowd", "--to", "parquet", "--split", "test"], "leave out --split"),
        (["nobody", "--to", "yolo"], "no data set 'nobody'"),
    ],
)
def test_mistakes_are_told(crowd, arguments, message):
    done = subprocess.run(
        ["crowdmask", "export", *arguments], cwd=crowd.folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1 and message in done.stderr


def test_masks_that_are_not_made_yet(new):
    flow = new({"datasets": {"crowd": CROWD}})
    done = subprocess.run(
        ["crowdmask", "export", "crowd", "--to", "coco"],
        cwd=flow.folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "not made yet" in done.stderr and "snakemake" in done.stderr


def test_a_split_that_there_is_not(crowd):
    done = crowd.run("--dry-run", "results/crowd/export/yolo/train.json")
    assert done.code != 0 and "no split train; it has: test" in done.text


def test_overlapping_masks_stop_a_label_map_only(changed):
    settings = {"datasets": {"crowd": CROWD}, "exclusion": {"disjoint": False, "tie": "nearest"}}
    changed.configure(settings)
    done = changed.run(
        "results/crowd/export/label-map/test.json", "results/crowd/export/yolo/test.json", "--keep-going"
    )
    assert done.code != 0 and "share pixels" in done.text and "exclusion.disjoint" in done.text
    assert changed.path("crowd", "export/yolo/test.json").is_file()
    assert not changed.path("crowd", "export/label-map/test.json").exists()
