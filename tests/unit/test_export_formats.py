"""Every format out and back in: the masks are the same, and what a format cannot carry is counted."""

import json
from operator import itemgetter

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage

from crowdmask import cli_export, tables
from crowdmask.config import load
from crowdmask.corrections.drawing import fill_polygons
from crowdmask.datasets import reader_for
from crowdmask.errors import DataError
from crowdmask.export import coco, cracks, files, iim, label_map, labels, parquet, source, xmask, yolo
from crowdmask.export.coco_reader import CocoFile
from crowdmask.masks import rle
from crowdmask.masks.rle import Window

OPTIONS = {"version": 1, "points": "GT_{}.npy"}
FOLDERS = ["xmask", "label-map", "yolo", "iim"]


def batch(folder, drawn, split="train", boxes=None, name="b", order=None):
    """Tables of images given as {image_id: {point_id: bool (H, W)}}."""
    images, masks = [], []
    for image_id, found in drawn.items():
        height, width = next(iter(found.values())).shape if found else (6, 7)
        points = [
            {"point_id": point, "x": 0.5, "y": 1.0, "outside": False}
            | dict(zip(("x0", "y0", "x1", "y1"), (boxes or {}).get(point, (None,) * 4), strict=True))
            for point in found
        ]
        images.append(
            {"split": split, "image_id": image_id, "path": f"{split}/{image_id}.jpg", "height": height, "width": width}
            | {"mode": "RGB", "sha256": "0" * 64, "points": points}
        )
        for point, mask in found.items():
            window = Window(0, 0, np.asarray(mask)).tight()
            row = {
                "split": split,
                "image_id": image_id,
                "point_id": point,
                "x": point + 0.25,
                "y": 2.5,
                "source": "sam",
            }
            row |= {"verified": False, "author": None, "score": None, "radius_px": 5.0, "lost_px": 0}
            masks.append({**row, "area": window.area, "sha256": rle.digest(window), **window.columns()})
    if order is not None:
        masks = [masks[k] for k in order]
    paths = folder / f"{name}-images.parquet", folder / f"{name}-masks.parquet"
    tables.write(paths[0], "images", images, version=3, settings="{}")
    tables.write(paths[1], "masks", masks, version=4, settings="{}")
    return paths


def drawing(*pixels, height=12, width=15):
    mask = np.zeros((height, width), bool)
    for rows, columns in pixels:
        mask[rows, columns] = True
    return mask


RING = drawing((slice(2, 7), slice(2, 7)))
RING[4, 4] = False
DRAWN = {
    0: drawing((0, 0)),  # one pixel, in the corner
    3: RING,
    4: drawing((4, 4)),  # in the hole of the ring, touching it
    7: drawing((slice(8, 10), slice(1, 4)), (slice(9, 12), slice(8, 10))),  # two fragments, one at the lower border
    9: drawing((slice(0, 12), 14)),  # along the right border
    12: drawing((9, 5), (10, 6), (11, 5)),  # pixels that meet at corners
}


def back(name, root, split, sizes=None):
    if name == "coco":
        return list(CocoFile(root / f"{split}.json").instances())
    if name == "parquet":
        return list(parquet.read(root / "masks.parquet"))
    module = files.FORMATS[name]
    return list(module.read(root, split, sizes) if name == "yolo" else module.read(root, split))


def write(name, root, batches, split="train"):
    output = root / ("masks.parquet" if name == "parquet" else f"{split}.json")
    options = {"version": 2, "category": "head"} if name == "coco" else OPTIONS
    cli_export.write(name, output, batches, "toy", split, options)
    return output


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


# Polygons along the sides of pixels.


