"""`crowdmask datasets inspect`: the right format, numbers and entry for every layout."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import yaml

from crowdmask import cli, config
from crowdmask.datasets import READERS, reader_for, recognise
from crowdmask.datasets.inspect import as_text, as_yaml, inspect, unknown_text
from crowdmask.datasets.recognise import split_of
from crowdmask.errors import CrowdmaskError, DataError
from layouts import generic, official

SHARED = Path(os.environ.get("CROWDMASK_SHARED", Path(__file__).parents[3] / "shared" / "data"))


def shared(name: str) -> Path:
    """A folder of the shared real data; skips the test where it is absent."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"real data not found: {SHARED / name} (set CROWDMASK_SHARED)")
    return SHARED / name


def one(folder: Path) -> dict[str, Any]:
    (found,) = inspect(folder)
    return found


def loaded_counts(surveys: list[dict[str, Any]]) -> dict[str, int]:
    """Points of each data set by reading it with the pasted configuration."""
    loaded = config.load(yaml.safe_load(as_yaml(surveys)))
    result = {}
    for name, entry in loaded.datasets.items():
        reader = reader_for(name, entry, "results")
        result[name] = sum(len(reader.read_points(ref)) for ref in reader.list_images())
    return result


Maker = Callable[[Path], generic.Made]

LAYOUTS: dict[str, Maker] = {
    "coco keypoints": lambda root: generic.coco(root, "keypoints"),
    "coco boxes": lambda root: generic.coco(root, "boxes"),
    "coco, images in the root": lambda root: generic.coco(root, images="."),
    "coco, other folder": lambda root: generic.coco(root, images="frames", file="annotations/heads.json"),
    "coco in splits": generic.coco_splits,
    **{f"csv, {name}": lambda root, name=name: generic.points_csv(root, name) for name in generic.DIALECTS},
    "csv in splits": lambda root: generic.points_csv(root, split="Subset"),
    "parquet": generic.points_parquet,
    "parquet, images in the root": lambda root: generic.points_parquet(root, "."),
    "label maps": generic.label_map,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_generic_layouts(tmp_path: Path, layout: str) -> None:
    truth = LAYOUTS[layout](tmp_path / "my set")
    found = one(tmp_path)  # one level above
    assert found["format"] == truth.entry["format"] and not found["problem"] and not found["unreadable"]
    assert found["images"] == len(truth.points) and found["points"] == truth.total
    counts = [len(points) for points in truth.points.values()]
    assert found["points_per_image"] == {"min": min(counts), "median": np.median(counts), "max": max(counts)}
    assert found["mean_size_wh"] == found["largest_size_wh"] == [generic.WIDTH, generic.HEIGHT]
    megapixels = len(counts) * generic.WIDTH * generic.HEIGHT / 1e6
    assert found["points_per_megapixel"] == pytest.approx(truth.total / megapixels, abs=0.01)
    assert {split for split in found["splits"]} == {key.partition("/")[0] for key in truth.points}
    assert loaded_counts([found]) == {"my-set": truth.total}
    assert one(tmp_path / "my set")["entry"] == found["entry"]


@pytest.mark.parametrize("annotations", [None, "annotations", "labels", "json"])
@pytest.mark.parametrize("splits", [("",), ("train", "val")])
def test_labelme(tmp_path: Path, annotations: str | None, splits: tuple[str, ...]) -> None:
    truth = generic.labelme(tmp_path, annotations, splits)
    for path in tmp_path.rglob("*.json"):  # no label is needed where all shapes are heads
        path.write_text(path.read_text(encoding="utf-8").replace('"linestrip"', '"polygon"'), encoding="utf-8")
    found = one(tmp_path)
    assert found["format"] == "labelme" and not found["unreadable"]
    assert found["points"] == truth.total + len(truth.points) and found["images"] == len(truth.points)


@pytest.mark.parametrize("layout", official.LAYOUTS)
@pytest.mark.parametrize("above", [False, True])
def test_official_layouts(tmp_path: Path, layout: str, above: bool) -> None:
    kind, write = official.LAYOUTS[layout]
    truth = write(tmp_path / "set", np.random.default_rng(5))
    found = one(tmp_path if above else tmp_path / "set")
    assert found["format"] == kind and not found["problem"] and not found["unreadable"]
    assert found["images"] == len(truth)
    assert found["points"] == sum(len(image.points_xy) for image in truth.values())
    assert loaded_counts([found]) == {"set": found["points"]}
    assert found["entry"] == {"format": kind, "root": str(tmp_path / "set")}
    assert (found["unlabelled"] > 0) == (kind == "nwpu")


def test_real_data() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"real data not found: {SHARED} (set CROWDMASK_SHARED)")
    expected = {
        "shanghaitech_mini/part_A": ("shanghaitech", 2, 684),
        "shanghaitech_mini/part_B": ("shanghaitech", 2, 249),
        "ucf_cc_50": ("ucf", 50, 63_974),
        "dsb2018": ("label_map", 192, None),
    }
    found = {Path(item["root"]).relative_to(SHARED).as_posix(): item for item in inspect(SHARED)}
    for name, (kind, images, points) in expected.items():
        shared(name)
        item = found[name]
        assert (item["format"], item["images"], item["problem"], item["unreadable"]) == (kind, images, "", [])
        assert points is None or item["points"] == points
    assert found["ucf_cc_50"]["points_per_image"] == {"min": 96, "median": 1002.0, "max": 4633}
    assert found["shanghaitech_mini/part_A"]["splits"] == {"train": {"images": 2, "points": 684}}
    assert loaded_counts([found["ucf_cc_50"]]) == {"ucf_cc_50": 63_974}
    assert unknown_text(shared("labelled_splits")).splitlines()[1].endswith("files .txt")


