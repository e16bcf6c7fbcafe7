"""What is wrong with data sets of official layouts, and what readers say of it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crowdmask import tables
from crowdmask.datasets import stage
from crowdmask.errors import DataError
from layouts import official
from layouts.official import LAYOUTS
from layouts.reading import ids as keys
from layouts.reading import reader_of as reader
from layouts.reading import rng


def write(path: str, content: str | bytes | list[Any] | dict[str, Any]) -> Callable[[Path], Any]:
    """Put a text, bytes or JSON into a file of the data set."""
    if isinstance(content, list | dict):
        content = json.dumps(content)
    data = content.encode() if isinstance(content, str) else content

    def change(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)

    return change


def append(path: str, text: str) -> Callable[[Path], Any]:
    return lambda root: (root / path).write_text((root / path).read_text() + text)


def move(old: str, new: str) -> Callable[[Path], Any]:
    return lambda root: (root / old).rename(root / new)


def copy(old: str, new: str) -> Callable[[Path], Any]:
    return lambda root: shutil.copy(root / old, root / new)


def mat(**variables: Any) -> Callable[[Path], Any]:
    def change(root: Path) -> None:
        (root / "jsons/0001.json").unlink()
        official.save_mat(root / "mats/0001.mat", True, **variables)

    return change


GT, JSON, CLIP = "train/gt/0003.txt", "jsons/0001.json", "train_data/1/001.json"
HEAD = "3 4 5 6 1 0\n"
BOX = {"x": 1, "y": 2, "width": 3, "height": 4}


def regions(*given: Any) -> dict[str, Any]:
    return {"a": {"regions": [{"shape_attributes": shape} for shape in given]}}


# name: (format, what is done to a good data set of two images a split, message, row)
FAULTS: dict[str, tuple[str, Callable[[Path], Any], str, int | None]] = {
    # JHU-CROWD++
    "jhu: no gt": (
        "jhu",
        move("val/gt", "val/labels"),
        r"val/gt: the folder is missing; beside it: image_labels",
        None,
    ),
    "jhu: two gt": ("jhu", lambda root: (root / "val/GT").mkdir(), "has both GT and gt. Keep one", None),
    "jhu: image without text": ("jhu", lambda root: (root / GT).unlink(), r"no annotation: train/gt/0003\.txt", None),
    "jhu: text without image": ("jhu", write("train/gt/9.txt", ""), r"9\.txt: no image: train/images/9 with", None),
    "jhu: few columns": ("jhu", write(GT, HEAD + "1 2\n"), r"0003\.txt, row 1: a row is x y w h .*found '1 2'", 1),
    "jhu: many columns": ("jhu", write(GT, "1 2 3 4 1 0 7\n"), "row 0: a row is x y w h occlusion blur", 0),
    "jhu: word": ("jhu", write(GT, HEAD + "\n" + HEAD + "1 2 x 4 1 0"), "row 2: a row is .*'1 2 x 4 1 0'", 2),
    "jhu: underscore": ("jhu", write(GT, "1_0 2 3 4 1 0"), "row 0: a row is", 0),
    "jhu: NaN": ("jhu", write(GT, "nan 2 3 4 1 0"), "row 0: the head 'nan 2 3 4 1 0' is not finite", 0),
    "jhu: huge": ("jhu", write(GT, "1 2 3 1e999 1 0"), "not finite", 0),
    "jhu: huge edge": ("jhu", write(GT, "-1.7e308 2 1.7e308 4 1 0"), "not finite", 0),
    "jhu: half a level": ("jhu", write(GT, "1 2 3 4 1.5 0"), "occlusion and blur are levels", 0),
    "jhu: huge level": ("jhu", write(GT, "1 2 3 4 1 1e30"), "occlusion and blur are levels", 0),
    "jhu: bytes": ("jhu", write(GT, b"\xff\xfe1 2"), r"0003\.txt: not a text file.*skip_images: \[train/0003\]", None),
    "jhu: hostile name": ("jhu", write("train/images/-rf.jpg", ""), "'-rf' cannot be an image id", None),
    "jhu: dots in a name": ("jhu", write("train/images/a..b.jpg", ""), "cannot be an image id", None),
    "jhu: labels": (
        "jhu",
        write("train/image_labels.txt", "0004,1,x,0,0\n0003,many,x,0,0\n"),
        r"train/image_labels\.txt, row 1: a row is id,count,scene,weather,distractor, found '0003,many,x,0,0'",
        1,
    ),
    "jhu: short labels": ("jhu", write("train/image_labels.txt", "0003,5\n"), "row 0: a row is id,count", 0),
    "jhu: no text in labels": ("jhu", write("train/image_labels.txt", b"\xff\n"), "not a text file. Repair", None),
    # NWPU-Crowd
    "nwpu: image without annotation": (
        "nwpu",
        lambda root: [(root / path).unlink() for path in (JSON, "mats/0001.mat")],
        r"0001\.jpg: no annotation: jsons/0001\.json is missing",
        None,
    ),
    "nwpu: annotation without image": ("nwpu", write("jsons/0003.json", "{}"), r"0003\.json: no list names it", None),
    "nwpu: mat without image": (
        "nwpu",
        lambda root: (append("train.txt", "0009\n")(root), shutil.copy(root / "mats/0001.mat", root / "mats/0009.mat")),
        r"mats/0009\.mat: no image: .*0009 with one of the suffixes",
        None,
    ),
    "nwpu: image in two parts": (
        "nwpu",
        copy("images_part3/0001.jpg", "images_part5/0001.jpg"),
        r"images_part5/0001\.jpg: the id '0001' belongs to images_part3/0001\.jpg already",
        None,
    ),
    "nwpu: list names a missing image": (
        "nwpu",
        append("test.txt", "\n4000 1 1\n"),
        r"test\.txt, row 3: names '4000', whose image is not there.*list test/4000 under .*skip_images",
        3,
    ),
    "nwpu: list names a path": ("nwpu", append("val.txt", "../../x.jpg\n"), r"row 2: names '\.\./\.\./x', whose", 2),
    "nwpu: id twice in a list": (
        "nwpu",
        append("train.txt", "0001 0 0\n"),
        r"train\.txt, row 2: '0001' stands in train\.txt already\. Keep one",
        2,
    ),
    "nwpu: id in two lists": ("nwpu", append("val.txt", "0002\n"), "row 2: '0002' stands in train.txt already", 2),
    "nwpu: list is no text": ("nwpu", write("train.txt", b"\xff\xfe"), "train.txt: the list cannot be read", None),
    "nwpu: two lists": ("nwpu", write("Train.txt", ""), r"train\.txt: the list Train\.txt is there too", None),
    "nwpu: image in no list": ("nwpu", write("train.txt", "0001\n"), r"0002\.jpg: no list names it.*Add its id", None),
    "nwpu: name that is no number": ("nwpu", write("images_part1/new.jpg", ""), r"new\.jpg: no list names it", None),
    "nwpu: hostile name": (
        "nwpu",
        lambda root: (append("train.txt", "-rf\n")(root), write("images_part1/-rf.jpg", "")(root)),
        "'-rf' cannot be an image id",
        None,
    ),
    "nwpu: no images": (
        "nwpu",
        lambda root: [shutil.rmtree(path) for path in root.glob("images_part*")],
        "images: the folder is missing; beside it: jsons/, mats/",
        None,
    ),
    "nwpu: empty": ("nwpu", write(JSON, ""), r"0001\.json: the file is empty .*skip_images: \[train/0001\]", None),
    "nwpu: no JSON": ("nwpu", write(JSON, "{'points': []}"), "not a readable JSON file", None),
    "nwpu: bytes": ("nwpu", write(JSON, b"\xff"), "not a readable JSON file", None),
    "nwpu: nested": ("nwpu", write(JSON, "[" * 100_000), "not a readable JSON file", None),
    "nwpu: huge digits": ("nwpu", write(JSON, '{"points": [[1, ' + "9" * 5000 + "]]}"), "not a readable JSON", None),
    "nwpu: other JSON": ("nwpu", write(JSON, [1]), "no `points`", None),
    "nwpu: points no list": ("nwpu", write(JSON, {"points": {"x": 1}}), "no list of a point for each head", None),
    "nwpu: three numbers": ("nwpu", write(JSON, {"points": [[1, 2], [1, 2, 3]]}), "row 1: a point has 2 numbers", 1),
    "nwpu: text": ("nwpu", write(JSON, {"points": [[1, "2"]]}), r"row 0: a point has 2 numbers, found \[1, '2'\]", 0),
    "nwpu: truth values": ("nwpu", write(JSON, {"points": [[True, 2]]}), "row 0: a point has 2 numbers", 0),
    "nwpu: NaN": ("nwpu", write(JSON, '{"points": [[1, NaN]]}'), r"row 0: the point \[1, nan\] is not finite", 0),
    "nwpu: huge": ("nwpu", write(JSON, {"points": [[1, 10**400]]}), r"row 0: the point .* is not finite", 0),
    "nwpu: bad box": ("nwpu", write(JSON, {"points": [[1, 2]], "boxes": [[1, 2, 3]]}), "row 0: a box has 4", 0),
    "nwpu: boxes amiss": (
        "nwpu",
        write(JSON, {"points": [[1, 2], [3, 4]], "boxes": [[1, 2, 3, 4]]}),
        r"0001\.json: 2 points, but 1 boxes",
        None,
    ),
    "nwpu: boxes without points": ("nwpu", write(JSON, {"points": [], "boxes": [[1, 2, 3, 4]]}), "0 points, but", None),
    "nwpu: no count": ("nwpu", write(JSON, {"points": [], "human_num": "3"}), "`human_num` is not a number", None),
    "nwpu: mat without points": ("nwpu", mat(points=1), r"0001\.mat: no variable 'annPoints'; .* found: points", None),
    "nwpu: mat of three columns": ("nwpu", mat(annPoints=np.ones((2, 3))), "2 x 3 numbers instead of N x 2", None),
    "nwpu: mat boxes": (
        "nwpu",
        mat(annPoints=np.ones((2, 2)), annBoxes=np.ones((2, 2))),
        r"the boxes are 2 x 2 numbers instead of N x 4 \(x0, y0, x1, y1\)",
        None,
    ),
    "nwpu: mat box NaN": (
        "nwpu",
        mat(annPoints=np.ones((2, 2)), annBoxes=np.array([[1, 2, 3, 4], [1, 2, np.nan, 4]])),
        r"row 1: the box \(1, 2, nan, 4\) is not finite",
        1,
    ),
    # FDST
    "fdst: deeper": (
        "fdst",
        lambda root: (shutil.move(root / "train_data/1", root / "x"), shutil.move(root / "x", root / "train_data/1/x")),
        "train_data: the layout is not that of FDST: the clip has the folder '1/x'. Expected: train_data and",
        None,
    ),
    "fdst: frames at both depths": (
        "fdst",
        write("train_data/1/more/001.jpg", ""),
        "the clip has the folder '1/more'",
        None,
    ),
    "fdst: no clips": ("fdst", write("test_data/001.jpg", ""), "frames do not lie in folders of clips", None),
    "fdst: frame without annotation": (
        "fdst",
        lambda root: (root / CLIP).unlink(),
        r"001\.jpg: no annotation: train_data/1/001\.json is missing.*list train/1-001 under",
        None,
    ),
    "fdst: annotation without frame": (
        "fdst",
        write("train_data/1/9.json", "{}"),
        "no image: train_data/1/9 with",
        None,
    ),
    "fdst: ids that meet": (
        "fdst",
        lambda root: [write(f"train_data/{name}.jpg", "")(root) for name in ("5/1-2", "5-1/2")],
        r"train_data/5/1-2\.jpg: the id '5-1-2' belongs to train_data/5-1/2\.jpg already",
        None,
    ),
    "fdst: hostile clip": ("fdst", write("train_data/-a/001.jpg", ""), "'-a-001' cannot be an image id", None),
    "fdst: control character": ("fdst", write("train_data/a\nb/1.jpg", ""), "cannot be an image id", None),
    "fdst: empty": ("fdst", write(CLIP, ""), r"001\.json: the file is empty .*skip_images: \[train/1-001\]", None),
    "fdst: huge edge": ("fdst", write(CLIP, regions({**BOX, "y": 1e308, "height": 1e308})), "is not finite", 0),
    "fdst: two keys": ("fdst", write(CLIP, {"a": {"regions": []}, "b": {"regions": []}}), "one frame", None),
    "fdst: no regions": ("fdst", write(CLIP, {"a": {"region": []}}), "not the annotation of one frame", None),
    "fdst: a list": ("fdst", write(CLIP, []), "not the annotation of one frame", None),
    "fdst: another shape": (
        "fdst",
        write(CLIP, regions(BOX, {"name": "point", "cx": 1})),
        "row 1: the region is no",
        1,
    ),
    "fdst: no region": ("fdst", write(CLIP, {"a": {"regions": [3]}}), "row 0: the region is no box", 0),
    "fdst: text": ("fdst", write(CLIP, regions({**BOX, "x": "1"})), "row 0: the region is no box", 0),
    "fdst: NaN": ("fdst", write(CLIP, regions(BOX, {**BOX, "width": float("nan")})), "row 1: the box .* finite", 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_has_a_message_with_the_way_out(tmp_path: Path, fault: str) -> None:
    layout, damage, words, row = FAULTS[fault]
    root = tmp_path / "root"
    LAYOUTS[layout][1](root, rng(), 2)
    made = reader(layout, root)
    assert list(stage.collect(made, made.list_images(), "stored"))
    damage(root)
    made = reader(layout, root)
    with pytest.raises(DataError, match=words) as caught:
        list(stage.collect(made, made.list_images(), "stored"))
    message = str(caught.value)
    assert caught.value.row == row
    assert message.startswith(str(root)) and message.endswith((".", "`.", ")"))
    assert "\n" not in message.replace("a\nb", "")
    message.encode()


def test_faulty_labels_of_one_image_stop_no_other(tmp_path: Path) -> None:
    official.jhu(tmp_path, rng())
    append("train/image_labels.txt", "0004\n,,,\n0004,what\n")(tmp_path)
    made = reader("jhu", tmp_path)
    assert [made.read_annotation(ref).declared is not None for ref in made.list_images()] == [True] * 9
    write("train/image_labels.txt", "0005,7,a hall, with, commas,3,1\n")(tmp_path)
    made = reader("jhu", tmp_path)
    found = [made.read_annotation(ref) for ref in made.list_images() if ref.split == "train"]
    assert [annotation.declared for annotation in found] == [None, 7, None]
    assert found[1].labels == {"scene": "a hall,with,commas", "weather": "3", "distractor": "1"}


def test_skip_images_heals_faults(tmp_path: Path) -> None:
    official.nwpu(tmp_path, rng())
    append("test.txt", "4000\n")(tmp_path)
    for folder, suffix in (("jsons", "json"), ("mats", "mat")):
        (tmp_path / folder / f"0001.{suffix}").unlink()
    made = reader("nwpu", tmp_path, skip_images=["test/4000", "train/0001"])
    assert keys(made.list_images()) == ["train/0002", "train/0003", "val/3110", "val/3111", "val/3112"]
    with pytest.raises(DataError, match="names test/4001, which is not there"):
        reader("nwpu", tmp_path, skip_images=["test/4000", "train/0001", "test/4001"]).list_images()


def test_only_test_images_leave_nothing_to_do(tmp_path: Path) -> None:
    official.nwpu(tmp_path, rng())
    for path in (*tmp_path.glob("*.txt"), *tmp_path.glob("*/0*"), *tmp_path.glob("*/31*")):
        path.unlink()
    made = reader("nwpu", tmp_path)
    with pytest.raises(DataError, match="no images found"):
        made.list_images()
    assert len(made.unlabelled()) == 3


def test_pairing_collects_the_faults_of_lists_and_images(tmp_path: Path) -> None:
    official.nwpu(tmp_path, rng())
    append("val.txt", "3400\n")(tmp_path)
    write("images_part1/new.jpg", "")(tmp_path)
    found = reader("nwpu", tmp_path).pairing()  # type: ignore[attr-defined]
    assert [(fault.kind, fault.split, fault.image_id) for fault in found.faults] == [
        ("layout", "", "new"),
        ("missing_image", "val", "3400"),
    ]
    assert len(found.refs) == 6 and len(found.unlabelled) == 3


def test_boxes_are_kept_as_they_are_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Degenerate, inverted and outlying ones too: a box decides nothing, and an audit should see it."""
    official.jhu(tmp_path, rng(), 1)
    write("train/images/0002.jpg", (tmp_path / "test/images/0001.jpg").read_bytes())(tmp_path)
    write("train/gt/0002.txt", "5 6 0 0 1 0\n7 8 -4 2 9 -1\n-3 900 10 20 2 1\n5 6 0 0 1 0")(tmp_path)
    made = reader("jhu", tmp_path, skip_images=["test/0001", "val/0003"])
    with caplog.at_level(logging.WARNING):
        (row,) = stage.collect(made, made.list_images(), "stored")
    assert "1 of 4 points outside" in caplog.text
    assert [[point[name] for name in tables.NO_BOX] for point in row["points"]] == [
        [5, 6, 5, 6],
        [9, 7, 5, 9],
        [-8, 890, 2, 910],
        [5, 6, 5, 6],
    ]
    assert [point["point_id"] for point in row["points"]] == [0, 1, 2, 3]


def test_fdst_regions_without_order_of_names(tmp_path: Path) -> None:
    official.fdst(tmp_path, rng(), 1)
    boxes = [[k, 2 * k, 3, 5] for k in range(12)]
    write(CLIP, official.via("001.jpg", 5, boxes, old=True))(tmp_path)
    made = reader("fdst", tmp_path)
    (ref,) = (ref for ref in made.list_images() if ref.image_id == "1-001")
    np.testing.assert_array_equal(made.read_points(ref), [[k + 1, 2 * k + 2] for k in range(12)])


def test_reader_that_gives_too_few_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official.jhu(tmp_path, rng())
    made = reader("jhu", tmp_path)
    read = made.read_annotation
    monkeypatch.setattr(made, "read_annotation", lambda ref: replace(read(ref), boxes_xyxy=np.zeros((3, 4))))
    ref = next(ref for ref in made.list_images() if len(made.read_points(ref)) > 3)
    with pytest.raises(DataError, match=rf"{ref.image_id}\.txt: \d+ points, but 3 boxes.*skip_images: \[{ref.split}/"):
        list(stage.collect(made, [ref], "stored"))
