"""Every format out and back in: the masks are the same, and what a format cannot carry is counted."""

import json
from operator import itemgetter

import numpy as np
import pyarrow.parquet as pq
import pytest
from exported import DRAWN, FOLDERS, OPTIONS, RING, back, batch, drawing, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from crowdmask import cli_export, tables
from crowdmask.config import load
from crowdmask.datasets import reader_for
from crowdmask.errors import DataError
from crowdmask.export import coco, files, iim, label_map, labels, parquet, source, xmask, yolo


@pytest.mark.parametrize("name", [*cli_export.FORMATS])
def test_drawn_masks_come_back(tmp_path, name):
    drawn = {"a": DRAWN, "b": {5: DRAWN[7]}, "none": {}}
    root = tmp_path / name
    write(name, root, [batch(tmp_path, drawn)])
    if name == "iim":  # tells nothing but 0 and 1: its own test is below
        return
    sizes = {"a": (12, 15), "b": (12, 15), "none": (6, 7)}
    found = {item.image_id: item for item in back(name, root, "train", sizes)}
    assert set(found) == ({"a", "b"} if name == "parquet" else set(drawn))
    for image_id, item in found.items():
        assert (item.height, item.width) == sizes[image_id]
        assert [w.mask.shape for w in item.windows] == [w.tight().mask.shape for w in item.windows]
        expected = list(drawn[image_id])
        assert item.ids.tolist() == (list(range(len(expected))) if name == "yolo" else expected)
        for point, window in zip(expected, item.windows, strict=True):
            np.testing.assert_array_equal(window.full(*sizes[image_id]), drawn[image_id][point])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(painted=hnp.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4)))
@pytest.mark.parametrize("name", ["coco", "parquet", "xmask", "label-map", "yolo"])
def test_any_masks_come_back(tmp_path, name, painted):
    drawn = {int(value) - 1: painted == value for value in np.unique(painted) if value}
    drawn = drawn or {0: np.zeros(painted.shape, bool)}
    root = tmp_path / name
    write(name, root, [batch(tmp_path, {"a": drawn})])
    found = back(name, root, "train", {"a": painted.shape})
    windows = [window for item in found for window in item.windows if window.area]
    expected = [mask for mask in drawn.values() if mask.any()]
    assert len(windows) == len(expected)
    for window, mask in zip(windows, expected, strict=True):
        np.testing.assert_array_equal(window.full(*painted.shape), mask)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_report_says_what_is_there_and_old_files_go(tmp_path, name):
    root = tmp_path / name
    write(name, root, [batch(tmp_path, {"old": DRAWN, "a": DRAWN})])
    other = write(name, root, [batch(tmp_path, {"old": {1: DRAWN[0]}}, "test", name="t")], "test")
    before = json.loads(other.read_text())
    report = write(name, root, [batch(tmp_path, {"a": {**DRAWN, 13: np.zeros((12, 15), bool)}})])
    made = json.loads(report.read_text())
    assert (made["format"], made["dataset"], made["split"], made["images"], made["masks"]) == (
        name,
        "toy",
        "train",
        1,
        7,
    )
    assert made["counts"]["without_pixels"] == 1
    assert json.loads(other.read_text()) == before
    listed = {root / file for entry in [*made["files"], *before["files"]] for file in entry["files"]}
    extra = {report, other, *root.glob("*/*_gt_loc.txt"), root / "train/train.txt", root / "test/test.txt"}
    assert listed == {path for path in root.rglob("*") if path.is_file()} - extra


@pytest.mark.parametrize("name", ["xmask", "label-map", "iim"])
def test_overlapping_masks_have_no_label_map(tmp_path, name):
    paths = batch(tmp_path, {"a": {3: RING, 8: drawing((slice(3, 5), slice(0, 4)))}})
    with pytest.raises(DataError, match="image train/a: the masks of points 3 and 8 share pixels") as caught:
        write(name, tmp_path / name, [paths])
    assert "exclusion.disjoint" in str(caught.value)
    assert not (tmp_path / name / "train.json").exists()


@pytest.mark.parametrize("name", ["coco", "parquet", "yolo"])
def test_overlapping_masks_come_back(tmp_path, name):
    drawn = {3: RING, 8: drawing((slice(3, 5), slice(0, 4)))}
    write(name, tmp_path / name, [batch(tmp_path, {"a": drawn})])
    item = back(name, tmp_path / name, "train", {"a": (12, 15)})[0]
    for window, mask in zip(item.windows, drawn.values(), strict=True):
        np.testing.assert_array_equal(window.full(12, 15), mask)


def test_an_image_id_leads_nowhere_else(tmp_path):
    with pytest.raises(DataError, match="no file name"):
        write("yolo", tmp_path / "yolo", [batch(tmp_path, {"../../a": DRAWN})])
    assert not (tmp_path / "a.txt").exists()


# Label maps.


def test_xmask_layout(tmp_path):
    write("xmask", tmp_path / "x", [batch(tmp_path, {"a": DRAWN, "none": {}})])
    values = np.load(tmp_path / "x/train_data/masks/a.npy")
    assert values.dtype == np.int32 and values.shape == (12, 15)
    assert np.unique(values).tolist() == [0, *(point + 1 for point in DRAWN)]
    points = np.load(tmp_path / "x/train_data/new-anno/GT_a.npy")
    np.testing.assert_array_equal(points, [[point + 0.25, 2.5] for point in DRAWN])
    np.testing.assert_array_equal(xmask.read_points(tmp_path / "x/train_data/new-anno/GT_a.npy"), points)
    assert np.load(tmp_path / "x/train_data/new-anno/GT_none.npy").shape == (0, 2)
    np.save(tmp_path / "odd.npy", np.array(["a"]))
    for path in ("odd.npy", "missing.npy"):
        with pytest.raises(DataError, match=path):
            xmask.read_points(tmp_path / path)


