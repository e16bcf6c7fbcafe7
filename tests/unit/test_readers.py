"""Readers of data sets: layouts, pairing, selection, points, truth, and every fault with its outcome."""

from __future__ import annotations

import json
import logging
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from crowdmask import config, tables
from crowdmask.datasets import reader_for, rendered, stage
from crowdmask.datasets.base import ImageRef, Reader
from crowdmask.datasets.label_map import inner_points, instance_boxes
from crowdmask.datasets.ucf import mat_variable
from crowdmask.errors import DataError, SettingsError
from crowdmask.masks.rle import Window

SHARED = Path(os.environ.get("CROWDMASK_SHARED", Path(__file__).parents[3] / "shared" / "data"))
POINTS = np.array([[3.5, 4.25], [10.0, 2.0], [10.0, 2.0]])


def shared(name: str) -> Path:
    """A folder of the shared real data; skips the test where it is absent."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"real data not found: {SHARED / name} (set CROWDMASK_SHARED)")
    return SHARED / name


def reader(kind: str, root: Path | str, **settings: Any) -> Reader:
    loaded = config.load({"datasets": {"mine": {"format": kind, "root": str(root), **settings}}})
    return reader_for("mine", loaded.datasets["mine"], "results")


def save_image(path: Path, height: int = 12, width: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (10, 20, 30)).save(path)


def save_mat(path: Path, **variables: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables)


def image_info(points: np.ndarray) -> np.ndarray:
    """The nesting of ShanghaiTech's files: a cell with a structure with the fields location and number."""
    structure = np.zeros((1, 1), dtype=[("location", object), ("number", object)])
    structure[0, 0] = (points, np.array([[len(points)]]))
    cell = np.empty((1, 1), object)
    cell[0, 0] = structure
    return cell


def make_sha(root: Path, names: dict[str, list[str]] | None = None, spelling: str = "ground-truth") -> Path:
    for split, ids in (names or {"train": ["IMG_1", "IMG_10", "IMG_2"], "test": ["IMG_1"]}).items():
        for image_id in ids:
            save_image(root / f"{split}_data" / "images" / f"{image_id}.jpg")
            save_mat(root / f"{split}_data" / spelling / f"GT_{image_id}.mat", image_info=image_info(POINTS))
    return root


def make_ucf(root: Path, ids: tuple[str, ...] = ("1", "2"), points: Any = POINTS) -> Path:
    for image_id in ids:
        save_image(root / f"{image_id}.jpg")
        save_mat(root / f"{image_id}_ann.mat", annPoints=points)
    return root


LABELS = np.zeros((12, 16), np.uint16)
LABELS[1:6, 1:6] = 7
LABELS[8:11, 2:14] = 300
LABELS[0:2, 12:16] = 2


def make_labels(root: Path, ids: tuple[str, ...] = ("a", "b"), labels: np.ndarray = LABELS) -> Path:
    for image_id in ids:
        save_image(root / "images" / f"{image_id}.png")
        (root / "labels").mkdir(exist_ok=True)
        Image.fromarray(labels).save(root / "labels" / f"{image_id}.png")
    return root


def keys(refs: list[ImageRef]) -> list[str]:
    return [f"{ref.split}/{ref.image_id}" for ref in refs]


# ------------------------------------------------------------------ layouts


@pytest.mark.parametrize("spelling", ["ground-truth", "ground_truth"])
def test_shanghaitech(tmp_path: Path, spelling: str) -> None:
    made = reader("shanghaitech", make_sha(tmp_path, spelling=spelling))
    refs = made.list_images()
    assert keys(refs) == ["test/IMG_1", "train/IMG_1", "train/IMG_10", "train/IMG_2"]
    assert refs[0] == ImageRef("test", "IMG_1", "test_data/images/IMG_1.jpg", f"test_data/{spelling}/GT_IMG_1.mat")
    points = made.read_points(refs[0])
    assert points.dtype == np.float64
    np.testing.assert_array_equal(points, POINTS)
    assert not made.has_truth
    with pytest.raises(DataError, match="no true masks"):
        made.read_truth(refs[0])


def test_ucf_qnrf_and_cc_50(tmp_path: Path) -> None:
    for split in ("Train", "Test"):
        make_ucf(tmp_path / "qnrf" / split, ("img_0001", "img_0002"))
    made = reader("ucf", tmp_path / "qnrf")
    refs = made.list_images()
    assert keys(refs) == ["test/img_0001", "test/img_0002", "train/img_0001", "train/img_0002"]
    assert refs[2].image == "Train/img_0001.jpg" and refs[2].annotation == "Train/img_0001_ann.mat"
    np.testing.assert_array_equal(made.read_points(refs[0]), POINTS)
    flat = reader("ucf", make_ucf(tmp_path / "cc", ("1", "10", "2")))
    assert keys(flat.list_images()) == ["all/1", "all/10", "all/2"]
    assert flat.list_images()[0].image == "1.jpg"
    np.testing.assert_array_equal(flat.read_points(flat.list_images()[0]), POINTS)


