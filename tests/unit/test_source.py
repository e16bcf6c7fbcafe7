"""Working copies, label maps and their cache."""

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from training_cases import Project, disc, edit_row, mask_row, texture

from crowdmask import tables
from crowdmask.config.crops import WorkingCopy
from crowdmask.datasets.images import read_image
from crowdmask.errors import DataError
from crowdmask.masks import rle
from crowdmask.training import cache as caches
from crowdmask.training import source as sources
from crowdmask.training.cache import Cache, is_mapped
from crowdmask.training.label_maps import Area, paint
from crowdmask.training.source import resize, working_size

POINTS = [[10, 12.25], [30.5, 20], [41, 8]]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.add("one", texture(40, 50), POINTS)
    made.add("two", texture(30, 70, 1), [[5, 5], [60, 25]])
    made.add("nobody", texture(20, 20, 2), [])
    return made


def test_samples_are_the_images(project):
    source = project.source()
    assert source.names == ["train/one", "train/two", "train/nobody"] and len(source) == 3
    one, _, nobody = source
    assert np.array_equal(one.pixels, texture(40, 50)) and one.pixels.dtype == np.uint8
    assert one.points_xy.tolist() == POINTS
    for k, (x, y) in enumerate(POINTS):
        assert np.array_equal(one.labels == k + 1, disc(x, y, 2.5, 40, 50).full(40, 50))
    assert nobody.points_xy.shape == (0, 2) and not nobody.labels.any()
    assert is_mapped(one.pixels) and is_mapped(one.labels)
    assert not one.pixels.flags.writeable and not one.labels.flags.writeable
    with pytest.raises(IndexError):
        source[3]


def test_points_need_no_labels(project):
    source = project.source("points", masks=(), edits=())
    assert source[0].labels is None and source[0].points_xy.tolist() == POINTS
    with pytest.raises(ValueError, match="needs `masks`"):
        project.source("masks", masks=())


def test_the_list_is_the_order(project):
    wanted = [("train", "two"), ("train", "one")]
    assert project.source(wanted=wanted).names == ["train/two", "train/one"]
    with pytest.raises(DataError, match="no image train/three"):
        project.source(wanted=[("train", "three")])
    with pytest.raises(ValueError, match="twice"):
        project.source(wanted=wanted * 2)


# Working copies


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 2500), st.integers(1, 600))
def test_working_sizes(height, width, longest, shortest):
    assert working_size(height, width, WorkingCopy(max_side=None)) == (height, width)
    h, w = working_size(height, width, WorkingCopy(max_side=longest, min_side=shortest))
    assert 1 <= max(h, w) <= longest
    assert min(h, w) >= min(shortest, height, width) or max(h, w) == longest
    if min(height, width) >= shortest and max(height, width) <= longest:
        assert (h, w) == (height, width)
    # The same factor on both sides, up to the rounding of each.
    if min(h, w) > 1:
        assert abs(h * width - w * height) <= 0.5 * (height + width) + 1e-6


@pytest.mark.parametrize("limit", [23, 50, 33])
def test_copies_are_scaled_by_the_real_factors(project, limit):
    size = WorkingCopy(max_side=limit, min_side=None)
    one = project.source(size=size)[0]
    h, w = one.pixels.shape[:2]
    assert (h, w) == (round(40 * limit / 50), limit)
    assert np.array_equal(one.pixels, resize(texture(40, 50), (h, w)))
    expected = (np.array(POINTS) + 0.5) * [w / 50, h / 40] - 0.5
    np.testing.assert_allclose(one.points_xy, expected, atol=1e-9)
    own = np.floor(expected + 0.5).astype(int)
    assert one.labels[own[:, 1], own[:, 0]].tolist() == [1, 2, 3]


def test_enlarged_copies(project):
    one = project.source(size=WorkingCopy(max_side=None, min_side=100))[0]
    assert one.pixels.shape == (100, 125, 3) and one.labels.shape == (100, 125)
    share = [(one.labels == k + 1).mean() / (disc(x, y, 2.5, 40, 50).area / 2000) for k, (x, y) in enumerate(POINTS)]
    assert np.abs(np.array(share) - 1).max() < 0.15


