"""What is handed out for correction: the merged masks as they are now, of the images wanted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crowdmask import tables
from crowdmask.corrections.exporting import export
from crowdmask.errors import DataError
from crowdmask.masks import rle
from layouts.handout import (
    CORNER,
    POINTS,
    TIME,
    WHO,
    config,
    edit,
    edit_path,
    fails,
    mask_row,
    pixels,
    run_merge,
    table,
)


def test_masks_are_the_merged_ones_with_the_base_of_the_pipeline(handout_project):
    edit(
        "test",
        "rgb",
        {"action": "replace", "point_id": 0, **CORNER, **WHO},
        {"action": "delete", "point_id": 1, **WHO},
        {"action": "add", "x": 25, "y": 30, "polygons": [[24, 29, 26, 29, 26, 31]], **WHO},
        {"action": "accept", "point_id": 2, "base": "0" * 64, **WHO},  # stale
    )
    run_merge()
    done = export(config(), "crowd", "cvat", named=["test/rgb", "test/grey"])
    edited, untouched = done.record.tasks
    assert (len(edited.edits), untouched.edits) == (4, ())
    base = [mask_row(("test", "rgb"), i, *point)["sha256"] for i, point in enumerate(POINTS)]
    assert [(head.point_id, head.base) for head in edited.heads] == [
        (0, base[0]),
        (2, base[2]),
        (3, base[3]),
        (4, base[4]),
        (5, None),
    ]
    merged = {row["point_id"]: row for row in tables.read(table("crowd", "merge", "test", "batch-0000"), "masks")
              if row["image_id"] == "rgb"}  # fmt: skip
    assert {head.point_id: rle.digest(head.window()) for head in edited.heads} == {
        point_id: row["sha256"] for point_id, row in merged.items()
    }
    assert edited.heads[0].window().area == 88
    assert [head.base for head in untouched.heads] == base


def test_an_image_without_heads_is_handed_out_too(handout_project):
    edit("train", "sub-rgb", *({"action": "delete", "point_id": i, **WHO} for i in range(5)))
    run_merge()
    (task,) = export(config(), "crowd", "cvat", named=["train/sub-rgb"]).record.tasks
    assert task.heads == () and len(task.edits) == 5


@pytest.mark.parametrize("change", ["new file", "one more", "another drawing", "a stale one", "one fewer", "gone"])
def test_edits_that_are_not_merged_yet_stop_it(handout_project, change):
    first = {"action": "replace", "point_id": 0, **CORNER, **WHO}
    second = {"action": "delete", "point_id": 1, **WHO}
    if change != "new file":
        edit("test", "rgb", first, second)
        run_merge()
        export(config(), "crowd", "cvat", named=["test/rgb"], output="fine")
        shutil.rmtree("corrections/.exports")
    other = {**first, "polygons": [[40, 2, 50, 2, 50, 10, 40, 9]]}
    now = {
        "new file": [first],
        "one more": [first, second, {"action": "accept", "point_id": 2, **WHO}],
        "another drawing": [other, second],
        "a stale one": [first, second, {"action": "delete", "point_id": 3, "base": "0" * 64, **WHO}],
        "one fewer": [first],
    }
    if change == "gone":
        edit_path("crowd", "test", "rgb").unlink()
    else:
        edit("test", "rgb", *now[change])
    target = "results/crowd/merge/test/batch-0000.parquet"
    text = fails(DataError, f"Run: snakemake --cores 2 {target} first", named=["test/rgb"])
    assert "the masks of the image test/rgb are older than" in text
    # Other images of the batch can be handed out.
    assert export(config(), "crowd", "cvat", named=["test/grey"]).masks == 5


def test_tables_that_are_older_than_their_input_stop_it(handout_project):
    path = table("crowd", "exclude", "test", "batch-0000")
    rows = tables.read(path, "masks")
    changed = mask_row(("test", rows[0]["image_id"]), 0, 9, 9)
    rows[0] |= {key: changed[key] for key in ("x0", "y0", "sha256")}
    tables.write(path, "masks", rows, version=2, settings="{}")
    fails(DataError, "older than the masks of exclude", time=TIME)


def test_an_image_file_that_has_changed_stops_it(handout_project):
    Image.fromarray(pixels(77)).save("data/images/grey.png")
    fails(DataError, r"grey.png: the file has changed .* snakemake .*merge/test/batch-0000.parquet first", time=TIME)


def test_a_faulty_edit_file_is_named(handout_project):
    edit("test", "rgb", {"action": "delete", "point_id": 99, **WHO})
    fails(DataError, "rgb.json, row 0: point 99 does not exist", named=["test/rgb"])


# Which images


def write_review(scores: dict[tuple[str, str], list[float]], **columns) -> None:
    rows = [{"split": key[0], "image_id": key[1], "score": value} for key, many in scores.items() for value in many]
    pq.write_table(pa.Table.from_pylist(rows), "results/crowd/review.parquet")


def test_worst_first_from_the_review(handout_project):
    write_review({("test", "grey"): [0.25, 0.75], ("train", "sub-rgb"): [0.875], ("test", "photo"): [0.125]})
    done = export(config(), "crowd", "labelme", worst=2)
    assert [(row["split"], row["image_id"], row["score"]) for row in done.rows] == [
        ("train", "sub-rgb", 0.875),
        ("test", "grey", 0.5),
    ]
    assert export(config(), "crowd", "labelme", named=["photo", "deep"], output="out").rows[0]["score"] == 0.125
    assert len(export(config(), "crowd", "coco", worst=50).rows) == 3


def test_a_review_that_cannot_be_read_says_how_to_make_it(handout_project):
    command = "Run: snakemake --cores 2 --configfile a.yaml 'my b.yaml' -- results/crowd/review.parquet"
    assert command in fails(DataError, "not made yet", worst=2, configfiles=["a.yaml", "my b.yaml"])
    path = Path("results/crowd/review.parquet")
    path.write_bytes(b"PAR1 nothing of it")
    fails(DataError, "review.parquet: damaged", worst=2)
    pq.write_table(pa.table({"split": ["test"], "image_id": ["rgb"], "score": ["high"]}), path)
    fails(DataError, "not a review table", worst=2)


@pytest.mark.parametrize("stage", ["datasets", "exclude", "merge", "edits"])
def test_missing_tables_say_how_to_make_them(handout_project, stage):
    table("crowd", stage, "train", "sub-rgb").unlink()
    text = fails(DataError, "not made yet", named=["train/sub-rgb"])
    assert text.startswith(f"results/crowd/{stage}/train/sub-rgb.parquet: ")
    assert text.endswith("Run: snakemake --cores 2 results/crowd/merge/train/sub-rgb.parquet")