def test_label_map_flat_and_in_splits(tmp_path: Path) -> None:
    flat = reader("label_map", make_labels(tmp_path / "flat"))
    assert keys(flat.list_images()) == ["all/a", "all/b"]
    make_labels(tmp_path / "split" / "val", ("a",))
    make_labels(tmp_path / "split" / "train")
    split = reader("label_map", tmp_path / "split")
    assert keys(split.list_images()) == ["train/a", "train/b", "val/a"]
    assert split.list_images()[0].annotation == "train/labels/a.png"
    labels, ids = split.read_truth(split.list_images()[0])
    assert labels.dtype == np.int32 and ids.dtype == np.int32
    np.testing.assert_array_equal(labels, LABELS)
    assert ids.tolist() == [2, 7, 300]


def test_label_map_with_other_folder_names(tmp_path: Path) -> None:
    make_labels(tmp_path)
    (tmp_path / "images").rename(tmp_path / "img")
    (tmp_path / "labels").rename(tmp_path / "gt")
    made = reader("label_map", tmp_path, images="img", labels="gt")
    assert [ref.image for ref in made.list_images()] == ["img/a.png", "img/b.png"]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.uint32])
def test_label_map_npy(tmp_path: Path, dtype: type) -> None:
    save_image(tmp_path / "images" / "a.JPG")
    (tmp_path / "labels").mkdir()
    np.save(tmp_path / "labels" / "a.npy", (LABELS == 7).astype(dtype))
    made = reader("label_map", tmp_path)
    labels, ids = made.read_truth(made.list_images()[0])
    np.testing.assert_array_equal(labels, LABELS == 7)
    assert ids.tolist() == [1]


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_label_map_png_modes(tmp_path: Path, mode: str) -> None:
    make_labels(tmp_path, ("a",))
    values = (LABELS == 7).astype(np.uint8)
    picture = Image.fromarray(values > 0 if mode == "1" else values)
    if mode == "P":
        picture = Image.fromarray(values)
        picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(tmp_path / "labels" / "a.png")
    made = reader("label_map", tmp_path)
    np.testing.assert_array_equal(made.read_truth(made.list_images()[0])[0], LABELS == 7)


def test_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    make_sha(tmp_path)
    images = tmp_path / "train_data" / "images"
    for name in (".DS_Store", "._IMG_1.jpg", "Thumbs.db", "readme.txt"):
        (images / name).write_bytes(b"x")
    (images / "old.jpg").mkdir()
    (tmp_path / "train_data" / "ground-truth" / "IMG_1.h5").write_bytes(b"x")
    assert len(reader("shanghaitech", tmp_path).list_images()) == 4


def test_linked_files_are_read_and_broken_links_noticed(tmp_path: Path) -> None:
    make_ucf(tmp_path / "store")
    (tmp_path / "root").mkdir()
    for file in (tmp_path / "store").iterdir():
        (tmp_path / "root" / file.name).symlink_to(file)
    made = reader("ucf", tmp_path / "root")
    assert len(list(stage.collect(made, made.list_images(), "stored"))) == 2
    (tmp_path / "store" / "2.jpg").unlink()
    assert len(made.list_images()) == 2
    with pytest.raises(DataError, match=r"2\.jpg: file not found"):
        list(stage.collect(made, made.list_images(), "stored"))


@pytest.mark.parametrize("kind", ["ucf", "shanghaitech"])
def test_link_in_a_circle_is_a_fault_of_its_image_alone(tmp_path: Path, kind: str) -> None:
    (make_ucf if kind == "ucf" else make_sha)(tmp_path)
    place = tmp_path if kind == "ucf" else tmp_path / "test_data/images"
    good = len(reader(kind, tmp_path).list_images())
    (place / "loop.jpg").symlink_to("loop.jpg")
    with pytest.raises(DataError, match=r"loop\.jpg: no annotation"):
        reader(kind, tmp_path).list_images()
    annotation = place / "loop_ann.mat" if kind == "ucf" else tmp_path / "test_data/ground-truth/GT_loop.mat"
    save_mat(annotation, annPoints=POINTS)
    refs = reader(kind, tmp_path).list_images()
    assert len(refs) == good + 1
    (loop,) = [ref for ref in refs if ref.image_id == "loop"]
    with pytest.raises(DataError, match=r"loop\.jpg: cannot be read \(.*links.*skip_images: \[.*/loop\]"):
        list(stage.collect(reader(kind, tmp_path), [loop], "stored"))


