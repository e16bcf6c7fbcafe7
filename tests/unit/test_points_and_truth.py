"""What readers make of one image: points, true masks, rows of the table, EXIF policy."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crowdmask import tables
from crowdmask.datasets import stage
from crowdmask.datasets.label_map import inner_points, instance_boxes
from crowdmask.errors import DataError
from crowdmask.masks.rle import Window
from layouts.reading import reader_of as reader
from layouts.tiny import LABELS, make_labels, make_ucf


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