def shoelace(corners):
    x, y = np.array(corners, float).T
    return (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2


@settings(max_examples=300)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_a_polygon_holds_exactly_the_pixels(mask):
    if not mask.any():
        return
    corners = cracks.polygon(mask)
    assert shoelace(corners) == mask.sum()  # also the winding is right: holes turn the other way
    for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
        assert (a[0] == b[0]) != (a[1] == b[1])  # along pixel sides, and no corner twice in a row
    again = fill_polygons([[v - 0.5 for corner in corners for v in corner]], *mask.shape)
    np.testing.assert_array_equal(again.full(*mask.shape), mask)
    # Another library, at pixel centres.
    winding = [
        cv2.pointPolygonTest(np.array(corners, np.float32), (x + 0.5, y + 0.5), False) for y, x in np.argwhere(mask)
    ]
    assert all(side > 0 for side in winding)
    _, fragments = ndimage.label(mask, np.ones((3, 3)))
    holes = ndimage.label(~np.pad(mask, 1))[1] - 1
    assert len(cracks.rings(mask)) == fragments + holes


def test_polygons_of_known_masks():
    assert cracks.polygon(np.ones((1, 1), bool)) == [(1, 0), (1, 1), (0, 1), (0, 0)]
    assert cracks.polygon(np.ones((2, 3), bool)) == [(3, 0), (3, 2), (0, 2), (0, 0)]
    outer, inner = cracks.rings(RING[2:7, 2:7])
    assert (shoelace(outer), shoelace(inner)) == (25, -1)


def test_many_fragments():
    mask = np.zeros((60, 61), bool)
    mask[::2, ::2] = True
    corners = cracks.polygon(mask)
    again = fill_polygons([[v - 0.5 for corner in corners for v in corner]], 60, 61)
    np.testing.assert_array_equal(again.full(60, 61), mask)


def test_yolo_lines(tmp_path):
    write("yolo", tmp_path / "yolo", [batch(tmp_path, {"a": DRAWN})])
    lines = (tmp_path / "yolo/labels/train/a.txt").read_text().splitlines()
    assert len(lines) == 6 and lines[0] == "0 0.066667 0.000000 0.066667 0.083333 0.000000 0.083333 0.000000 0.000000"
    assert json.loads((tmp_path / "yolo/train.json").read_text())["counts"] == {"without_pixels": 0, "bridged": 2}


def test_yolo_coordinates_are_fine_enough_for_the_largest_images():
    rng = np.random.default_rng(0)
    for x0, y0 in [(0, 0), (65_000, 30_000), (12_345, 6_789)]:
        window = Window(x0, y0, rng.random((9, 11)) < 0.6)
        text, _ = yolo.line(window.tight(), 30_030, 65_535)
        corners = np.array([float(field) for field in text.split()[1:]]).reshape(-1, 2) * (65_535, 30_030) - 0.5
        np.testing.assert_array_equal(fill_polygons([corners.ravel()], 30_030, 65_535).cut(x0, y0, 11, 9), window.mask)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.1 0.1", "a box, no polygon"),
        ("0 0.1 0.1 0.2 0.2", "a box"),
        ("0 0.1 0.1 0.2", "4 numbers"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "8 numbers"),
        ("0 0.1 0.1 0.2 0.2 0.3 nan", "from 0 to 1"),
        ("0 0.1 0.1 0.2 0.2 0.3 1.5", "from 0 to 1"),
        ("x 0.1 0.1 0.2 0.2 0.3 0.3", "invalid literal"),
        ("0 0.1 0.1 0.2 0.2 0.3 1e999", "from 0 to 1"),
        ("0 a b c d e f", "could not convert"),
    ],
)
def test_yolo_faults_name_the_row(tmp_path, text, message):
    path = tmp_path / "x.txt"
    path.write_text("0 0.1 0.1 0.2 0.1 0.2 0.3\n\n" + text + "\n")
    with pytest.raises(DataError, match=message) as caught:
        yolo.read_file(path, 10, 10)
    assert caught.value.row == 2


def test_yolo_reads_other_programs_polygons(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("3 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\r\n7 0 0 1 0 1 1 0 1")
    classes, windows = yolo.read_file(path, 10, 10)
    assert classes.tolist() == [3, 7]
    assert [(w.x0, w.y0, *w.mask.shape, w.area) for w in windows] == [(1, 1, 4, 4, 16), (0, 0, 10, 10, 100)]


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


# IIM.


@settings(max_examples=100)
@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 5)))
def test_heads_are_set_apart(painted):
    heads = iim.apart(painted)
    assert not heads[painted == 0].any()
    assert set(np.unique(painted[heads])) == set(np.unique(painted)) - {0}  # nobody is lost
    areas = np.bincount(painted.ravel())
    values = np.where(heads, painted, 0)
    lost = {int(value) for value in np.unique(painted) if value and (values == value).sum() < areas[value]}
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        a, b = values[first], values[second]
        # Two that still touch: one of them is whole, because it would have been lost.
        for left, right in zip(a[(a != b) & (a > 0) & (b > 0)], b[(a != b) & (a > 0) & (b > 0)], strict=True):
            assert not {int(left), int(right)} <= lost
    several, touching = iim.confused(painted, heads)
    components, count = ndimage.label(heads)
    naive = [len(np.unique(components[values == value])) for value in np.unique(values) if value]
    assert several == sum(number > 1 for number in naive)
    shared = {
        int(v) for k in range(1, count + 1) for v in [np.unique(values[components == k])] if v.size > 1 for v in v
    }
    assert touching == len(shared)