def test_selection(tmp_path: Path) -> None:
    make_sha(tmp_path, {"train": ["IMG_1", "IMG_2", "IMG_3", "IMG_4"], "test": ["IMG_1", "IMG_2"]})

    def listed(**settings: Any) -> list[str]:
        return keys(reader("shanghaitech", tmp_path, **settings).list_images())

    assert listed(limit=1) == ["test/IMG_1", "train/IMG_1"]
    assert listed(skip=1, limit=2) == ["test/IMG_2", "train/IMG_2", "train/IMG_3"]
    assert listed(skip=2) == ["train/IMG_3", "train/IMG_4"]
    assert listed(skip_images=["train/IMG_1", "test/IMG_2"], limit=1) == ["test/IMG_1", "train/IMG_2"]


def test_skip_images_heals_faulty_pairs(tmp_path: Path) -> None:
    make_ucf(tmp_path, ("1", "2", "3"))
    (tmp_path / "1_ann.mat").unlink()
    (tmp_path / "2.jpg").unlink()
    made = reader("ucf", tmp_path, skip_images=["all/1", "all/2"])
    assert keys(made.list_images()) == ["all/3"]


def test_listing_5000_images_is_fast_and_light(tmp_path: Path) -> None:
    for k in range(5000):
        (tmp_path / f"{k}.jpg").touch()
        (tmp_path / f"{k}_ann.mat").touch()
    start = time.perf_counter()
    assert len(reader("ucf", tmp_path).list_images()) == 5000
    assert time.perf_counter() - start < 5
    code = (
        "import sys; from crowdmask import config; from crowdmask.datasets import reader_for;"
        f"e = config.Ucf(format='ucf', root={str(tmp_path)!r}); assert reader_for('u', e, 'r').list_images();"
        "print([m for m in ('torch', 'skimage', 'scipy', 'cv2', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------ points and truth


@pytest.mark.parametrize("empty", [np.zeros((0, 0)), np.zeros((0, 2))])
def test_no_points(tmp_path: Path, empty: np.ndarray) -> None:
    made = reader("ucf", make_ucf(tmp_path, points=empty))
    points = made.read_points(made.list_images()[0])
    assert points.shape == (0, 2) and points.dtype == np.float64
    (row,) = stage.collect(made, made.list_images()[:1], "stored")
    assert row["points"] == []


def test_integer_points_become_floats(tmp_path: Path) -> None:
    made = reader("ucf", make_ucf(tmp_path, points=np.array([[3, 4]], np.uint8)))
    np.testing.assert_array_equal(made.read_points(made.list_images()[0]), [[3.0, 4.0]])


def test_20_000_points_keep_their_rows(tmp_path: Path) -> None:
    points = np.random.default_rng(0).uniform(0, 11, (20_000, 2))
    made = reader("ucf", make_ucf(tmp_path, ("1",), points))
    (row,) = stage.collect(made, made.list_images(), "stored")
    assert [point["point_id"] for point in row["points"]] == list(range(20_000))
    np.testing.assert_array_equal([[point["x"], point["y"]] for point in row["points"]], points)


def test_inner_points() -> None:
    points = inner_points(LABELS.astype(np.int32))
    # 2: two rows high, all inner distances 1, so its first pixel. 7: middle of the square. 300: first of the middle row
    # that is two pixels from every side.
    np.testing.assert_array_equal(points, [[12, 0], [3, 3], [3, 9]])


def test_inner_points_against_a_slow_reference() -> None:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 5, (6, 8))  # instances of several components that touch the border
    labels = np.kron(coarse, np.ones((5, 4), int)).astype(np.int32) * 1000
    expected = []
    for value in range(1000, 5000, 1000):
        padded = np.pad(labels == value, 1)
        other = np.argwhere(~padded)
        inside = np.argwhere(padded)
        squares = [((other - pixel) ** 2).sum(axis=1).min() for pixel in inside]
        y, x = inside[int(np.argmax(squares))] - 1
        expected.append((x, y))
    np.testing.assert_array_equal(inner_points(labels), expected)


def test_instances_with_huge_ids_and_gaps() -> None:
    labels = np.zeros((5, 6), np.int32)
    labels[1:3, 2:4] = 2**31 - 1
    labels[4, 0] = labels[4, 5] = 9
    assert instance_boxes(labels) == {
        9: (slice(4, 5), slice(0, 6)),
        2**31 - 1: (slice(1, 3), slice(2, 4)),
    }
    assert inner_points(labels).tolist() == [[0, 4], [2, 1]]
    assert inner_points(np.zeros((3, 3), np.int32)).shape == (0, 2)