def test_several_sets_have_names_of_their_own(tmp_path: Path) -> None:
    for folder in ("a/data", "b/data", "c c"):
        generic.label_map(tmp_path / folder)
    generic.points_csv(tmp_path / "b/data")
    surveys = inspect(tmp_path)
    assert [item["name"] for item in surveys] == ["data", "data-points", "data-label_map", "c-c"]
    assert set(config.load(yaml.safe_load(as_yaml(surveys))).datasets) == {item["name"] for item in surveys}


def test_coco_files_of_folders_of_their_own_are_entries_of_their_own(tmp_path: Path) -> None:
    """The layout of COCO itself: `train2017/`, `val2017/`, `annotations/instances_*`, also `person_keypoints_*`."""
    for split, heads in (("train2017", generic.HEADS), ("val2017", {"z.jpg": [(1.0, 2.0)]})):
        for name in heads:
            generic.save_image(tmp_path / split / name)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        for kind, part in (("instances", "boxes"), ("person_keypoints", "keypoints"), ("captions", "boxes")):
            path = tmp_path / "annotations" / f"{kind}_{split}.json"
            path.write_text(json.dumps(generic.coco_content(heads, part)), encoding="utf-8")
    surveys = inspect(tmp_path)
    assert [item["entry"]["images"] for item in surveys] == ["train2017", "val2017"]
    file = "annotations/person_keypoints_{}.json"
    assert surveys[0]["entry"]["annotations"] == {"train2017": file.format("train2017")}
    assert list(loaded_counts(surveys).values()) == [3, 1]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("val.json", "val"),
        ("jhu_test_v1.json", "test"),
        ("contest.json", "contest"),
        ("my validation.json", "validation"),
        ("_annotations.coco.json", "annotations.coco"),
    ],
)
def test_split_of_a_file_name(name: str, split: str) -> None:
    assert split_of(name) == split


def test_no_more_folders_are_tried_than_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generic.points_csv(tmp_path)
    for k in range(30):
        (tmp_path / f"clip-{k}").mkdir()
    tried = []
    attempt = recognise._attempt
    monkeypatch.setattr(recognise, "_attempt", lambda folder, entry: tried.append(entry) or attempt(folder, entry))
    assert one(tmp_path)["format"] == "points"
    assert sum(entry["format"] == "points" for entry in tried) == 1


def test_unlabelled_and_unreadable_images_are_counted(tmp_path: Path) -> None:
    generic.coco(tmp_path)
    generic.save_image(tmp_path / "images" / "more.jpg")
    (tmp_path / "images" / "b.jpg").write_bytes(b"no image")
    found = one(tmp_path)
    assert (found["images"], found["points"], found["unlabelled"]) == (3, 1, 1)
    assert len(found["unreadable"]) == 1 and "b.jpg: not an image" in found["unreadable"][0]
    text = as_text([found])
    assert "1 images without annotation" in text and "1 images cannot be used:\n" in text


def test_faulty_set_is_recognised_and_its_fault_told(tmp_path: Path) -> None:
    """A missing file does not hide what the folder is, nor is a part of it taken for the whole."""
    for split in ("Train", "Test"):
        for name in ("1", "2"):
            generic.save_image(tmp_path / split / f"{name}.jpg")
            scipy.io.savemat(tmp_path / split / f"{name}_ann.mat", {"annPoints": np.ones((3, 2))})
    assert one(tmp_path)["points"] == 12
    (tmp_path / "Test" / "2_ann.mat").unlink()
    found = one(tmp_path)
    assert found["format"] == "ucf" and found["images"] == 0
    assert "Test/2.jpg: no annotation: Test/2_ann.mat is missing" in found["problem"]
    assert "not usable yet: " in as_text([found])