def test_iim_picture_and_its_heads(tmp_path):
    separate = {0: DRAWN[0], 3: RING, 9: DRAWN[9]}
    report = write("iim", tmp_path / "i", [batch(tmp_path, {"a": separate, "b": DRAWN, "none": {}})])
    first, second, third = iim.read(tmp_path / "i", "train")
    assert (first.image_id, first.ids.tolist(), third.ids.tolist()) == ("a", [0, 1, 2], [])
    found = {(w.x0, w.y0): w for w in first.windows}
    for mask in separate.values():
        window = Window(0, 0, mask).tight()
        np.testing.assert_array_equal(found[window.x0, window.y0].mask, window.mask)
    with Image.open(tmp_path / "i/train/masks/b.png") as picture:
        assert picture.mode == "L" and set(np.unique(np.array(picture))) == {0, 1}
    # The ring gives up its four pixels around the one in its hole; 7 is two pieces, 12 three.
    counts = json.loads(report.read_text())["counts"]
    assert (counts["pixels_given_up"], counts["in_several_components"], counts["still_touching"]) == (4, 2, 0)
    assert len(second.windows) == 9
    assert (tmp_path / "i/train/train.txt").read_text() == "a\nb\nnone\n"


def test_iim_lines(tmp_path):
    boxes = {3: (1.0, 2.0, 11.0, 26.0)}
    drawn = {"0021": {0: DRAWN[0], 3: RING, 9: DRAWN[9]}, "3": {}}
    report = write("iim", tmp_path / "i", [batch(tmp_path, drawn, boxes=boxes)])
    text = (tmp_path / "i/train/train_gt_loc.txt").read_text()
    # Golden: 1 x 1; the annotated 10 x 24; 1 x 12. Points x = id + 0.25, y = 2.5.
    assert text == "21 3 0 3 0 0 0 3 3 5 13 2 9 3 0 6 1\n3 0\n"
    found = iim.read_locations(tmp_path / "i/train/train_gt_loc.txt")
    assert found[21].tolist() == [[0, 3, 0, 0, 0], [3, 3, 5, 13, 2], [9, 3, 0, 6, 1]] and found[3].shape == (0, 5)
    assert [entry["number"] for entry in json.loads(report.read_text())["files"]] == [21, 3]


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["0007", "12"], [7, 12]), (["IMG_4", "IMG_2"], [1, 2]), (["1", "01"], [1, 2]), (["²"], [1]), ([], [])],
)
def test_iim_numbers_of_images(names, expected):
    assert iim.numbers(names) == expected


def test_iim_levels_are_closed_above():
    sides = [(1, 10), (1, 11), (10, 10), (101, 1), (10, 100), (100, 100), (1000, 100), (1000, 101)]
    assert [sum(w * h > bound for bound in iim.LEVELS) for w, h in sides] == [0, 1, 1, 2, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "line", ["1", "1 1 2 3", "1 -1", "a 0", "1 1 2 3 4 5 6 7", "1 0\n1 0", "9999999999999999999 0"]
)
def test_iim_line_faults(tmp_path, line):
    path = tmp_path / "gt.txt"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=r"gt\.txt"):
        iim.read_locations(path)


def test_iim_pictures_of_other_values_are_refused(tmp_path):
    (tmp_path / "train/masks").mkdir(parents=True)
    Image.fromarray(np.full((3, 3), 255, np.uint8)).save(tmp_path / "train/masks/a.png")
    with pytest.raises(DataError, match="holds the value 255"):
        list(iim.read(tmp_path, "train"))


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
