"""Lists of data sets: layouts, pairing, links, selection, speed; and the real files."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from crowdmask.datasets import stage
from crowdmask.datasets.base import ImageRef
from crowdmask.errors import DataError
from crowdmask.masks.rle import Window
from layouts.reading import ids as keys
from layouts.reading import reader_of as reader
from layouts.tiny import LABELS, POINTS, make_labels, make_sha, make_ucf, save_image, save_mat


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


# ------------------------------------------------------------------ real files


def rows_of(kind: str, root: Path) -> list[dict[str, Any]]:
    made = reader(kind, root)
    return list(stage.collect(made, made.list_images(), "stored"))


def test_real_shanghaitech(shared: Path) -> None:
    root = shared / "shanghaitech_mini"
    part_a, part_b = rows_of("shanghaitech", root / "part_A"), rows_of("shanghaitech", root / "part_B")
    assert {(r["split"], r["image_id"]): (r["mode"], len(r["points"])) for r in part_a + part_b} == {
        ("train", "IMG_167"): ("RGB", 271),
        ("train", "IMG_4"): ("L", 413),
        ("test", "IMG_5"): ("RGB", 82),
        ("train", "IMG_9"): ("RGB", 167),
    }
    with pytest.raises(DataError, match="one entry for each"):
        reader("shanghaitech", root).list_images()


def test_real_ucf_cc_50(shared: Path) -> None:
    rows = rows_of("ucf", shared / "ucf_cc_50")
    assert len(rows) == 50 and {row["mode"] for row in rows} == {"L"}
    assert sum(len(row["points"]) for row in rows) == 63_974
    for row in rows:
        theirs = scipy.io.loadmat(shared / "ucf_cc_50" / f"{row['image_id']}_ann.mat")["annPoints"]
        np.testing.assert_array_equal([[p["x"], p["y"]] for p in row["points"]], theirs)
    outside = {row["image_id"]: sum(p["outside"] for p in row["points"]) for row in rows}
    # 6 and 20 have a point far outside. The others were clicked on the right edge: in MATLAB's coordinates, where the
    # first pixel is 1, they are on the last column; as they are written they lie beyond ours.
    assert {image_id: n for image_id, n in outside.items() if n} == {"1": 3, "3": 1, "6": 1, "17": 1, "20": 1, "25": 1}


def test_real_label_maps(shared: Path) -> None:
    made = reader("label_map", shared / "dsb2018")
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
