"""Masks through the tools' own libraries and back: just the edits come back, every other mask bit by bit.

The libraries live in an environment of their own, whose Python CROWDMASK_JUDGES names: `make judges`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from crowdmask import tables
from crowdmask.corrections.exchange import record
from crowdmask.masks import rle
from crowdmask.masks.rle import Window

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))
from flow import Flow, environment

JUDGES = os.environ.get("CROWDMASK_JUDGES", "")
pytestmark = pytest.mark.skipif(
    not JUDGES, reason="CROWDMASK_JUDGES names no Python with the tools' libraries: make judges"
)

CROWD = {
    "format": "synthetic",
    "count": 3,
    "people": [105, 120],
    "height": 480,
    "width": 640,
    "seed": 3,
    "split": "test",
}
HABITS = {
    "datumaro-coco:masks": "coco",
    "datumaro-coco:polygons": "coco",
    "pycocotools:uncompressed": "coco",
    "pycocotools:outlines": "coco",
    "supervision": "coco",
    "datumaro-cvat:masks": "cvat",
    "datumaro-cvat:polygons": "cvat",
    "labelme:masks": "labelme",
    "labelme:polygons": "labelme",
    "label-studio": "label-studio",
    "label-map": "label-map",
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    flow = Flow(tmp_path_factory.mktemp("judges"), {"datasets": {"crowd": CROWD}})
    flow.make("results/crowd/masks.json")
    return flow


@pytest.fixture(scope="session")
def exported(made: Flow) -> dict[str, Path]:
    folders = {}
    for tool in dict.fromkeys(HABITS.values()):
        folders[tool] = made.folder / f"out-{tool}"
        crowdmask(made, "export", "crowd", "--to", tool, "--all", "--output", str(folders[tool]))
    return folders


def crowdmask(flow: Flow, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crowdmask.cli", "corrections", *arguments]
    done = subprocess.run(command, cwd=flow.folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def annotations(flow: Flow) -> dict[tuple[int, int], dict[str, Any]]:
    found = json.loads(flow.path("crowd", "masks.json").read_text())["annotations"]
    return {(entry["image_id"], entry["point_id"]): entry for entry in found}


def counts(mask: np.ndarray) -> str:
    return rle.encode(mask).decode("ascii")


def plan_of(tasks: tuple[record.Task, ...], edit: bool, strip: bool) -> dict[str, Any]:
    """Five masks halved, two deleted, three added, over all pictures; none touches another mask."""
    pictures: dict[str, Any] = {}
    quota = [(2, 1, 1), (2, 1, 1), (1, 0, 1)] if edit else [(0, 0, 0)] * 3
    for task, (replaced, deleted, added) in zip(tasks, quota, strict=True):
        taken = np.zeros((task.h, task.w), bool)
        for head in task.heads:
            taken |= task.local(head).full(task.h, task.w)
        heads = [head for head in task.heads if task.local(head).area >= 120]
        halved: dict[str, str] = {}
        gone = [head.point_id for head in heads[-deleted:]] if deleted else []
        for head in heads:
            if len(halved) == replaced:
                break
            old = task.local(head).full(task.h, task.w)
            new = old & (np.arange(task.w) <= head.x + 1)
            whole = cv2.connectedComponents(new.astype(np.uint8))[0] == 2
            if head.point_id not in gone and whole and 0.3 < new.sum() / old.sum() < 0.7:
                halved[str(head.point_id)] = counts(new)
        assert len(halved) == replaced
        places = []
        free = cv2.distanceTransform((~taken).astype(np.uint8), cv2.DIST_L2, 5)
        for _ in range(added):
            y, x = np.unravel_index(int(np.argmax(free)), free.shape)
            assert free[y, x] > 8
            mask = Window(int(x) - 3, int(y) - 4, np.ones((9, 7), bool)).full(task.h, task.w)
            places.append(counts(mask))
            free[max(0, y - 30) : y + 30, max(0, x - 30) : x + 30] = 0
        pictures[task.name] = {"size": [task.h, task.w], "replace": halved, "delete": gone, "add": places}
    return {"strip": strip, "pictures": pictures}


def judged(flow: Flow, exported: dict[str, Path], habit: str, folder: Path, edit: bool, strip: bool) -> dict[str, Any]:
    tool = HABITS[habit]
    (found,) = (one for one in record.load_all(flow.folder / "corrections", "crowd") if one.tool == tool)
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(plan_of(found.tasks, edit, strip)))
    command = [
        JUDGES,
        str(Path(__file__).with_name("habits.py")),
        habit,
        exported[tool],
        folder / "out",
        folder / "plan.json",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = sorted((folder / "out").glob("result.*")) or sorted((folder / "out" / "saved").glob("*.json"))
    results = results or [folder / "out" / "SegmentationMap"]
    said = crowdmask(flow, "import", "crowd", *map(str, results), "--author", "ada", "--json")
    return json.loads(said.stdout)


@pytest.mark.parametrize("strip", [False, True], ids=["ids", "no-ids"])
@pytest.mark.parametrize("habit", HABITS)
def test_just_the_edits_come_back(
    made: Flow, exported: dict[str, Path], tmp_path: Path, habit: str, strip: bool
) -> None:
    flow = made.copy(tmp_path / "flow")
    before = annotations(flow)
    said = judged(flow, exported, habit, tmp_path / "judge", edit=True, strip=strip)
    numbers = {kind: said[kind] for kind in ("replaced", "deleted", "added", "refused")}
    assert numbers == {"replaced": 5, "deleted": 2, "added": 3, "refused": 0}, said["images"]
    assert said["kept"] + said["ambiguous"] == len(before) - 7
    if "polygons" not in habit and habit not in ("pycocotools:outlines", "supervision"):
        assert said["ambiguous"] == 0
    flow.make("results/crowd/masks.json")
    after = annotations(flow)
    changed = {
        key for key, entry in after.items() if key in before and before[key] != {**entry, "id": before[key]["id"]}
    }
    assert len(changed) == 5 and all(after[key]["source"] == "manual" for key in changed)
    assert len(before.keys() - after.keys()) == 2 and len(after.keys() - before.keys()) == 3
    assert len(before) >= 300
    # A second time everything is there already.
    again = json.loads(crowdmask(flow, "import", "crowd", *said["files"], "--author", "ada", "--json").stdout)
    assert (again["replaced"], again["added"], again["deleted"], again["written"]) == (0, 0, 0, [])


@pytest.mark.parametrize("strip", [False, True], ids=["ids", "no-ids"])
@pytest.mark.parametrize("habit", HABITS)
def test_tracing_alone_is_no_edit(
    made: Flow, exported: dict[str, Path], tmp_path: Path, habit: str, strip: bool
) -> None:
    flow = made.copy(tmp_path / "flow")
    said = judged(flow, exported, habit, tmp_path / "judge", edit=False, strip=strip)
    assert (said["replaced"], said["added"], said["deleted"], said["refused"]) == (0, 0, 0, 0), said["images"]
    assert said["written"] == []


def test_pipeline_masks_are_many(made: Flow) -> None:
    assert sum(1 for _ in tables.stream(next(made.path("crowd", "merge", "test").glob("*.parquet")), "masks")) > 100