def test_heads_that_a_small_copy_would_lose_keep_a_pixel(tmp_path):
    project = Project(tmp_path)
    points = np.random.default_rng(1).uniform(0, 199, (150, 2)).tolist()
    project.add("dense", texture(200, 200), points, radius=0.8)
    one = project.source(size=WorkingCopy(max_side=40))[0]
    assert one.labels.shape == (40, 40)
    assert set(one.labels.ravel().tolist()) >= set(range(1, 151))


def test_overlapping_masks_go_to_the_nearest_point(tmp_path):
    project = Project(tmp_path)
    points = [[20, 20], [25, 22], [33, 21]]
    project.add("one", texture(40, 50), points, radius=7)
    labels = project.source()[0].labels
    ys, xs = np.mgrid[:40, :50]
    distance = np.stack([(xs - x) ** 2 + (ys - y) ** 2 for x, y in points])
    assert np.array_equal(labels, np.where(distance.min(0) <= 49, distance.argmin(0) + 1, 0))


@given(st.integers(0, 10**6))
def test_painting_against_the_plain_way(seed):
    rng = np.random.default_rng(seed)
    height, width, h, w = rng.integers(1, 25, 4)
    areas = []
    for _ in range(rng.integers(0, 6)):
        x0, y0, aw, ah = rng.integers(-5, 30), rng.integers(-5, 30), rng.integers(0, 12), rng.integers(0, 12)
        mask = rng.random((ah, aw)) < 0.7 if rng.random() < 0.7 else None
        areas.append(Area(int(x0), int(y0), int(aw), int(ah), mask, tuple(rng.integers(0, 20, 2).tolist())))
    found = paint(areas, (height, width), (h, w))
    for row in range(h):
        for column in range(w):
            y, x = int((2 * row + 1) * height // (2 * h)), int((2 * column + 1) * width // (2 * w))
            best, label = np.inf, 0
            for k, area in enumerate(areas):
                inside = 0 <= x - area.x0 < area.w and 0 <= y - area.y0 < area.h
                if inside and (area.mask is None or area.mask[y - area.y0, x - area.x0]):
                    distance = (x - area.centre_xy[0]) ** 2 + (y - area.centre_xy[1]) ** 2
                    if distance < best:
                        best, label = distance, k + 1
            assert found[row, column] == label


def test_a_head_annotated_outside_is_no_head_and_its_mask_is_nobodys(tmp_path):
    project = Project(tmp_path)
    row = project.add("one", texture(30, 30), [[10, 10], [-3, 20], [20, 20]])
    project.masks[1] = mask_row(row, 1, -3.0, 20.0, disc(0, 20, 3, 30, 30))
    one = project.source()[0]
    assert one.points_xy.tolist() == [[10, 10], [20, 20]]
    assert set(one.labels.ravel().tolist()) == {-1, 0, 1, 2}
    assert np.array_equal(one.labels == -1, disc(0, 20, 3, 30, 30).full(30, 30))
    assert one.labels[20, 20] == 2


# Corrections


def test_added_heads_count_and_deleted_ones_are_gone(project):
    row = project.images[0]
    project.masks = [mask for mask in project.masks if (mask["image_id"], mask["point_id"]) != ("one", 1)]
    window = disc(20, 30, 4, 40, 50)
    project.masks.insert(2, mask_row(row, 3, 20.0, 30.0, window, source="manual"))
    project.edits = [edit_row(row, "delete", 1), edit_row(row, "add", None)]
    for supervision in ("masks", "points"):
        one = project.source(supervision)[0]
        assert one.points_xy.tolist() == [POINTS[0], POINTS[2], [20, 30]]
    labels = project.source()[0].labels
    assert np.array_equal(labels == 3, window.full(40, 50)) and labels[20, 30] == 0


@pytest.mark.parametrize(
    "outcome, gone", [("applied", True), ("forced", True), ("stale", False), ("superseded", False)]
)
def test_only_deletions_in_force_explain_a_missing_mask(project, outcome, gone):
    project.masks = [mask for mask in project.masks if (mask["image_id"], mask["point_id"]) != ("one", 1)]
    project.edits = [edit_row(project.images[0], "delete", 1, outcome)]
    if gone:
        assert len(project.source()[0].points_xy) == 2
        with pytest.raises(DataError, match="no mask of point 1 of image train/one"):
            project.source(edits=())
    else:
        with pytest.raises(DataError, match="no mask of point 1 of image train/one"):
            project.source()


def test_an_image_may_lose_everybody(project):
    row = project.images[1]
    project.masks = [mask for mask in project.masks if mask["image_id"] != "two"]
    with pytest.raises(DataError, match="no mask of point 0 of image train/two, and no edit"):
        project.source()
    project.edits = [edit_row(row, "delete", 0), edit_row(row, "delete", 1)]
    two = project.source()[1]
    assert len(two.points_xy) == 0 and not two.labels.any()


# Boxes


def test_boxes_are_filled_and_shared_by_the_nearest_centre(tmp_path):
    project = Project(tmp_path)
    boxes = [[5, 5, 15, 15], [10, 8, 20, 18], [0, 0, 1, 1], [28, 28, 99, 99], [20, 3, 20, 3]]
    project.add("one", texture(30, 40), [[9, 9], [14, 12], [0, 0], [35, 29], [20, 3]], boxes=boxes)
    labels = project.source("boxes", masks=(), edits=())[0].labels
    expected = np.zeros((30, 40), int)
    ys, xs = np.mgrid[:30, :40] + 0.5
    best = np.full((30, 40), np.inf)
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        inside = (xs >= x0) & (xs < x1) & (ys >= y0) & (ys < y1)
        distance = (xs - (x0 + x1) / 2) ** 2 + (ys - (y0 + y1) / 2) ** 2
        mine = inside & (distance < best)
        expected[mine], best[mine] = k + 1, distance[mine]
    expected[3, 20] = 5  # without area: the head keeps its own pixel
    assert np.array_equal(labels, expected)
    assert (labels == 3).sum() == 1 and labels[0, 0] == 3


def test_a_data_set_without_boxes_is_named(project):
    with pytest.raises(DataError, match="data set crowd has no boxes"):
        project.source("boxes", masks=(), edits=())


@pytest.mark.parametrize("box", [None, [0, 0, np.nan, 4], [0, 0, np.inf, 4]])
def test_a_head_without_box_is_named(tmp_path, box):
    project = Project(tmp_path)
    project.add("one", texture(30, 40), [[9, 9], [14, 12]], boxes=[[5, 5, 15, 15], box])
    with pytest.raises(DataError, match="point 1 of image train/one has no box"):
        project.source("boxes", masks=(), edits=())[0]


def test_a_head_that_corrections_added_has_its_own_pixel_for_a_box(tmp_path):
    project = Project(tmp_path)
    row = project.add("one", texture(30, 40), [[9, 9]], boxes=[[5, 5, 15, 15]])
    project.masks.append(mask_row(row, 1, 30.0, 20.0, disc(30, 20, 4, 30, 40), source="manual"))
    labels = project.source("boxes")[0].labels
    assert np.argwhere(labels == 2).tolist() == [[20, 30]]


# Image files


def test_grey_and_deep_images_are_as_the_stages_see_them(tmp_path):
    project = Project(tmp_path)
    values = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    project.add("deep", values, [[5, 5]])
    project.add("grey", (values >> 8).astype(np.uint8), [[5, 5]])
    for one in project.source():
        assert np.array_equal(one.pixels, read_image(tmp_path / f"{one.name.split('/')[1]}.png"))
        assert one.pixels.shape == (20, 30, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1)])