@pytest.mark.parametrize(("kind", "name"), [("ucf", "a_ann.npy"), ("jhu", "a.npy"), ("shanghaitech", "GT_a.npy")])
def test_xmask_points_are_named_as_its_loaders_expect(tmp_path, kind, name):
    from crowdmask import stages

    config = load({"datasets": {"it": {"format": kind, "root": "x"}}})
    options = json.loads(stages.settings(config, "it", "formats"))
    files.write("xmask", tmp_path / "x/train.json", [batch(tmp_path, {"a": DRAWN})], "it", "train", options)
    assert [path.name for path in (tmp_path / "x/train_data/new-anno").iterdir()] == [name]


def test_large_ids_go_into_npy(tmp_path):
    drawn = {"a": {65_534: RING}, "b": {65_535: RING}}
    write("label-map", tmp_path / "l", [batch(tmp_path, drawn)])
    assert sorted(path.name for path in (tmp_path / "l/train/labels").iterdir()) == ["a.png", "b.npy"]
    with Image.open(tmp_path / "l/train/labels/a.png") as picture:
        assert picture.mode.startswith("I;16")
    assert [item.ids.tolist() for item in label_map.read(tmp_path / "l", "train")] == [[65_534], [65_535]]


def test_label_maps_are_a_data_set_of_this_project(tmp_path):
    write("label-map", tmp_path / "l", [batch(tmp_path, {"a": DRAWN})])
    (tmp_path / "l/train/images").mkdir()
    Image.new("RGB", (15, 12)).save(tmp_path / "l/train/images/a.png")
    config = load({"datasets": {"it": {"format": "label_map", "root": str(tmp_path / "l")}}})
    reader = reader_for("it", config.datasets["it"], "results")
    (ref,) = reader.list_images()
    painted, ids = reader.read_truth(ref)
    assert ids.tolist() == [point + 1 for point in DRAWN]
    np.testing.assert_array_equal(painted == 4, RING)


# Parquet, and the source of all.


def test_parquet_is_the_tables_with_the_images_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP", 4)
    drawn = {f"i{k}": dict(list(DRAWN.items())[: k % 4]) for k in range(9)}
    order = list(reversed(range(sum(map(len, drawn.values())))))
    paths = [batch(tmp_path, drawn, order=order), batch(tmp_path, {"x": DRAWN}, "test", name="c")]
    path = write("parquet", tmp_path / "p", paths)
    found = tables.read(path, "export")
    expected = [row for _, masks in paths for row in tables.read(masks, "masks")]
    key = itemgetter("split", "image_id", "point_id")
    kept = [{name: row[name] for name in tables.MASKS.names} for row in found]
    assert sorted(kept, key=key) == sorted(expected, key=key)
    for row in found:
        assert (row["path"], row["height"], row["width"]) == (f"{row['split']}/{row['image_id']}.jpg", 12, 15)
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
    assert sizes[:-1] == [4] * (len(sizes) - 1) and sum(sizes) == len(expected)
    assert tables.metadata(path) == ("export", 1, OPTIONS)
    # Rows of an image lie together, whatever their order was.
    assert [item.image_id for item in parquet.read(path)] == [k for k, v in drawn.items() if v] + ["x"]
    rows = tables.read(path, "export")
    tables.write(tmp_path / "odd.parquet", "export", [rows[0], rows[-1], rows[0]], version=1, settings="{}")
    with pytest.raises(DataError, match="do not lie together"):
        list(parquet.read(tmp_path / "odd.parquet"))


def test_nothing_at_all(tmp_path):
    path = write("parquet", tmp_path / "p", [batch(tmp_path, {"none": {}})])
    assert list(parquet.read(path)) == [] and list(source.by_image([])) == []
    assert coco.write_coco(tmp_path / "c.json", [], "toy", "head", '{"category":"head"}')["images"] == 0


def test_images_gather_their_masks_whatever_the_order(tmp_path, monkeypatch):
    drawn = {"b": DRAWN, "a": {2: RING}, "none": {}}
    order = [6, 0, 3, 1, 5, 2, 4]
    for rows in (1, 2, 5000):
        monkeypatch.setattr(source, "ROWS", rows)
        found = list(source.by_image([batch(tmp_path, drawn, order=order)], ("x", "y")))
        assert [item.image.image_id for item in found] == ["b", "a", "none"]
        assert found[0].point_ids.tolist() == [list(DRAWN)[k] for k in order if k < 6]
        for point, (x, _), window in zip(found[0].point_ids, found[0].points_xy, found[0].windows(), strict=True):
            assert x == point + 0.25
            np.testing.assert_array_equal(window.full(12, 15), DRAWN[int(point)])
        assert found[2].points_xy.shape == (0, 2)


@pytest.mark.parametrize("module", [xmask, iim, label_map])
def test_a_missing_folder_is_named(tmp_path, module):
    with pytest.raises(DataError, match="no such folder"):
        list(module.read(tmp_path, "train"))
    with pytest.raises(DataError, match="no such folder"):
        list(yolo.read(tmp_path, "train", {}))


def test_every_format_has_columns_of_the_table():
    for module in files.FORMATS.values():
        assert set(module.COLUMNS) <= set(tables.MASKS.names)
    assert set(cli_export.FORMATS) == {*files.FORMATS, "coco", "parquet"}
    assert labels.MAX_PNG == np.iinfo(np.uint16).max
