"""Tables that do not fit, or that somebody has tampered with: an error with file and row, never wrong labels."""

import hashlib
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training_cases import Project, disc, image_row, mask_row, texture, write

from crowdmask.errors import DataError
from crowdmask.masks import rle

POINTS = [[10, 12.25], [30.5, 20], [41, 8]]


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path)
    made.add("zero", texture(10, 10), [[4, 4]])
    made.add("one", texture(40, 50), POINTS)
    return made


def refused(project, row, *words, number=None):
    """The error that a source of the project gives, at the start or when the image is wanted."""
    with pytest.raises(DataError) as caught:
        project.source().prepare(progress=False)
    text = str(caught.value)
    assert caught.value.row == row, text
    assert all(word in text for word in words), text
    assert "masks.parquet" in text or "images.parquet" in text
    return text


@pytest.mark.parametrize(
    "change, words",
    [
        ({"point_id": 1}, ["a second mask of point 1"]),
        ({"point_id": -1}, ["point_id -1"]),
        ({"point_id": 7}, ["a mask of point 7, which is not annotated"]),
        ({"x": 11.0}, ["point 2 at another place"]),
        ({"y": math.nan}, ["not finite"]),
        ({"x0": -1}, ["leaves the 50 x 40 pixels"]),
        ({"x0": 46}, ["leaves the 50 x 40 pixels"]),
        ({"y0": 36}, ["leaves the 50 x 40 pixels"]),
        ({"w": -3}, ["leaves the 50 x 40 pixels"]),
        ({"h": 2**31 - 1}, ["leaves the 50 x 40 pixels"]),
        ({"sha256": "0" * 64}, ["not the one that its hash or area names"]),
        ({"area": 3}, ["not the one that its hash or area names"]),
        ({"area": 0}, ["not the one that its hash or area names"]),
        ({"x0": 30}, ["not the one that its hash or area names"]),
        ({"counts": b""}, ["counts are not COCO run lengths"]),
        ({"counts": b"2"}, ["do not add up"]),  # pycocotools reads on in memory
        ({"counts": b"\xff\xfe"}, ["codec"]),
        ({"counts": b"0`````o2"}, ["image train/one"]),
        ({"counts": b"o" * 50}, ["cut off"]),
        ({"w": 4}, ["do not add up"]),
    ],
)
def test_a_row_that_does_not_fit(project, change, words):
    row = project.masks[3]
    assert row["point_id"] == 2
    row.update(change)
    refused(project, 3, "masks.parquet", "train/one", *words)


def test_a_row_of_another_mask_with_a_good_hash_is_its_own(project):
    """Not tampered with, only other: another mask of the same point is what the table says."""
    project.masks[3] = mask_row(project.images[1], 2, *POINTS[2], disc(30, 30, 3, 40, 50))
    labels = project.source()[1].labels
    assert (labels == 3).any() and labels[30, 30] == 3


def test_masks_of_other_points(project):
    """The annotation has got a point more, or one fewer, since the masks were made."""
    again = image_row(project.root, "one", texture(40, 50), [*POINTS, [20, 30]])
    project.images[1] = again
    refused(project, None, "no mask of point 3 of image train/one")
    project.images[1] = image_row(project.root, "one", texture(40, 50), POINTS[:2])
    refused(project, 3, "a mask of point 2, which is not annotated")


def test_masks_of_an_image_of_another_size(project):
    project.images[1] = image_row(project.root, "one", texture(20, 50), POINTS)
    refused(project, 2, "the mask of point 1", "50 x 20")


def test_an_added_head_must_be_drawn_by_a_person(project):
    window = disc(20, 30, 2, 40, 50)
    project.masks.append(mask_row(project.images[1], 3, 20.0, 30.0, window, source="circle"))
    refused(project, 4, "a mask of point 3, which is not annotated")
    project.masks[4]["source"] = "manual"
    assert len(project.source()[1].points_xy) == 4


def test_masks_in_two_tables(project):
    first = write(project.root / "a.parquet", "masks", project.masks)
    second = write(project.root / "b.parquet", "masks", project.masks[2:])
    with pytest.raises(DataError, match=r"b\.parquet, row 0: image train/one also has masks"):
        project.source(masks=[first, second])


def test_rows_of_an_image_need_not_stand_together(project):
    project.masks = [project.masks[k] for k in (3, 0, 1, 2)]
    labels = project.source()[1].labels
    assert [int(labels[int(y + 0.5), int(x + 0.5)]) for x, y in POINTS] == [1, 2, 3]
    project.masks[2]["sha256"] = "0" * 64
    refused(project, 2, "the mask of point 0")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"height": 0}, "50 x 0 pixels"),
        ({"width": -4}, "-4 x 40 pixels"),
        ({"path": "../one.png"}, "leads outside"),
        ({"path": "/etc/passwd"}, "leads outside"),
        ({"path": "zero.png"}, "size changed"),
    ],
)
def test_image_rows_that_do_not_fit(project, change, words):
    project.masks = []
    project.images = [{**project.images[1], **change, "points": []}]
    with pytest.raises(DataError, match=words):
        project.source().prepare(progress=False)


@pytest.mark.parametrize("point", [{"x": math.inf}, {"y": math.nan}, {"point_id": 0}, {"point_id": -2}])
def test_points_that_cannot_be(project, point):
    project.images[1]["points"][1].update(point)
    with pytest.raises(DataError, match=r"images\.parquet, row 1: "):
        project.source("points", masks=(), edits=())


def test_an_image_in_two_tables(project):
    first = write(project.root / "a.parquet", "images", project.images)
    second = write(project.root / "b.parquet", "images", project.images[1:])
    with pytest.raises(DataError, match=r"b\.parquet, row 0: image train/one is also in"):
        project.source(images=[first, second])


def test_huge_claims_allocate_nothing(project):
    """A table that claims a picture of 4 terabytes: the file's own size is what counts."""
    project.masks = []
    project.images = [{**project.images[1], "height": 2_000_000, "width": 2_000_000, "points": []}]
    with pytest.raises(DataError, match="size changed"):
        project.source().prepare(progress=False)


def test_a_window_as_large_as_the_image_with_short_counts(project):
    row = project.masks[3]
    row.update({"x0": 0, "y0": 0, "w": 50, "h": 40, "counts": b"01"})
    refused(project, 3, "do not add up")


def test_damaged_and_foreign_tables(project, tmp_path):
    project.source()
    path = tmp_path / "t" / "masks.parquet"
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[: len(whole) // 2], whole[:200] + b"\0" * 50 + whole[250:]):
        (tmp_path / "bad.parquet").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.parquet"):
            project.source(masks=[tmp_path / "bad.parquet"]).prepare(progress=False)
    with pytest.raises(DataError, match="not those of the table 'masks'"):
        project.source(masks=[tmp_path / "t" / "images.parquet"])
    pq.write_table(pa.table({"a": [1]}), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match="not those of the table 'edits'"):
        project.source(edits=[tmp_path / "bad.parquet"])
    with pytest.raises(DataError, match="file not found"):
        project.source(images=[tmp_path / "nowhere.parquet"])


def test_an_empty_mask_leaves_the_head_its_own_pixel(project):
    empty = rle.Window(0, 0, np.zeros((0, 0), bool))
    project.masks[3] = mask_row(project.images[1], 2, *POINTS[2], empty)
    assert project.masks[3]["sha256"] == hashlib.sha256(b"0,0,0,0,").hexdigest()
    labels = project.source()[1].labels
    assert np.argwhere(labels == 3).tolist() == [[8, 41]]