def test_tiny_images(tmp_path, size):
    project = Project(tmp_path)
    project.add("tiny", texture(*size), [[0, 0]])
    one = project.source(size=WorkingCopy(max_side=5))[0]
    assert one.pixels.shape[:2] == working_size(*size, WorkingCopy(max_side=5))
    assert (one.labels == 1).any()


def test_a_file_that_changed_is_not_used(project):
    source = project.source()
    Image.fromarray(texture(40, 50, 9)).save(project.root / "one.png")
    with pytest.raises(DataError, match="not the one that was listed"):
        source[0]
    Image.fromarray(texture(41, 50, 9)).save(project.root / "one.png")
    with pytest.raises(DataError, match="size changed"):
        source[0]
    (project.root / "one.png").unlink()
    with pytest.raises(DataError, match="file not found"):
        source.prepare(progress=False)


# Cache


def test_copies_are_made_once(project, monkeypatch):
    project.source().prepare(threads=2, progress=False)
    before = {path: path.stat().st_mtime_ns for path in (project.root / "cache").rglob("*.npy")}
    assert len(before) == 6
    for row in project.images:
        (project.root / row["path"]).unlink()
    again = project.source()
    assert np.array_equal(again[0].pixels, texture(40, 50))
    again.prepare(progress=False)
    assert {path: path.stat().st_mtime_ns for path in (project.root / "cache").rglob("*.npy")} == before


