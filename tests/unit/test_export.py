"""COCO export: read back by pycocotools, compared with full-frame masks."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import export_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from crowdmask import tables
from crowdmask.errors import DataError
from crowdmask.export import coco, source
from crowdmask.masks import rle

# pycocotools 2.0.11 and numpy 2 disagree about `copy`; its decoder's result is right.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

H, W = 40, 61


def image_row(image_id="a", split="train", points=((5.0, 6.0),), height=H, width=W):
    return {
        "split": split,
        "image_id": image_id,
        "path": f"{split}/{image_id}.jpg",
        "height": height,
        "width": width,
        "mode": "RGB",
        "sha256": "0" * 64,
        "points": [
            {"point_id": i, "x": x, "y": y, "outside": False, **tables.NO_BOX} for i, (x, y) in enumerate(points)
        ],
    }


def mask_row(window, point_id=0, image_id="a", split="train", **changes):
    row = {
        "split": split,
        "image_id": image_id,
        "point_id": point_id,
        "x": 5.25,
        "y": 6.0,
        "source": "sam",
        "verified": False,
        "author": None,
        "score": 0.5,
        "radius_px": 7.0,
        "lost_px": 0,
        "area": window.area,
        "sha256": rle.digest(window),
        **window.columns(),
    }
    return {**row, **changes}


def write_batch(folder: Path, name: str, images, masks):
    paths = folder / f"{name}-images.parquet", folder / f"{name}-masks.parquet"
    tables.write(paths[0], "images", images, version=3, settings='{"exif":"stored"}')
    tables.write(paths[1], "masks", masks, version=4, settings='{"r_min":5.0}')
    return paths


def random_window(rng, height=H, width=W):
    h, w = rng.integers(1, 12, 2)
    y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    mask = rng.random((h, w)) < 0.6
    mask[0, 0] = True
    return rle.Window(int(x), int(y), mask).tight()


def export(folder, batches, name="masks.json"):
    output = folder / name
    counts = coco.write_coco(output, batches, "toy", "head", '{"category":"head"}')
    return output, counts


def test_every_annotation_equals_its_mask(tmp_path):
    rng = np.random.default_rng(0)
    windows = {("train", "a"): [random_window(rng) for _ in range(30)], ("test", "a"): [random_window(rng)]}
    batches = [
        write_batch(
            tmp_path,
            split,
            [image_row(image, split), image_row("empty", split, ())],
            [mask_row(w, i, image, split) for i, w in enumerate(made)],
        )
        for (split, image), made in windows.items()
    ]
    output, counts = export(tmp_path, batches)
    assert counts == {"images": 4, "annotations": 31}
    opened = COCO(str(output))
    assert sorted(opened.imgs) == [1, 2, 3, 4]
    assert sorted(opened.anns) == list(range(1, 32))
    assert [opened.imgs[i]["file_name"] for i in (1, 3)] == ["train/a.jpg", "test/a.jpg"]
    assert opened.cats[1]["keypoints"] == ["head"]
    expected = [(1, w) for w in windows["train", "a"]] + [(3, w) for w in windows["test", "a"]]
    for number, (image_id, window) in enumerate(expected, 1):
        annotation = opened.anns[number]
        full = opened.annToMask(annotation)
        np.testing.assert_array_equal(full, window.full(H, W))
        assert annotation["image_id"] == image_id
        assert isinstance(annotation["segmentation"]["counts"], str)
        assert annotation["area"] == full.sum() == coco_mask.area(annotation["segmentation"])
        assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
        assert (annotation["iscrowd"], annotation["category_id"], annotation["num_keypoints"]) == (0, 1, 1)
        assert annotation["keypoints"] == [5.25, 6.0, 2] and annotation["point"] == [5.25, 6.0]
        assert (annotation["source"], annotation["verified"], annotation["score"]) == ("sam", False, 0.5)


def test_same_tables_same_bytes_one_annotation_a_line(tmp_path):
    rng = np.random.default_rng(1)
    batch = write_batch(tmp_path, "b", [image_row()], [mask_row(random_window(rng), i) for i in range(5)])
    first, _ = export(tmp_path, [batch], "one.json")
    second, _ = export(tmp_path, [batch], "two.json")
    assert first.read_bytes() == second.read_bytes()
    lines = first.read_text().splitlines()
    parsed = [json.loads(line.rstrip(",")) for line in lines if line.startswith('{"id"')]
    assert [entry["id"] for entry in parsed] == [1, 1, 2, 3, 4, 5]
    assert list(tmp_path.glob(".*")) == []


def test_columns_give_the_bytes_of_the_plain_path(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    authors, sources = ["ada", 'b"\\ü', None], ["sam", "circle", "manual"]
    images = [image_row("a"), image_row("ü", "test", height=90, width=133), image_row("none")]
    masks = [
        mask_row(
            random_window(rng),
            i,
            *[("a", "train"), ("ü", "test")][int(rng.integers(2))],
            x=float(rng.choice([-3.5, -0.0, 1e-7, 5, 1 / 3, 500])),
            y=float(rng.uniform(-5, 50)),
            score=None if rng.random() < 0.3 else float(np.float32(rng.random())),
            author=authors[rng.integers(3)],
            source=sources[rng.integers(3)],
            verified=bool(rng.integers(2)),
            radius_px=float(rng.choice([5.0, 1.00005, 2.00015, 1e-9, 1e17, rng.random()])),
        )
        for i in range(200)
    ]
    masks[7] |= {"area": 0, **rle.Window(2, 2, np.zeros((0, 0), bool)).columns()}
    masks[8] |= {"area": 0, **rle.Window(2, 2, np.zeros((3, 2), bool)).columns()}
    loose = rle.Window(2, 2, np.pad(np.ones((2, 1), bool), 3))  # not on its bounding box
    masks[9] |= {"area": 2, **loose.columns()}
    whole = rle.Window(0, 0, np.ones((H, W), bool))
    masks[10] |= {"image_id": "a", "split": "train", "area": H * W, **whole.columns()}
    batches = [write_batch(tmp_path, "b", images, masks), write_batch(tmp_path, "c", [image_row("c")], [])]
    plain = tmp_path / "plain.json"
    expected = export_rows.write(plain, batches, "toy", "head", '{"category":"head"}')
    for rows in (5000, 1, 37):
        monkeypatch.setattr(source, "ROWS", rows)
        output, counts = export(tmp_path, batches)
        assert counts == expected == {"images": 4, "annotations": 200}
        assert output.read_bytes() == plain.read_bytes()


def test_info_tells_versions_and_settings_and_no_time(tmp_path):
    one = write_batch(tmp_path, "one", [image_row("a")], [])
    two = write_batch(tmp_path, "two", [image_row("b")], [])
    output, counts = export(tmp_path, [one, two])
    written = json.loads(output.read_text())
    assert counts == {"images": 2, "annotations": 0} and written["annotations"] == [] and written["licenses"] == []
    info = written["info"]
    assert info["dataset"] == "toy" and info["export"] == {"version": coco.VERSION, "settings": {"category": "head"}}
    assert info["stages"] == {
        "images": [{"version": 3, "settings": {"exif": "stored"}}],
        "masks": [{"version": 4, "settings": {"r_min": 5.0}}],
    }
    assert not {"date_created", "year"} & info.keys()


def test_nothing_to_export(tmp_path):
    output, counts = export(tmp_path, [])
    assert counts == {"images": 0, "annotations": 0}
    assert COCO(str(output)).anns == {}


def test_point_outside_is_clipped_and_missing_score_left_out(tmp_path):
    window = rle.Window(W - 1, 0, np.ones((1, 1), bool))
    row = mask_row(window, x=W + 30.0, y=-2.5, score=None, source="circle")
    output, _ = export(tmp_path, [write_batch(tmp_path, "b", [image_row()], [row])])
    annotation = json.loads(output.read_text())["annotations"][0]
    assert annotation["keypoints"] == [W - 1, 0, 2]
    assert annotation["point"] == [W + 30.0, -2.5]
    assert "score" not in annotation


def test_text_that_json_must_escape(tmp_path):
    name = 'IMG_1 (2)+,=@"\\é'
    output, _ = export(tmp_path, [write_batch(tmp_path, "b", [image_row(name)], [])])
    assert json.loads(output.read_text("utf-8"))["images"][0]["image_id"] == name


ONE = rle.Window(3, 4, np.ones((2, 2), bool))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([mask_row(ONE), mask_row(ONE)], "row 1: point 0 of image train/a has two masks"),
        ([mask_row(ONE, image_id="b")], "row 0: point 0 of image train/b: the image is not in the images table"),
        ([mask_row(ONE, area=5)], "its mask has 4 pixels, its row says 5"),
        ([mask_row(ONE, counts=b"0")], "row 0: point 0 of image train/a: counts do not add up to the 4 pixels"),
        ([mask_row(ONE, x=float("nan"))], "column x holds a value that is not finite"),
        ([mask_row(ONE, score=float("inf"))], "column score holds a value that is not finite"),
        # Of several faults the first row's counts.
        ([mask_row(ONE), mask_row(ONE, 1, area=5), mask_row(ONE)], "row 1: point 1 of image train/a: its mask has 4"),
        ([mask_row(ONE), mask_row(ONE), mask_row(ONE, 2, area=5)], "row 1: point 0 of image train/a has two masks"),
        ([mask_row(rle.Window(W - 1, 0, np.ones((1, 2), bool)))], "leaves the image of 61 x 40 pixels"),
        ([mask_row(rle.Window(-1, 0, np.ones((1, 2), bool)))], "leaves the image"),
    ],
)
def test_bad_tables_are_refused_and_the_old_file_stays(tmp_path, masks, message):
    output = tmp_path / "masks.json"
    output.write_text("old")
    batch = write_batch(tmp_path, "b", [image_row()], masks)
    with pytest.raises(DataError, match=r"b-masks\.parquet") as caught:
        export(tmp_path, [batch])
    assert message in str(caught.value)
    assert output.read_text() == "old"


def test_image_in_two_batches_is_refused(tmp_path):
    batches = [write_batch(tmp_path, name, [image_row()], []) for name in "pq"]
    with pytest.raises(DataError, match="train/a is in the data set twice"):
        export(tmp_path, batches)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_annotation_equals_the_full_frame(tmp_path, seed, height, width, density):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, height + 1), rng.integers(1, width + 1)
    y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    window = rle.Window(int(x), int(y), rng.random((h, w)) < density)
    batch = write_batch(tmp_path, "b", [image_row(height=height, width=width)], [mask_row(window)])
    annotation = json.loads(export(tmp_path, [batch])[0].read_text())["annotations"][0]
    naive = coco_mask.encode(np.asfortranarray(window.full(height, width), dtype=np.uint8))
    assert annotation["segmentation"] == {"size": [height, width], "counts": naive["counts"].decode()}
    assert annotation["area"] == coco_mask.area(naive)
    assert annotation["bbox"] == coco_mask.toBbox(naive).tolist()