def test_truth_rows(tmp_path: Path) -> None:
    made = reader("label_map", make_labels(tmp_path))
    refs = made.list_images()
    assert tables.write(tmp_path / "t.parquet", "truth", stage.truth_rows(made, refs), version=1, settings="{}") == 6
    rows = tables.read(tmp_path / "t.parquet", "truth")
    assert [(row["image_id"], row["point_id"], row["instance_id"]) for row in rows[:4]] == [
        ("a", 0, 2),
        ("a", 1, 7),
        ("a", 2, 300),
        ("b", 0, 2),
    ]
    points = made.read_points(refs[0])
    for row, (x, y) in zip(rows[:3], points.astype(int), strict=True):
        window = Window.from_columns(row)
        assert window.mask.any(axis=0).all() and window.mask.any(axis=1).all()
        np.testing.assert_array_equal(window.full(12, 16), row["instance_id"] == LABELS)
        assert window.full(12, 16)[y, x]


def test_collect_rows_fit_the_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    annotated = np.array([[-0.5, 0], [-0.6, 0], [15.49, 11.49], [15.5, 3], [16, 3], [-900, 3], [2, 2], [2, 2]])
    made = reader("ucf", make_ucf(tmp_path, ("1",), annotated))
    with caplog.at_level(logging.WARNING):
        tables.write(
            tmp_path / "i.parquet",
            "images",
            stage.collect(made, made.list_images(), "stored"),
            version=stage.VERSION,
            settings="{}",
        )
    (row,) = tables.read(tmp_path / "i.parquet", "images")
    assert (row["split"], row["image_id"], row["path"]) == ("all", "1", "1.jpg")
    assert (row["height"], row["width"], row["mode"], len(row["sha256"])) == (12, 16, "RGB", 64)
    np.testing.assert_array_equal([[p["x"], p["y"]] for p in row["points"]], annotated)
    assert [p["outside"] for p in row["points"]] == [False, True, False, True, True, True, False, False]
    assert "4 of 8 points outside" in caplog.text and "row 1" in caplog.text


def test_exif_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_ucf(tmp_path, ("1",), np.array([[14.0, 2.0]]))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 12)).save(tmp_path / "1.jpg", exif=exif)
    made = reader("ucf", tmp_path)
    (stored,) = stage.collect(made, made.list_images(), "stored")
    assert (stored["height"], stored["width"], stored["points"][0]["outside"]) == (12, 16, False)
    assert "EXIF orientation 6" in caplog.text
    caplog.clear()
    (applied,) = stage.collect(made, made.list_images(), "apply")
    assert (applied["height"], applied["width"], applied["points"][0]["outside"]) == (16, 12, True)
    assert "EXIF" not in caplog.text


def test_label_map_follows_the_exif_policy(tmp_path: Path) -> None:
    make_labels(tmp_path, ("a",))
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (12, 16)).save(tmp_path / "images" / "a.png", exif=exif)
    made = reader("label_map", tmp_path, exif="apply")
    assert made.read_truth(made.list_images()[0])[0].shape == (12, 16)
    made = reader("label_map", tmp_path, exif="stored")
    with pytest.raises(DataError, match="16 x 12 pixels"):
        made.read_truth(made.list_images()[0])


# ------------------------------------------------------------------ faults


