"""Every fault of a data set of the first formats, with its outcome."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from crowdmask.datasets import stage
from crowdmask.errors import DataError
from layouts.reading import reader_of as reader
from layouts.tiny import LABELS, POINTS, image_info, make_labels, make_sha, make_ucf, save_image, save_mat


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
