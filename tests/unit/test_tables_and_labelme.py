"""Tables of points and labelme: choices, and every fault with its message."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crowdmask.datasets import stage
from crowdmask.datasets.labelme import area_centre
from crowdmask.datasets.points import _number
from crowdmask.errors import DataError
from layouts import generic
from layouts.reading import check_fault, everything, keys, points_of, reader, write

# ------------------------------------------------------------------ tables of points


def table(text: str | bytes) -> Callable[[Path], None]:
    return lambda root: (root / "points.csv").write_bytes(text.encode() if isinstance(text, str) else text) and None


POINTS_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty file": (table(""), r"points\.csv: the file is empty"),
    "UTF-16": (table("image,x,y\na.jpg,1,2\n".encode("utf-16")), "not UTF-8 text. Save the table as CSV in UTF-8"),
    "Latin-1": (table("image,x,y\nb\xfc.jpg,1,2\n".encode("latin-1")), "row 0: not UTF-8 text"),
    "no column": (table("image,x\na.jpg,1\n"), "no column 'y'; columns found: 'image', 'x'"),
    "no header": (table("a.jpg,1,2\n"), r"no column 'image'; columns found: 'a\.jpg', '1', '2'"),
    "column twice": (table("image,x,y,x\na.jpg,1,2,3\n"), "the column 'x' twice"),
    "short row": (table("image,x,y\na.jpg,1,2\nb.jpg,3\n"), "row 1: 2 columns where the header has 3"),
    "long row": (table("image,x,y\na.jpg,1,2,3\n"), "row 0: 4 columns where the header has 3"),
    "no number": (table("image,x,y\na.jpg,1,2\nb.jpg,3,three\n"), "row 1: y is 'three', no finite number"),
    "NaN": (table("image,x,y\na.jpg,nan,2\n"), "row 0: x is 'nan', no finite number"),
    "infinity": (table("image,x,y\na.jpg,1e999,2\n"), "row 0: x is '1e999', no finite number"),
    "underscore": (table("image,x,y\na.jpg,1_0,2\n"), "row 0: x is '1_0', no finite number"),
    "decimal comma in a comma table": (table('image,x,y\na.jpg,"1,5",2\n'), "row 0: x is '1,5', no finite"),
    "half a point": (table("image,x,y\na.jpg,1,\n"), "row 0: y is empty"),
    "blank among points": (table("image,x,y\na.jpg,1,2\na.jpg,,\n"), "row 1: x is empty"),
    "no image": (table("image,x,y\na.jpg,1,2\n,1,2\n"), "row 1: image is empty"),
    "missing image": (table("image,x,y\na.jpg,1,2\nz.jpg,1,2\n"), r"row 1: names the image images/z\.jpg"),
    "no suffix": (table("image,x,y\na,1,2\n"), "row 0: 'a' names no image file"),
    "upwards": (table("image,x,y\n../images/a.jpg,1,2\n"), "row 0: the image name .* leads outside"),
    "absolute": (table("image,x,y\n/etc/a.jpg,1,2\n"), "row 0: the image name .* leads outside"),
    "binary": (table(bytes(range(256))), "not UTF-8 text"),
    "short row with a wrong byte": (table(b"image,x,y\na.jpg,1,2\n\xcc\n"), "row 1: not UTF-8 text"),
    "no table": (lambda root: (root / "points.csv").unlink(), "the layout is not that of a table"),
    "unsafe image without row": (
        lambda root: generic.save_image(root / "images" / "-x.jpg"),
        "'-x' cannot be an image id",
    ),
}


@pytest.mark.parametrize("fault", POINTS_FAULTS)
def test_points_faults(tmp_path: Path, fault: str) -> None:
    check_fault(tmp_path, generic.points_csv(tmp_path).entry, *POINTS_FAULTS[fault])


def test_points_bad_row_hinders_its_own_image_only(tmp_path: Path) -> None:
    entry = generic.points_csv(tmp_path).entry
    table("image,x,y\na.jpg,1,2\nb.jpg,3,three\n")(tmp_path)
    made = reader(entry)
    a, b, empty = made.list_images()
    assert made.read_points(a).tolist() == [[1, 2]] and len(made.read_points(empty)) == 0
    with pytest.raises(DataError, match=r"skip_images: \[all/b\]"):
        made.read_points(b)


@pytest.mark.parametrize("text", ["1" * 100_000 + "x", "." * 100_000, "1." + "0" * 100_000 + "e"])
def test_points_long_text_that_is_no_number_is_refused_at_once(text: str) -> None:
    start = time.process_time()
    assert _number(text, ".") is None
    assert time.process_time() - start < 1


def test_points_are_in_the_order_of_the_table(tmp_path: Path) -> None:
    entry = generic.points_csv(tmp_path).entry
    table("image,x,y\r\nb.jpg,5,1\r\n./a.jpg, 9 ,1\r\n\r\nb.jpg,4,1\r\na.jpg,8.5e0,-1\r\nb.jpg,5,1\r\n")(tmp_path)
    made = reader(entry)
    assert points_of(made) == {"all/a": [[9, 1], [8.5, -1]], "all/b": [[5, 1], [4, 1], [5, 1]], "all/empty": []}


def test_points_header_alone_means_that_nobody_is_there(tmp_path: Path) -> None:
    entry = generic.points_csv(tmp_path).entry
    for text in ("image,x,y", "image,x,y\r\n", "image,x,y\n\n"):
        table(text)(tmp_path)
        assert points_of(reader(entry)) == {"all/a": [], "all/b": [], "all/empty": []}
    table("image,x,y,set\n")(tmp_path)
    assert points_of(reader(entry, split="set")) == {"all/a": [], "all/b": [], "all/empty": []}


def test_points_images_without_row_and_several_splits(tmp_path: Path) -> None:
    truth = generic.points_csv(tmp_path, split="set")
    generic.save_image(tmp_path / "images" / "more.jpg")
    made = reader(truth.entry)
    assert keys(made) == list(truth.points)
    assert [(ref.split, ref.image_id) for ref in made.unlabelled()] == [("unlabelled", "more")]
    one = reader(truth.entry, split=None)
    assert keys(one) == ["all/a", "all/b", "all/empty", "all/more"] and one.unlabelled() == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a.jpg,1,2,train\na.jpg,1,2,test\n", "row 1: the image is in split 'test' here, in 'train' above"),
        ("a.jpg,1,2,tr/ain\n", "row 0: 'tr/ain' cannot be a split"),
        ("a.jpg,1,2,..\n", r"row 0: '\.\.' cannot be a split"),
        ("a.jpg,1,2,\n", "row 0: set is empty"),
    ],
)
def test_points_bad_splits(tmp_path: Path, rows: str, words: str) -> None:
    truth = generic.points_csv(tmp_path, split="set")
    table("image,x,y,set\n" + rows)(tmp_path)
    with pytest.raises(DataError, match=words):
        reader(truth.entry).list_images()


def parquet(**columns: Any) -> Callable[[Path], None]:
    return lambda root: pq.write_table(
        pa.table({"file_name": ["a.jpg", "b.jpg"], "px": [1.0, 2.0], "py": [3, 4], **columns}), root / "heads.parquet"
    )


PARQUET_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "damaged": (write(b"PAR1" + bytes(90), "heads.parquet"), "not a readable Parquet file"),
    "text": (write(b"image,x,y\n", "heads.parquet"), "not a readable Parquet file"),
    "NaN": (parquet(px=[1.0, float("nan")]), "row 1: px is nan, no finite number"),
    "empty": (parquet(px=[1.0, None]), "row 1: px is empty"),
    "bool": (parquet(px=[True, False]), "row 0: px is True, no finite number"),
    "no image": (parquet(file_name=["a.jpg", None]), "row 1: file_name is empty"),
    "list": (parquet(file_name=[["a.jpg"], ["b.jpg"]]), "the column file_name holds list<.*, not text"),
    "numbers as names": (parquet(file_name=[1, 2]), "row 0: '1' names no image file"),
}


@pytest.mark.parametrize("fault", PARQUET_FAULTS)
def test_parquet_faults(tmp_path: Path, fault: str) -> None:
    check_fault(tmp_path, generic.points_parquet(tmp_path).entry, *PARQUET_FAULTS[fault])


@pytest.mark.parametrize("kind", ["coco", "points_csv", "points_parquet", "labelme"])
def test_flipped_bytes(tmp_path: Path, kind: str) -> None:
    """Damaged files are read or refused, whatever bytes are changed."""
    truth = getattr(generic, kind)(tmp_path)
    names = {"coco": "annotations.json", "points_csv": "points.csv", "points_parquet": "heads.parquet"}
    path = tmp_path / names.get(kind, "a.json")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for turn in range(300):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 2):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged[: rng.integers(1, len(content))] if turn % 10 == 0 else damaged))
        os.utime(path, ns=(turn, turn))
        try:
            everything(reader(truth.entry))
            outcomes.add("read")
        except DataError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("kind", [pa.float32(), pa.int16(), pa.decimal128(9, 2), pa.string(), pa.large_string()])
def test_parquet_kinds_of_numbers(tmp_path: Path, kind: pa.DataType) -> None:
    entry = generic.points_parquet(tmp_path).entry
    parquet(px=pa.array(["1", "2"]).cast(kind))(tmp_path)
    assert points_of(reader(entry)) == {"all/a": [[1, 3]], "all/b": [[2, 4]], "all/empty": []}


def test_table_of_another_kind(tmp_path: Path) -> None:
    entry = generic.points_csv(tmp_path).entry
    (tmp_path / "points.csv").rename(tmp_path / "points.xlsx")
    with pytest.raises(DataError, match=r"a table of the kind \.xlsx\. Use \.csv or \.parquet"):
        reader(entry, table="points.xlsx").list_images()


def test_large_table_is_listed_fast(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for k in range(5000):
        (tmp_path / "images" / f"{k:05d}.jpg").touch()
    rows = "".join(f"{k % 5000:05d}.jpg,{k % 31},{k % 23}\n" for k in range(200_000))
    table("image,x,y\n" + rows)(tmp_path)
    start = time.perf_counter()
    made = reader({"format": "points", "root": str(tmp_path)})
    refs = made.list_images()
    assert len(refs) == 5000 and time.perf_counter() - start < 5
    assert len(made.read_points(refs[7])) == 40


# ------------------------------------------------------------------ labelme


def labelme_with(*shapes: Any, **more: Any) -> Callable[[Path], None]:
    return lambda root: (root / "a.json").write_text(json.dumps({"shapes": shapes, **more}), encoding="utf-8") and None


def shape(kind: str | None, *points: Any) -> dict[str, Any]:
    return {"label": "head", "shape_type": kind, "points": list(points)}


LABELME_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (write(b"", "a.json"), r"a\.json: the file is empty"),
    "no JSON": (write(b"{'shapes': []}", "a.json"), "not a readable JSON"),
    "other JSON": (write(b'{"info": 3}', "a.json"), "not a labelme file: it has no list 'shapes'"),
    "a list": (write(b"[]", "a.json"), "not a labelme file"),
    "no shape": (labelme_with(7), "no list of finite points"),
    "line": (labelme_with(shape("line", [0, 0], [1, 1])), "row 0: a shape of the kind 'line' marks no head; known"),
    "kind is a list": (labelme_with({"points": [[1, 1]], "shape_type": []} | {"label": "head"}), ""),
    "two points in one": (labelme_with(shape("point", [0, 0], [1, 1])), "row 0: a point with 2 points"),
    "circle of one": (labelme_with(shape("circle", [0, 0])), "row 0: a circle with 1 points"),
    "polygon of two": (labelme_with(shape("polygon", [0, 0], [1, 1])), "row 0: a polygon with 2 points"),
    "NaN": (labelme_with(shape("point", [0, float("nan")])), "row 0: the shape has no list of finite points"),
    "text": (labelme_with(shape("point", ["0", 1])), "row 0: the shape has no list of finite points"),
    "three coordinates": (labelme_with(shape("point", [0, 1, 2])), "row 0: the shape has no list of finite points"),
    "no annotation": (lambda root: (root / "a.json").unlink(), r"a\.jpg: no annotation: a\.json is missing"),
    "no image": (lambda root: (root / "a.jpg").unlink(), r"a\.json: no image: a with one of the suffixes"),
    "two layouts": (lambda root: generic.labelme(root, None, ("train",)) and None, "the layout is not clear"),
}
del LABELME_FAULTS["kind is a list"]  # an empty list counts as no kind


@pytest.mark.parametrize("fault", LABELME_FAULTS)
def test_labelme_faults(tmp_path: Path, fault: str) -> None:
    entry = generic.labelme(tmp_path).entry
    del entry["label"]
    for path in tmp_path.glob("*.json"):
        path.write_text(path.read_text(encoding="utf-8").replace("linestrip", "polygon"), encoding="utf-8")
    check_fault(tmp_path, entry, *LABELME_FAULTS[fault])


def test_labelme_other_shapes_need_a_label(tmp_path: Path) -> None:
    entry = generic.labelme(tmp_path).entry
    everything(reader(entry))
    with pytest.raises(DataError, match=r"'linestrip' marks no head.*name the label of heads: datasets.mine.label"):
        everything(reader(entry, label=None))
    assert {len(p) for p in points_of(reader(entry, label="nobody")).values()} == {0}


def test_labelme_shapes(tmp_path: Path) -> None:
    entry = generic.labelme(tmp_path).entry
    labelme_with(
        shape("rectangle", [8, 6], [2, 4]),
        shape("mask", [2, 4], [8, 6]),
        shape(None, [0, 0], [6, 0], [0, 6]),
        shape("circle", [5, 5], [5, 8]),
        imageHeight=24,
        imageWidth="32",
    )(tmp_path)
    made = reader(entry)
    annotation = made.read_annotation(made.list_images()[0])
    np.testing.assert_allclose(annotation.points_xy, [[5, 5], [5, 5], [2, 2], [5, 5]])
    assert annotation.boxes_xyxy is not None
    assert annotation.boxes_xyxy.tolist() == [[2, 4, 8, 6], [2, 4, 8, 6], [0, 0, 6, 6], [2, 2, 8, 8]]
    assert annotation.size_hw is None
    labelme_with(shape(None, [3, 4]), shape("rectangle", [8, 6], [2, 4]))(tmp_path)
    annotation = made.read_annotation(made.list_images()[0])
    assert annotation.points_xy.tolist() == [[3, 4], [5, 5]] and annotation.boxes_xyxy is None


def test_area_centre() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4.0]])
    assert area_centre(square) == area_centre(square[::-1]) == (2, 2)
    np.testing.assert_allclose(area_centre(square + 1e6), (1e6 + 2, 1e6 + 2))
    # An L of three unit squares: the mean of the centres of the squares.
    corners = np.array([[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2.0]])
    np.testing.assert_allclose(area_centre(corners), (5 / 6, 5 / 6))
    assert area_centre(np.array([[0, 0], [2, 0], [4, 0.0]])) == (2, 0)


def test_labelme_is_not_led_elsewhere(tmp_path: Path) -> None:
    """`imagePath` leads to another file: nothing but the file of the same name is read."""
    truth = generic.labelme(tmp_path)
    rows = list(stage.collect(reader(truth.entry), reader(truth.entry).list_images(), "stored"))
    assert [row["path"] for row in rows] == ["a.jpg", "b.jpg", "empty.png"]
    assert os.path.commonpath([tmp_path / row["path"] for row in rows]) == str(tmp_path)