def test_a_changed_mask_or_setting_makes_new_labels(project):
    first = project.source()[0].labels.copy()
    row = project.images[0]
    project.masks[0] = mask_row(row, 0, *POINTS[0], disc(*POINTS[0], 5, 40, 50))
    second = project.source()[0].labels
    assert (second == 1).sum() > (first == 1).sum()
    assert np.array_equal(second == 2, first == 2)
    count = len(list((project.root / "cache").rglob("*.npy")))
    small = project.source(size=WorkingCopy(max_side=20))[0]
    assert small.labels.shape == (16, 20)
    assert len(list((project.root / "cache").rglob("*.npy"))) == count + 2
    project.source(size=WorkingCopy(max_side=1000))[0]  # the same size: the same copy
    assert len(list((project.root / "cache").rglob("*.npy"))) == count + 2


def test_a_table_that_changes_while_it_is_used(project):
    source = project.source()
    project.masks[0] = mask_row(project.images[0], 0, *POINTS[0], disc(*POINTS[0], 5, 40, 50))
    project.source()
    with pytest.raises(DataError, match="has changed while it was used"):
        source[0]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "objects", "other shape", "other type", "fortran"])
def test_damaged_copies_are_made_anew(project, damage):
    source = project.source()
    expected = source[0].pixels.copy()
    path = source.cache.path(source._key(source.entries[0], "pixels"))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    else:
        other = {
            "objects": np.array([{"a": 1}], object),
            "other shape": expected[1:],
            "other type": expected.astype(np.int16),
            "fortran": np.asfortranarray(expected),
        }[damage]
        np.save(path, other, allow_pickle=True)
    again = project.source()[0]
    assert np.array_equal(again.pixels, expected) and is_mapped(again.pixels)


def _fill(project_root: str, started) -> None:
    """Writes copies for ever; slowly, so that a kill hits the middle of one."""

    def slow(file, array, **kwargs):
        data = np.ascontiguousarray(array).tobytes()
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        for k in range(0, len(data), 64):
            file.write(data[k : k + 64])
            file.flush()
            started.set()
            time.sleep(0.01)

    caches.np.lib.format.write_array = slow
    store = Cache(Path(project_root) / "cache", 1e9)
    store.get_or_make("ab" * 8, (100, 100), np.uint8, lambda: np.full((100, 100), 7, np.uint8))


def test_a_kill_in_the_middle_leaves_nothing_half(tmp_path):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    child = context.Process(target=_fill, args=(str(tmp_path), started))
    child.start()
    assert started.wait(60)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    store = Cache(tmp_path / "cache", 1e9)
    left = list((tmp_path / "cache").rglob("*"))
    assert any(path.suffix == ".npy" for path in left)  # the unfinished one, under another name
    assert store.get("ab" * 8, (100, 100), np.uint8) is None
    made = store.get_or_make("ab" * 8, (100, 100), np.uint8, lambda: np.full((100, 100), 7, np.uint8))
    assert is_mapped(made) and (made == 7).all()


def _several(root: str, results) -> None:
    store = Cache(Path(root), 1e9)
    total = 0
    for k in range(30):
        key = f"{k:08x}"
        found = store.get_or_make(key, (50, 50), np.int32, lambda k=k: np.full((50, 50), k, np.int32))
        total += int((found == k).all())
    results.put(total)