def touch(path: Path, content: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def with_points(value: Any) -> Callable[[Path], Any]:
    return lambda root: save_mat(root / "1_ann.mat", annPoints=value)


def shrunk(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def with_labels(value: np.ndarray) -> Callable[[Path], Any]:
    return lambda root: ((root / "labels/a.png").unlink(), np.save(root / "labels/a.npy", value))


NAN = np.array([[1.0, 2.0], [3.0, np.nan], [np.inf, 1.0]])
NESTED = np.array([[[[1.0, 2.0]]]])

# name: (format, what is broken in a good data set, text of the message)
FAULTS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    # layouts
    "no folder of annotations": (
        "shanghaitech",
        lambda root: (root / "train_data/ground-truth").rename(root / "train_data/gt"),
        r"train_data/ground-truth: the folder is missing; beside it: gt/, images/",
    ),
    "two folders of annotations": (
        "shanghaitech",
        lambda root: (root / "train_data/ground_truth").mkdir(),
        "has both ground-truth and ground_truth",
    ),
    "other layout": (
        "ucf",
        lambda root: [file.unlink() for file in root.glob("*.mat")],
        "the layout is not that of UCF-QNRF or UCF_CC_50; found: 1.jpg, 2.jpg. Expected: folders Train and Test",
    ),
    "two layouts": ("ucf", lambda root: make_ucf(root / "Train"), "layout is not clear"),
    "splits beside images": ("label_map", lambda root: make_labels(root / "val"), "layout is not clear"),
    "no images": (
        "label_map",
        lambda root: [file.unlink() for file in root.glob("*/*.png")],
        "no images found in the data set 'mine'. Expected: images/NAME.png",
    ),
    # pairs and names
    "image without annotation": (
        "ucf",
        lambda root: (root / "1_ann.mat").unlink(),
        r"1\.jpg: no annotation: 1_ann\.mat is missing\. Add it, or leave the image out: list all/1",
    ),
    "annotation without image": ("ucf", lambda root: (root / "1.jpg").unlink(), r"1_ann\.mat: no image: 1 with"),
    "two images of one id": ("ucf", lambda root: save_image(root / "1.png"), r"1\.png: the id '1' belongs to 1\.jpg"),
    "two labels of one id": ("label_map", lambda root: touch(root / "labels/a.npy"), r"a\.png: the id 'a' belongs to"),
    "id with ..": ("ucf", lambda root: make_ucf(root, ("1..2",)), r"'1\.\.2' cannot be an image id"),
    "id with a leading dash": ("ucf", lambda root: make_ucf(root, ("-rf",)), "'-rf' cannot be an image id"),
    "id with a control character": ("ucf", lambda root: make_ucf(root, ("a\tb",)), "cannot be an image id"),
    "id that is not UTF-8": (
        "ucf",
        lambda root: touch(root / os.fsdecode(b"caf\xe9.jpg")),
        "cannot be an image id",
    ),
    "id with a backslash": ("ucf", lambda root: make_ucf(root, ("a\\b",)), "cannot be an image id"),
    # images
    "empty image": ("ucf", lambda root: touch(root / "1.jpg", b""), r"1\.jpg: the file is empty.*skip_images: \[all/1"),
    "truncated image": ("ucf", lambda root: shrunk(root / "1.jpg", 300), r"1\.jpg: .*skip_images: \[all/1\]"),
    "not an image": ("ucf", lambda root: touch(root / "1.jpg", b"<html>"), r"1\.jpg: not an image"),
    # MATLAB files
    "empty annotation": ("ucf", lambda root: touch(root / "1_ann.mat", b""), r"1_ann\.mat: the file is empty"),
    "text as annotation": (
        "ucf",
        lambda root: touch(root / "1_ann.mat", b"x y\n1 2\n" * 50),
        r"1_ann\.mat: .*skip_images: \[all/1\]",
    ),
    "truncated annotation": ("ucf", lambda root: shrunk(root / "1_ann.mat", 150), r"1_ann\.mat: not a readable MATLAB"),
    "MATLAB 7.3": (
        "ucf",
        lambda root: touch(
            root / "1_ann.mat", b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" * 50
        ),
        r"1_ann\.mat: a MATLAB file of version 7\.3.*'-v7'",
    ),
    "no variable": (
        "ucf",
        lambda root: save_mat(root / "1_ann.mat", points=POINTS, n=3),
        r"1_ann\.mat: no variable 'annPoints'; variables found: n, points",
    ),
    "no variable at all": ("ucf", lambda root: save_mat(root / "1_ann.mat"), "variables found: none"),
    "no location": (
        "shanghaitech",
        lambda root: save_mat(root / "test_data/ground-truth/GT_IMG_1.mat", image_info=3.0),
        r"GT_IMG_1\.mat: no points at image_info\{1,1\}\.location",
    ),
    "text in location": (
        "shanghaitech",
        lambda root: save_mat(root / "test_data/ground-truth/GT_IMG_1.mat", image_info=image_info("abc")),
        r"GT_IMG_1\.mat: the points are not real numbers",
    ),
    "NaN": ("ucf", with_points(NAN), r"1_ann\.mat, row 1: the point \(3, nan\) is not finite \(and so for 1 more\)"),
    "infinity": ("ucf", with_points(NAN[2:]), r"1_ann\.mat, row 0: the point \(inf, 1\) is not finite"),
    "three columns": ("ucf", with_points(np.ones((5, 3))), "the points are 5 x 3 numbers instead of N x 2"),
    "points on their side": ("ucf", with_points(np.ones((2, 5))), "2 x 5 numbers"),
    "no columns": ("ucf", with_points(np.ones((0, 3))), "0 x 3 numbers"),
    "more dimensions": ("ucf", with_points(NESTED), "1 x 1 x 1 x 2|1 x 1 x 2"),
    "complex points": ("ucf", with_points(np.ones((2, 2)) * 1j), "not real numbers but complex numbers"),
    "text as points": ("ucf", with_points("abc"), "not real numbers"),
    "sparse points": ("ucf", with_points(scipy.sparse.csc_array(np.eye(2))), "not real numbers but a sparse matrix"),
    # label maps
    "empty label map": ("label_map", lambda root: touch(root / "labels/a.png", b""), r"a\.png: the file is empty"),
    "truncated label map": ("label_map", lambda root: shrunk(root / "labels/a.png", 60), r"a\.png: not a readable"),
    "colour as label map": ("label_map", lambda root: save_image(root / "labels/a.png"), "colour mode RGB"),
    "other size": ("label_map", lambda root: save_image(root / "images/a.png", 12, 17), "is 16 x 12 .* a.png 17 x 12"),
    "float labels": ("label_map", with_labels(np.zeros((12, 16))), "12 x 16 float64 values"),
    "labels in 3 dimensions": ("label_map", with_labels(np.zeros((12, 16, 1), int)), "12 x 16 x 1 int64"),
    "negative ids": ("label_map", with_labels(LABELS.astype(int) - 1), "found -1 to 299"),
    "ids too large": ("label_map", with_labels(LABELS.astype(np.int64) << 30), "must be 0 to 2147483647"),
    "pickle": ("label_map", with_labels(np.array([{}], object)), r"a\.npy: not a readable label map"),
    "npy that is none": (
        "label_map",
        lambda root: ((root / "labels/a.png").unlink(), touch(root / "labels/a.npy")),
        r"a\.npy: not a readable label map",
    ),
}
MAKERS: dict[str, Callable[[Path], Path]] = {"shanghaitech": make_sha, "ucf": make_ucf, "label_map": make_labels}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_has_a_message_with_the_way_out(tmp_path: Path, fault: str) -> None:
    kind, damage, words = FAULTS[fault]
    root = MAKERS[kind](tmp_path / "root")
    made = reader(kind, root)
    assert list(stage.collect(made, made.list_images(), "stored"))
    damage(root)
    with pytest.raises(DataError, match=words) as caught:
        list(stage.collect(made, made.list_images(), "stored"))
    message = str(caught.value)
    assert message.startswith(str(root)) and message.endswith((".", "`.", ")"))
    assert "\n" not in message
    message.encode()


def test_other_images_are_not_affected(tmp_path: Path) -> None:
    made = reader("ucf", make_ucf(tmp_path))
    (tmp_path / "1_ann.mat").write_bytes(b"")
    refs = made.list_images()
    assert [row["image_id"] for row in stage.collect(made, refs[1:], "stored")] == ["2"]
    healed = reader("ucf", tmp_path, skip_images=["all/1"])
    assert [row["image_id"] for row in stage.collect(healed, healed.list_images(), "stored")] == ["2"]


def test_missing_root_says_what_and_where(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        reader("shanghaitech", tmp_path / "data/ShanghaiTech/part_A").list_images()
    message = str(caught.value)
    for words in ("data/ShanghaiTech/part_A", "'mine'", "one part (A or B) of ShanghaiTech", "GT_IMG_1.mat"):
        assert words in message
    assert "`datasets: {mine: {root: /path/to/them}}`" in message and "--configfile" in message


@pytest.mark.parametrize(
    ("kind", "given", "right"),
    [
        ("shanghaitech", "", "part_A"),
        ("shanghaitech", "part_A/train_data", "part_A"),
        ("shanghaitech", "part_A/train_data/images", "part_A"),
        ("label_map", "part_A", "part_A/nuclei"),
        ("label_map", "part_A/nuclei/images", "part_A/nuclei"),
    ],
)
def test_root_given_at_another_level(tmp_path: Path, kind: str, given: str, right: str) -> None:
    make_sha(tmp_path / "part_A")
    make_labels(tmp_path / "part_A/nuclei")
    with pytest.raises(DataError) as caught:
        reader(kind, tmp_path / given).list_images()
    assert f"{tmp_path / right} has the layout: set datasets.mine.root to it" in str(caught.value)


def test_root_above_both_parts_names_both(tmp_path: Path) -> None:
    for part in "AB":
        make_sha(tmp_path / f"part_{part}")
    with pytest.raises(DataError, match=r"part_A, .*part_B has the layout: .* one entry for each"):
        reader("shanghaitech", tmp_path).list_images()


def test_settings_that_leave_nothing_or_name_nothing(tmp_path: Path) -> None:
    make_ucf(tmp_path)
    with pytest.raises(DataError, match="skip and limit leave no image"):
        reader("ucf", tmp_path, skip=2).list_images()
    with pytest.raises(DataError, match=r"names 1, all/9, test/1, which is not there\. Write split/id .* all/1"):
        reader("ucf", tmp_path, skip_images=["all/9", "test/1", "1"]).list_images()
    with pytest.raises(DataError, match="images and labels in one folder"):
        reader("label_map", tmp_path, images="x", labels="x/").list_images()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["ucf", "shanghaitech"])
def test_flipped_bytes_of_a_matlab_file(tmp_path: Path, kind: str, compressed: bool) -> None:
    """Damaged files are read or refused, whatever bytes are changed; SciPy's reader ends the process on some."""
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"annPoints": POINTS, "image_info": image_info(POINTS)}, do_compression=compressed)
    content = path.read_bytes()
    name = "annPoints" if kind == "ucf" else "image_info"
    rng = np.random.default_rng(0)
    refused = 0
    for place in range(124, len(content)):
        for value in rng.integers(0, 256, 8):
            damaged = bytearray(content)
            damaged[place] = value
            path.write_bytes(bytes(damaged))
            try:
                mat_variable(path, name, "Way out.")
            except DataError:
                refused += 1
    assert refused > 500


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8"])
def test_matlab_reader_against_scipy(tmp_path: Path, dtype: str, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    numbers = np.arange(12).reshape(4, 3).astype(dtype)
    cell = np.empty((1, 2), object)
    cell[0, 0], cell[0, 1] = numbers, "text"
    values = {
        "n": numbers,
        "cube": np.arange(24).reshape(2, 3, 4).astype(dtype),
        "s": {"a": numbers, "bc": 2.0},
        "c": cell,
    }
    scipy.io.savemat(path, {**values, "none": np.zeros((0, 0)), "t": "text"}, do_compression=compressed)
    theirs = scipy.io.loadmat(path)
    for name in ("n", "cube", "none"):
        ours = mat_variable(path, name, "")
        np.testing.assert_array_equal(ours, theirs[name])
        assert ours.shape == theirs[name].shape and ours.dtype.kind == theirs[name].dtype.kind
    structure = mat_variable(path, "s", "")
    assert list(structure) == ["a", "bc"] and structure["bc"][0].tolist() == [[2.0]]
    np.testing.assert_array_equal(structure["a"][0], numbers)
    first, second = mat_variable(path, "c", "")
    np.testing.assert_array_equal(first, numbers)
    assert second == mat_variable(path, "t", "") == "text"


def test_big_endian_matlab_file(tmp_path: Path) -> None:
    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    body = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 1, 2)) + element(1, b"annPoints")
    content = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + element(14, body + element(9, struct.pack(">dd", 3.5, 4.0)))
    (tmp_path / "a.mat").write_bytes(content)
    assert mat_variable(tmp_path / "a.mat", "annPoints", "").tolist() == [[3.5, 4.0]]


