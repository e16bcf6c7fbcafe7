"""Official layouts as downloaded: what readers make of them, and of what can be wrong with them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from crowdmask import tables
from crowdmask.datasets import stage
from crowdmask.datasets.base import Reader
from crowdmask.errors import DataError
from layouts import official
from layouts.official import LAYOUTS
from layouts.reading import ids as keys
from layouts.reading import reader_of as reader
from layouts.reading import rng


def check(made: Reader, truth: dict[str, official.Truth]) -> None:
    """Ids, files, points, boxes and all else are those that were written."""
    refs = made.list_images()
    assert keys(refs) == list(truth)
    for ref, wanted in zip(refs, truth.values(), strict=True):
        assert (ref.image, ref.annotation) == (wanted.image, wanted.annotation)
        found = made.read_annotation(ref)
        np.testing.assert_array_equal(found.points_xy, wanted.points_xy)
        np.testing.assert_array_equal(made.read_points(ref), wanted.points_xy)
        assert found.points_xy.dtype == np.float64 and found.points_xy.shape == (len(wanted.points_xy), 2)
        assert (found.boxes_xyxy is None) == (wanted.boxes_xyxy is None)
        if wanted.boxes_xyxy is not None and found.boxes_xyxy is not None:
            np.testing.assert_array_equal(found.boxes_xyxy, wanted.boxes_xyxy)
            assert found.boxes_xyxy.dtype == np.float64 and found.boxes_xyxy.shape == (len(wanted.points_xy), 4)
        assert (found.declared, found.labels) == (wanted.declared, wanted.labels)
        assert found.attributes.keys() == wanted.attributes.keys()
        for name, values in wanted.attributes.items():
            np.testing.assert_array_equal(found.attributes[name], values)


# ------------------------------------------------------------------ layouts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_read_as_it_was_written(tmp_path: Path, layout: str) -> None:
    kind, write = LAYOUTS[layout]
    truth = write(tmp_path, rng())
    made = reader(kind, tmp_path)
    check(made, truth)
    rows = list(stage.collect(made, made.list_images(), "stored"))
    tables.write(tmp_path / "t.parquet", "images", rows, version=stage.VERSION, settings="{}")
    assert tables.read(tmp_path / "t.parquet", "images") == rows
    for row, wanted in zip(rows, truth.values(), strict=True):
        np.testing.assert_array_equal(tables.points_of(row), wanted.points_xy)
        boxes = [[point[name] for name in tables.NO_BOX] for point in row["points"]]
        expected = [[None] * 4] * len(boxes) if wanted.boxes_xyxy is None else wanted.boxes_xyxy.tolist()
        assert boxes == expected
        assert not any(point["outside"] for point in row["points"])


def test_the_generated_layouts_are_those_that_others_read(tmp_path: Path) -> None:
    """By the words of published loaders: nesting, variables, columns and keys, without our readers."""
    sha = official.shanghaitech(tmp_path / "sha", rng())
    for wanted in sha.values():
        info = scipy.io.loadmat(tmp_path / "sha" / wanted.annotation)["image_info"]
        np.testing.assert_array_equal(info[0, 0][0, 0][0], wanted.points_xy)
        assert info[0, 0][0, 0]["number"].item() == len(wanted.points_xy)
    nwpu, _ = official.nwpu(tmp_path / "nwpu", rng())
    for key, wanted in nwpu.items():
        mat = scipy.io.loadmat(tmp_path / "nwpu" / "mats" / f"{key.partition('/')[2]}.mat")
        assert wanted.boxes_xyxy is not None
        np.testing.assert_array_equal(mat["annPoints"].reshape(-1, 2), wanted.points_xy)
        np.testing.assert_array_equal(mat["annBoxes"].reshape(-1, 4), wanted.boxes_xyxy)
    jhu = official.jhu(tmp_path / "jhu", rng())
    for wanted in jhu.values():
        text = (tmp_path / "jhu" / wanted.annotation).read_text()
        rows = [[int(word) for word in line.split(" ")[:6]] for line in text.splitlines()]
        np.testing.assert_array_equal(np.reshape(rows, (-1, 6))[:, :2], wanted.points_xy)
    for wanted in official.fdst(tmp_path / "fdst", rng()).values():
        (content,) = json.loads((tmp_path / "fdst" / wanted.annotation).read_text()).values()
        assert len(content["regions"]) == len(wanted.points_xy) and content["filename"] == Path(wanted.image).name


@pytest.mark.parametrize("number", ["7", -1.0, 2.5, np.nan, np.inf, np.zeros((1, 2)), np.zeros((0, 0))])
def test_shanghaitech_number_that_is_none_is_no_error(tmp_path: Path, number: Any) -> None:
    (key, wanted), *_ = official.shanghaitech(tmp_path, rng(), 1).items()
    info = official.image_info(wanted.points_xy)
    info[0, 0]["number"][0, 0] = number
    official.save_mat(tmp_path / wanted.annotation, False, image_info=info)
    made = reader("shanghaitech", tmp_path)
    found = made.read_annotation(made.list_images()[0])
    assert key == "test/IMG_1" and found.declared is None
    np.testing.assert_array_equal(found.points_xy, wanted.points_xy)


@pytest.mark.parametrize("part", ["part_A", "part_B"])
def test_real_shanghaitech_declares_its_counts(shared: Path, part: str) -> None:
    made = reader("shanghaitech", shared / "shanghaitech_mini" / part)
    for ref in made.list_images():
        found = made.read_annotation(ref)
        assert found.declared == len(found.points_xy) > 0 and found.boxes_xyxy is None


def test_images_are_small_and_textured(tmp_path: Path) -> None:
    for wanted in official.jhu(tmp_path, rng()).values():
        pixels = np.asarray(Image.open(tmp_path / wanted.image))
        assert 96 <= min(pixels.shape[:2]) and max(pixels.shape[:2]) <= 160 and pixels.std() > 15


# ------------------------------------------------------------------ variants in the wild


def test_jhu_in_other_case_with_commas_and_without_labels(tmp_path: Path) -> None:
    truth = official.jhu(tmp_path, rng())
    (tmp_path / "val").rename(tmp_path / "VAL")
    (tmp_path / "VAL" / "images").rename(tmp_path / "VAL" / "Images")
    (tmp_path / "VAL" / "gt").rename(tmp_path / "VAL" / "GT")
    (tmp_path / "VAL" / "image_labels.txt").unlink()
    for path in (tmp_path / "VAL" / "GT").iterdir():
        path.write_text(",".join(path.read_text().split(" ")).replace(",\n", "\r\n"), encoding="utf-8-sig")
    made = reader("jhu", tmp_path)
    assert keys(made.list_images()) == list(truth)
    for ref in made.list_images():
        found = made.read_annotation(ref)
        np.testing.assert_array_equal(found.points_xy, truth[f"{ref.split}/{ref.image_id}"].points_xy)
        assert (found.declared is None) == (ref.split == "val") == (not found.labels)


def test_jhu_with_one_split_and_png(tmp_path: Path) -> None:
    truth = official.jhu(tmp_path, rng())
    shutil.rmtree(tmp_path / "val")
    shutil.rmtree(tmp_path / "test")
    for path in list((tmp_path / "train" / "images").iterdir()):
        Image.open(path).save(path.with_suffix(".PNG"), format="PNG")
        path.unlink()
    assert keys(reader("jhu", tmp_path).list_images()) == [key for key in truth if key.startswith("train/")]


def test_nwpu_with_one_folder_of_images_and_without_lists(tmp_path: Path) -> None:
    truth, unlabelled = official.nwpu(tmp_path, rng())
    (tmp_path / "images").mkdir()
    for path in tmp_path.glob("images_part*/*"):
        path.rename(tmp_path / "images" / path.name)
    for path in tmp_path.glob("*.txt"):
        path.unlink()
    made = reader("nwpu", tmp_path)
    assert keys(made.list_images()) == list(truth)
    assert keys(made.unlabelled()) == list(unlabelled)
    assert all(ref.image.startswith("images/") for ref in made.list_images())


@pytest.mark.parametrize("below", ["images_part3/images_part3", "images/images_part3"])
def test_nwpu_with_images_one_level_deeper(tmp_path: Path, below: str) -> None:
    truth, unlabelled = official.nwpu(tmp_path, rng())
    for path in sorted(tmp_path.glob("images_part3/*")):
        (tmp_path / below).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / below / path.name)
    made = reader("nwpu", tmp_path)
    assert keys(made.list_images()) == list(truth) and keys(made.unlabelled()) == list(unlabelled)
    assert any(ref.image.startswith(f"{below}/") for ref in made.list_images())


def test_nwpu_lists_decide_over_the_published_numbers(tmp_path: Path) -> None:
    official.nwpu(tmp_path, rng())
    (tmp_path / "train.txt").write_text("0001.jpg 1 2\r\n\r\n3110\n", encoding="utf-8-sig")
    (tmp_path / "val.txt").write_text("0002\n0003\n3111\n3112\n")
    (tmp_path / "test.txt").unlink()
    made = reader("nwpu", tmp_path)
    assert keys(made.list_images()) == ["train/0001", "train/3110", "val/0002", "val/0003", "val/3111", "val/3112"]
    assert made.read_annotation(made.list_images()[0]).labels["illumination"] == "2"
    assert len(made.unlabelled()) == 3


def test_nwpu_reads_mats_where_there_is_no_json(tmp_path: Path) -> None:
    truth, _ = official.nwpu(tmp_path, rng())
    (tmp_path / "jsons" / "0002.json").unlink()
    made = reader("nwpu", tmp_path)
    assert keys(made.list_images()) == list(truth)
    (ref,) = (ref for ref in made.list_images() if ref.image_id == "0002")
    assert ref.annotation == "mats/0002.mat"
    shutil.rmtree(tmp_path / "jsons")
    for ref in made.list_images():
        found, wanted = made.read_annotation(ref), truth[f"{ref.split}/{ref.image_id}"]
        assert ref.annotation.startswith("mats/") and wanted.boxes_xyxy is not None and found.boxes_xyxy is not None
        np.testing.assert_array_equal(found.points_xy, wanted.points_xy)
        np.testing.assert_array_equal(found.boxes_xyxy, wanted.boxes_xyxy)


def test_nwpu_of_the_first_release_without_boxes(tmp_path: Path) -> None:
    truth, _ = official.nwpu(tmp_path, rng())
    points = truth["train/0001"].points_xy
    (tmp_path / "jsons" / "0001.json").write_text(json.dumps({"img_id": "0001.jpg", "points": points.tolist()}))
    official.save_mat(tmp_path / "mats" / "0002.mat", False, annPoints=points)
    (tmp_path / "jsons" / "0002.json").unlink()
    made = reader("nwpu", tmp_path)
    for ref in made.list_images()[:2]:
        found = made.read_annotation(ref)
        assert found.boxes_xyxy is None and found.declared is None
        np.testing.assert_array_equal(found.points_xy, points)


def test_nwpu_unlabelled_images_are_listed_but_not_selected(tmp_path: Path) -> None:
    truth, unlabelled = official.nwpu(tmp_path, rng())
    made = reader("nwpu", tmp_path, skip_images=["test/3611", "train/0001"], limit=1)
    assert keys(made.list_images()) == ["train/0002", "val/3110"]
    assert keys(made.unlabelled()) == ["test/3610", "test/3612"]
    assert {ref.image for ref in made.unlabelled()} < set(unlabelled.values())
    assert all(ref.annotation == "" for ref in made.unlabelled())
    shutil.copy(tmp_path / "jsons" / "0001.json", tmp_path / "jsons" / "3611.json")  # somebody annotated one
    made = reader("nwpu", tmp_path)
    assert keys(made.list_images()) == ["test/3611", *truth]
    assert keys(made.unlabelled()) == ["test/3610", "test/3612"]


@pytest.mark.parametrize("layout", ["shanghaitech", "ucf_qnrf", "jhu", "fdst"])
def test_other_formats_have_no_unlabelled_images(tmp_path: Path, layout: str) -> None:
    kind, write = LAYOUTS[layout]
    write(tmp_path, rng(), 1)
    assert reader(kind, tmp_path).unlabelled() == []


def test_fdst_in_other_case(tmp_path: Path) -> None:
    truth = official.fdst(tmp_path, rng())
    (tmp_path / "test_data").rename(tmp_path / "Test_Data")
    (tmp_path / "Test_Data/2/001.jpg").rename(tmp_path / "Test_Data/2/001.JPG")
    (tmp_path / "Test_Data/2/001.json").rename(tmp_path / "Test_Data/2/001.JSON")
    (tmp_path / "train_data/1/density").mkdir()  # other people's output beside the frames
    (tmp_path / "train_data/1/density/001.h5").touch()
    assert keys(reader("fdst", tmp_path).list_images()) == list(truth)


@pytest.mark.parametrize(("box", "point"), [([0, 0, 1, 1], [0.0, 0.0]), ([2, 5, 4, 3], [3.5, 6.0])])
def test_corner_and_size_give_one_centre_in_every_format(tmp_path: Path, box: list[int], point: list[float]) -> None:
    """A box covers its pixels from the corner of the first one on, and pixel centres are whole numbers."""
    ((_, wanted), *_) = official.fdst(tmp_path / "fdst", rng()).items()
    (tmp_path / "fdst" / wanted.annotation).write_text(json.dumps(official.via("001.jpg", 1, [box], old=False)))
    made = reader("fdst", tmp_path / "fdst")
    (tmp_path / "coco/images").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "coco/images/a.png")
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "bbox": box}]}
    (tmp_path / "coco/annotations.json").write_text(json.dumps(content))
    for each in (made, reader("coco", tmp_path / "coco")):
        found = each.read_annotation(each.list_images()[0])
        assert found.points_xy.tolist() == [point] and found.boxes_xyxy is not None
        assert found.boxes_xyxy.tolist() == [[box[0], box[1], box[0] + box[2], box[1] + box[3]]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_extra_folder_on_top_is_named(tmp_path: Path, layout: str) -> None:
    kind, write = LAYOUTS[layout]
    write(tmp_path / "top" / "Data_v1", rng(), 1)
    with pytest.raises(DataError) as caught:
        reader(kind, tmp_path / "top").list_images()
    assert f"{tmp_path / 'top' / 'Data_v1'} has the layout: set datasets.mine.root to it" in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_are_refused(tmp_path: Path, layout: str) -> None:
    kind, write = LAYOUTS[layout]
    write(tmp_path, rng(), 1)
    for other in sorted({kind for kind, _ in LAYOUTS.values()} - {kind}):
        with pytest.raises(DataError, match="layout"):
            reader(other, tmp_path).list_images()


def test_listing_is_fast_and_opens_no_image(tmp_path: Path) -> None:
    for folder in ("images_part1", "images_part5", "jsons"):
        (tmp_path / folder).mkdir()
    for number in range(1, 5110):
        (tmp_path / f"images_part{1 if number < 2000 else 5}" / f"{number:04d}.jpg").touch()
        if number <= 3609:
            (tmp_path / "jsons" / f"{number:04d}.json").touch()
    for split, first, last in (("train", 1, 3109), ("val", 3110, 3609), ("test", 3610, 5109)):
        (tmp_path / f"{split}.txt").write_text("".join(f"{k:04d} 0 1\n" for k in range(first, last + 1)))
    made = reader("nwpu", tmp_path)
    start = time.perf_counter()
    assert len(made.list_images()) == 3609
    assert time.perf_counter() - start < 5
    assert len(made.unlabelled()) == 1500
    for layout in ("jhu", "fdst", "nwpu"):
        LAYOUTS[layout][1](tmp_path / layout, rng(), 1)
        code = (
            "import sys; from crowdmask import config; from crowdmask.datasets import reader_for;"
            f"e = config.{layout.title()}(format='{layout}', root={str(tmp_path / layout)!r});"
            "assert reader_for('u', e, 'r').list_images();"
            "print([m for m in ('torch', 'skimage', 'scipy', 'cv2', 'PIL', 'pyarrow') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
