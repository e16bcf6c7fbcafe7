"""Masks through the tools' own libraries and back: just the edits come back, every other mask bit by bit.

The libraries live in an environment of their own, whose Python CROWDMASK_JUDGES names: `make judges`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow import Flow

from crowdmask import tables
from crowdmask.masks import rle
from crowdmask.masks.rle import Window
from judges import drawn
from judges.conftest import HABITS, Made, corrections, judge, plan_of

Results = Callable[[str, str, bool], list[Path]]

THIN = {"pixel", "pixel at the border", "line of 6 pixels"}
"""Forms whose outline through pixel centres has fewer than the 3 points of a polygon."""
LOST = {
    "datumaro-coco:polygons": {*THIN, "2 x 2"},  # of which Teh-Chin chains leave 2 points
    "datumaro-cvat:polygons": {*THIN, "2 x 2"},
    "labelme:polygons": THIN,
    "pycocotools:outlines": THIN,
    "supervision": THIN,  # it writes annotations without an outline for them
}
"""The habits that write polygons, and the drawn forms that these cannot carry. They come back missing, or without a
pixel, and must be ambiguous, never deleted. The other habits write pixels."""


def annotations(flow: Flow) -> dict[tuple[int, int], dict[str, Any]]:
    found = json.loads(flow.path("crowd", "masks.json").read_text())["annotations"]
    return {(entry["image_id"], entry["point_id"]): entry for entry in found}


def imported(flow: Flow, capsys: pytest.CaptureFixture[str], dataset: str, files: list[Path]) -> dict[str, Any]:
    capsys.readouterr()
    corrections(flow, "import", dataset, *map(str, files), "--author", "ada", "--json")
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def flow(made: Made, tmp_path: Path) -> Flow:
    return made.flow.copy(tmp_path / "flow")


no_ids = pytest.mark.parametrize("strip", [False, True], ids=["ids", "no-ids"])
each_habit = pytest.mark.parametrize("habit", HABITS)


@no_ids
@each_habit
def test_just_the_edits_come_back(
    made: Made, flow: Flow, results: Results, capsys: pytest.CaptureFixture[str], habit: str, strip: bool
) -> None:
    before = annotations(flow)
    files = results(habit, "edited", strip)
    said = imported(flow, capsys, "crowd", files)
    numbers = {kind: said[kind] for kind in ("replaced", "deleted", "added", "refused")}
    assert numbers == {"replaced": 5, "deleted": 2, "added": 3, "refused": 0}, said["images"]
    tasks = made.tasks("crowd", HABITS[habit])
    for task, plan in zip(tasks, plan_of(tasks, edit=True).values(), strict=True):
        found: dict[str, list[int]] = {"replaced": [], "deleted": []}
        for one in said["images"][f"{task.split}/{task.image_id}"]:
            found.get(one["kind"], []).append(one["point_id"])
        assert found == {"replaced": sorted(map(int, plan["replace"])), "deleted": sorted(plan["delete"])}
    assert said["kept"] + said["ambiguous"] == len(before) - 7
    assert said["ambiguous"] == 0 or habit in LOST
    flow.make("results/crowd/masks.json")
    after = annotations(flow)
    changed = {
        key for key, entry in after.items() if key in before and before[key] != {**entry, "id": before[key]["id"]}
    }
    assert len(changed) == 5 and all(after[key]["source"] == "manual" for key in changed)
    assert len(before.keys() - after.keys()) == 2 and len(after.keys() - before.keys()) == 3
    assert len(before) >= 300
    # A second time everything is there already.
    again = imported(flow, capsys, "crowd", files)
    assert (again["replaced"], again["added"], again["deleted"], again["written"]) == (0, 0, 0, [])


@no_ids
@each_habit
def test_tracing_alone_is_no_edit(
    flow: Flow, results: Results, capsys: pytest.CaptureFixture[str], habit: str, strip: bool
) -> None:
    said = imported(flow, capsys, "crowd", results(habit, "traced", strip))
    assert (said["replaced"], said["added"], said["deleted"], said["refused"]) == (0, 0, 0, 0), said["images"]
    assert said["written"] == []


@no_ids
@each_habit
def test_tracing_drawn_forms_is_no_edit(
    made: Made, flow: Flow, results: Results, capsys: pytest.CaptureFixture[str], habit: str, strip: bool
) -> None:
    said = imported(flow, capsys, "drawn", results(habit, "drawn", strip))
    assert (said["replaced"], said["added"], said["deleted"], said["refused"]) == (0, 0, 0, 0), said["images"]
    assert said["written"] == []
    ambiguous = [one for one in said["images"][f"{drawn.SPLIT}/{drawn.NAME}"] if one["kind"] == "ambiguous"]
    names = list(made.forms)
    unsure = {names[one["point_id"]] for one in ambiguous if one["point_id"] is not None}
    assert unsure == LOST.get(habit, set()), ambiguous
    assert said["kept"] == len(names) - len(unsure)


def test_drawn_forms_are_what_is_handed_out(made: Made) -> None:
    for tool in dict.fromkeys(HABITS.values()):
        (task,) = made.tasks("drawn", tool)
        for head, (name, mask) in zip(task.heads, made.forms.items(), strict=True):
            assert np.array_equal(task.local(head).full(task.h, task.w), mask), name


@pytest.mark.parametrize("dataset", ["crowd", "drawn"])
def test_faster_coco_eval_reads_the_same_masks(made: Made, tmp_path: Path, dataset: str) -> None:
    """Of the export and of masks.json, against the masks of the merge, decoded by this project."""
    flow = made.flow
    exported, finished = made.exports[dataset, "coco"] / "annotations.json", flow.path(dataset, "masks.json")
    files = {"export": exported, "masks": finished}
    jobs = [
        {"habit": "faster-coco-eval", "folder": str(path), "out": str(tmp_path / key), "plan": {}}
        for key, path in files.items()
    ]
    judge(jobs, tmp_path)
    tasks = made.tasks(dataset, "coco")
    shown = {(task.split, task.image_id): task.name for task in tasks}
    names = {(one["split"], one["image_id"]): one["file_name"] for one in json.loads(finished.read_text())["images"]}
    sizes = {(task.split, task.image_id): (task.height, task.width) for task in tasks}
    want: dict[str, dict[str, list]] = {key: {} for key in files}
    for path in sorted(flow.path(dataset, "merge").glob("*/*.parquet")):
        for row in tables.stream(path, "masks"):
            key = row["split"], row["image_id"]
            mask = Window(row["x0"], row["y0"], rle.decode(row["counts"], row["h"], row["w"])).full(*sizes[key])
            said = [*mask.shape, int(mask.sum()), hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()]
            want["masks"][f"{names[key]} {row['point_id']}"] = said
            want["export"][f"{shown[key]} {row['point_id']}"] = said
    assert len(want["masks"]) == (len(made.forms) if dataset == "drawn" else 345)
    for key in files:
        assert not (tmp_path / key / "error.txt").exists(), (tmp_path / key / "error.txt").read_text()
        assert json.loads((tmp_path / key / "result.json").read_text()) == want[key], key