# ------------------------------------------------------------------ rendered scenes


def synthetic(**settings: Any) -> config.Synthetic:
    return config.Synthetic(**{"format": "synthetic", "count": 3, "height": 96, "width": 128, **settings})


def test_rendered_list_follows_from_the_settings(tmp_path: Path) -> None:
    made = reader_for("demo", synthetic(), str(tmp_path / "results"))
    assert made.root == str(tmp_path / "results" / "demo" / "render")
    refs = made.list_images()
    assert keys(refs) == ["test/scene-0000", "test/scene-0001", "test/scene-0002"]
    assert refs[0].image == "test/scene-0000.png" and refs[0].annotation == "test/scene-0000.points.json"
    assert [rendered.scene_index(ref.image_id) for ref in refs] == [0, 1, 2]
    assert rendered.scene_index(rendered.scene_id(12_345)) == 12_345
    with pytest.raises(DataError, match="file not found"):
        made.read_points(refs[0])


def test_number_of_people_is_log_uniform() -> None:
    entry = synthetic(people=(20, 300))
    drawn = np.array([rendered.scene_people(entry, k) for k in range(2000)])
    assert drawn.min() >= 20 and drawn.max() <= 300
    assert 70 < np.median(drawn) < 86  # the geometric mean is 77
    assert rendered.scene_people(synthetic(people=(20, 300), seed=5), 2) == rendered.scene_people(entry, 7)
    few = [rendered.scene_people(synthetic(people=(0, 2)), k) for k in range(200)]
    assert set(few) == {0, 1, 2}
    assert {rendered.scene_people(synthetic(people=(9, 9)), k) for k in range(20)} == {9}