def test_several_processes_share_a_cache(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    children = [context.Process(target=_several, args=(str(tmp_path), results)) for _ in range(2)]
    for child in children:
        child.start()
    assert [results.get(timeout=120) for _ in children] == [30, 30]
    for child in children:
        child.join()
    assert len(list(tmp_path.rglob("*.npy"))) == 30


def test_a_cache_keeps_its_bound(tmp_path, monkeypatch):
    def make(key):
        return store.get_or_make(key, (1000,), np.uint8, lambda: np.zeros(1000, np.uint8))

    store = Cache(tmp_path, 3500)
    keys = [f"{k:08x}" for k in range(5)]
    kept = [is_mapped(make(key)) for key in keys]
    assert kept == [True, True, True, False, False]  # what others use is not thrown out for what comes later
    assert store.size() <= 3500
    old = time.time() - 2 * caches.UNUSED_S
    os.utime(store.path(keys[1]), (old, old))
    assert is_mapped(make(keys[4]))
    assert store.get(keys[1], (1000,), np.uint8) is None and store.get(keys[0], (1000,), np.uint8) is not None
    assert store.size() <= 3500
    # What is used is marked, so that it is not old.
    os.utime(store.path(keys[0]), (old, old))
    assert store.get(keys[0], (1000,), np.uint8) is not None
    assert store.path(keys[0]).stat().st_mtime > old + 1000
    assert not is_mapped(
        Cache(tmp_path / "none", 0).get_or_make("00" * 8, (3,), np.uint8, lambda: np.zeros(3, np.uint8))
    )
    assert not (tmp_path / "none").exists()


def test_keys_and_arrays_are_checked(tmp_path):
    store = Cache(tmp_path, 1e6)
    for key in ("../../etc", "xyz", "AB" * 8, ""):
        with pytest.raises(ValueError, match="cannot be a key"):
            store.path(key)
    with pytest.raises(ValueError, match="made float64"):
        store.get_or_make("00" * 8, (3,), np.uint8, lambda: np.zeros(3))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    store = Cache(tmp_path / "file", 1e6)
    with pytest.raises(DataError, match="cannot be written"):
        store.get_or_make("00" * 8, (3,), np.uint8, lambda: np.zeros(3, np.uint8))


def test_without_a_cache_everything_is_the_same(project):
    plain = project.source(size=WorkingCopy(max_side=None, cache_gb=0), cache=project.root / "no")
    for one, other in zip(plain, project.source(), strict=True):
        assert np.array_equal(one.pixels, other.pixels) and np.array_equal(one.labels, other.labels)
    assert not plain._open and not (project.root / "no").exists()


def test_open_files_are_bounded_and_do_not_travel(project, monkeypatch):
    monkeypatch.setattr(sources, "OPEN", 2)
    source = project.source()
    for _ in range(2):
        for one in source:
            assert one.name
    assert len(source._open) == 2
    again = pickle.loads(pickle.dumps(source))
    assert not again._open and np.array_equal(again[1].labels, source[1].labels)


def test_real_images(shared, tmp_path):
    """UCF_CC_50 6 has a head outside of the image; its points and files as the reader gives them."""
    from crowdmask.config import Ucf
    from crowdmask.datasets import reader_for
    from crowdmask.datasets.stage import collect
    from crowdmask.training.source import Source

    root = shared / "ucf_cc_50"
    reader = reader_for("cc", Ucf(format="ucf", root=str(root)), str(tmp_path))
    refs = [ref for ref in reader.list_images() if ref.image_id in ("6", "20")]
    rows = list(collect(reader, refs, "stored"))
    tables.write(tmp_path / "images.parquet", "images", rows, version=1, settings="{}")
    masks = []
    for row in rows:
        for point in row["points"]:
            x, y = (
                int(np.clip(np.floor(point[axis] + 0.5), 0, row[side] - 1))
                for axis, side in (("x", "width"), ("y", "height"))
            )
            window = rle.Window(x, y, np.ones((1, 1), bool))
            masks.append(mask_row(row, point["point_id"], point["x"], point["y"], window))
    tables.write(tmp_path / "masks.parquet", "masks", masks, version=1, settings="{}")
    source = Source(
        "cc",
        [(row["split"], row["image_id"]) for row in rows],
        root,
        "stored",
        "masks",
        images=[tmp_path / "images.parquet"],
        masks=[tmp_path / "masks.parquet"],
        size=WorkingCopy(max_side=600),
        cache=tmp_path / "cache",
    )
    for one, row in zip(source, rows, strict=True):
        assert len(one.points_xy) == len(row["points"]) - 1
        assert max(one.pixels.shape) == 600
        present = np.unique(one.labels[one.labels > 0])
        assert len(present) == len(one.points_xy)  # every head has a pixel, in a copy of fewer pixels