def test_faulty_coco_and_table(tmp_path: Path) -> None:
    generic.coco(tmp_path / "c")
    generic.points_csv(tmp_path / "p")
    for name in "cp":
        (tmp_path / name / "images" / "a.jpg").unlink()
    coco, points = inspect(tmp_path)
    assert coco["format"] == "coco" and "names the image images/a.jpg, which is not there" in coco["problem"]
    assert points["format"] == "points" and "names the image images/a.jpg, which is not there" in points["problem"]


@pytest.mark.parametrize(
    "files",
    [
        [],
        ["a.jpg", "b.jpg"],
        ["images/a.jpg"],
        ["a.jpg", "a.json"],
        ["train/a.jpg", "test/b.jpg"],
        ["train_data/images/IMG_1.jpg"],
        ["points.csv", "images/a.jpg"],
        ["annotations/a.json", "images/a.jpg"],
        ["x/y/z/images/a.png", "x/y/z/labels/a.png"],
    ],
    ids=lambda files: " ".join(files) or "nothing",
)
def test_what_is_no_data_set(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".jpg", ".png"):
            generic.save_image(path)
        else:
            path.write_text('{"nodes": [1]}', encoding="utf-8")
    assert inspect(tmp_path) == []
    text = unknown_text(tmp_path)
    assert all(kind in text for kind in READERS)
    assert all(name.partition("/")[0] in text for name in files if "/" in name)


def test_hostile_names_in_a_coco_file_lead_nowhere(tmp_path: Path) -> None:
    generic.save_image(tmp_path / "outside.jpg")
    for name in ("../outside.jpg", str(tmp_path / "outside.jpg"), "..\\outside.jpg"):
        folder = tmp_path / "set"
        generic.coco(folder)
        content = generic.coco_content({name: [(1.0, 1.0)]})
        (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
        found = one(folder)
        assert "leads outside of the folder of the images" in found["problem"] and found["images"] == 0


def test_folder_that_is_not_there_or_not_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match="no such folder"):
        inspect(tmp_path / "no")
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/s\xff"))
    try:
        generic.label_map(strange)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    generic.label_map(tmp_path / "fine")
    with caplog.at_level(logging.WARNING):
        assert one(tmp_path)["name"] == "fine"
    assert "is not UTF-8" in caplog.text
    with pytest.raises(DataError, match="is not UTF-8"):
        inspect(strange)
    unknown_text(tmp_path).encode()


# ------------------------------------------------------------------ command line


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generic.label_map(tmp_path / "nuclei")
    assert cli.main(["datasets", "inspect", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{tmp_path}/nuclei: label_map\n  all                2 images           4 points\n")
    pasted = yaml.safe_load(text.partition("For the configuration:\n")[2])
    assert pasted == {"datasets": {"nuclei": {"format": "label_map", "root": f"{tmp_path}/nuclei"}}}
    assert cli.main(["datasets", "inspect", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["sets"]
    assert found["points"] == 4 and found["splits"] == {"all": {"images": 2, "points": 4}}


def test_command_on_what_is_no_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").touch()
    assert cli.main(["datasets", "inspect", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "1 files .txt" in said.out and "no data set of a known format" in said.err
    assert cli.main(["datasets", "inspect", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["sets"] == []
    generic.coco(tmp_path)
    (tmp_path / "images" / "a.jpg").unlink()
    assert cli.main(["datasets", "inspect", str(tmp_path)]) == 1
    assert "can be used as it is" in capsys.readouterr().err
    with pytest.raises(CrowdmaskError):
        inspect(tmp_path / "notes.txt")


def test_datasets_without_action_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = {"format": "synthetic", "count": 1}
    Path("config.yaml").write_text(yaml.safe_dump({"datasets": {"inspect": entry, "demo": entry}}), encoding="utf-8")
    listed = []
    for arguments in ([], ["list"], ["--configfile"], ["demo"], ["list", "demo"], ["list", "inspect"]):
        assert cli.main(["datasets", *arguments]) == 0
        listed.append(capsys.readouterr().out)
    assert listed[0] == listed[1] == listed[2] and listed[3] == listed[4] == listed[5] != listed[0]


def test_command_line_loads_no_torch(tmp_path: Path) -> None:
    generic.label_map(tmp_path)
    code = (
        "import sys; from crowdmask import cli\n"
        f"assert cli.main(['datasets', 'inspect', {str(tmp_path)!r}]) == 0\n"
        "print([m for m in ('torch', 'skimage', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