def render_all(tmp_path: Path, entry: config.Synthetic) -> Reader:
    made = reader_for("demo", entry, str(tmp_path))
    for index, ref in enumerate(made.list_images()):
        base = Path(made.root, ref.split, ref.image_id)
        rendered.render(entry, index, f"{base}.png", f"{base}.labels.png", f"{base}.points.json")
    return made


def test_rendered_scene_round_trip(tmp_path: Path) -> None:
    entry = synthetic(count=1, people=(4, 6))
    made = render_all(tmp_path, entry)
    refs = made.list_images()
    (row,) = stage.collect(made, refs, "stored")
    labels, ids = made.read_truth(refs[0])
    written = json.loads(Path(made.root, refs[0].annotation).read_text())
    assert written["seed"] == 0 and written["people"] == rendered.scene_people(entry, 0)
    assert len(row["points"]) == len(ids) == len(list(stage.truth_rows(made, refs)))
    assert labels.shape == (row["height"], row["width"]) == (96, 128)
    for point, value in zip(row["points"], ids, strict=True):
        assert labels[round(point["y"]), round(point["x"])] == value
    before = {path.name: path.read_bytes() for path in Path(made.root, "test").iterdir()}
    assert set(before) == {"scene-0000.png", "scene-0000.labels.png", "scene-0000.points.json"}
    render_all(tmp_path, entry)
    assert before == {path.name: path.read_bytes() for path in Path(made.root, "test").iterdir()}


def test_rendered_scene_without_people(tmp_path: Path) -> None:
    made = render_all(tmp_path, synthetic(count=1, people=(0, 0)))
    (row,) = stage.collect(made, made.list_images(), "stored")
    assert row["points"] == []
    assert list(stage.truth_rows(made, made.list_images())) == []


def test_frame_too_small_for_the_people(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"scene 0: .* Set fewer people"):
        render_all(tmp_path, synthetic(height=64, width=64, people=(1500, 1500)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a file of points"),
        (b"[1, 2]", "not a file of points"),
        (b'{"points": [[1, 2], [3]]}', "not a file of points"),
        (b'{"points": [[1, NaN]]}', "row 0: the point"),
        (b'{"points": [1, 2]}', "the points are 2 numbers"),
        (b'{"points": []}', "has the id"),
        (b"\xff\xfe", "not a file of points"),
    ],
)
def test_damaged_rendered_files(tmp_path: Path, content: bytes, words: str) -> None:
    made = render_all(tmp_path, synthetic(count=1, people=(3, 3)))
    ref = made.list_images()[0]
    Path(made.root, ref.annotation).write_bytes(content)
    with pytest.raises(DataError, match=words):
        made.read_truth(ref)


# ------------------------------------------------------------------ real files


def rows_of(kind: str, root: Path) -> list[dict[str, Any]]:
    made = reader(kind, root)
    return list(stage.collect(made, made.list_images(), "stored"))


def test_real_shanghaitech() -> None:
    root = shared("shanghaitech_mini")
    part_a, part_b = rows_of("shanghaitech", root / "part_A"), rows_of("shanghaitech", root / "part_B")
    assert {(r["split"], r["image_id"]): (r["mode"], len(r["points"])) for r in part_a + part_b} == {
        ("train", "IMG_167"): ("RGB", 271),
        ("train", "IMG_4"): ("L", 413),
        ("test", "IMG_5"): ("RGB", 82),
        ("train", "IMG_9"): ("RGB", 167),
    }
    with pytest.raises(DataError, match="one entry for each"):
        reader("shanghaitech", root).list_images()


def test_real_ucf_cc_50() -> None:
    rows = rows_of("ucf", shared("ucf_cc_50"))
    assert len(rows) == 50 and {row["mode"] for row in rows} == {"L"}
    assert sum(len(row["points"]) for row in rows) == 63_974
    for row in rows:
        theirs = scipy.io.loadmat(SHARED / "ucf_cc_50" / f"{row['image_id']}_ann.mat")["annPoints"]
        np.testing.assert_array_equal([[p["x"], p["y"]] for p in row["points"]], theirs)
    outside = {row["image_id"]: sum(p["outside"] for p in row["points"]) for row in rows}
    # 6 and 20 have a point far outside. The others were clicked on the right edge: in MATLAB's coordinates, where the
    # first pixel is 1, they are on the last column; as they are written they lie beyond ours.
    assert {image_id: n for image_id, n in outside.items() if n} == {"1": 3, "3": 1, "6": 1, "17": 1, "20": 1, "25": 1}


def test_real_label_maps() -> None:
    made = reader("label_map", shared("dsb2018"))
    refs = made.list_images()
    assert len(refs) == 192 and made.has_truth
    for ref in refs:
        labels, ids = made.read_truth(ref)
        x, y = made.read_points(ref).astype(int).T
        np.testing.assert_array_equal(labels[y, x], ids)
    rows = list(stage.truth_rows(made, refs[:5]))
    for row in rows:
        assert Window.from_columns(row).area > 0
    assert len(list(stage.collect(made, refs[:5], "stored"))) == 5
