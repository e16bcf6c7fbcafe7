"""What all judge tests share: the finished results, their exports, and what each habit made of them."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from crowdmask import cli
from crowdmask.corrections.exchange import record
from crowdmask.masks.rle import Window
from judges import drawn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))
from flow import Flow

CROWD = {
    "format": "synthetic",
    "count": 3,
    "people": [105, 120],
    "height": 480,
    "width": 640,
    "seed": 3,
    "split": "test",
}
DATASETS = {"crowd": CROWD, "drawn": {"format": "label_map", "root": "drawn"}}
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
"""Each habit of habits.py, and the format that is handed out to it."""
CASES = {"edited": ("crowd", True), "traced": ("crowd", False), "drawn": ("drawn", False)}
"""Data set, and whether masks are edited."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip where there are no judges."""
    absent = pytest.mark.skip(reason="CROWDMASK_JUDGES names no Python with the tools' libraries: make judges")
    for item in items:
        if Path(__file__).parent in item.path.parents and not os.environ.get("CROWDMASK_JUDGES"):
            item.add_marker(absent)


@dataclass(frozen=True)
class Made:
    """Results and their exports.

    Attributes:
        flow: With the data sets `crowd` and `drawn`.
        exports: Folders by data set and tool.
        forms: Masks of `drawn` by name, in order of their points.
    """

    flow: Flow
    exports: dict[tuple[str, str], Path]
    forms: dict[str, np.ndarray]

    def tasks(self, dataset: str, tool: str) -> tuple[record.Task, ...]:
        """The pictures of an export."""
        found = record.load_all(self.flow.folder / "corrections", dataset)
        (one,) = (one for one in found if one.tool == tool)
        return one.tasks


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of xdist have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@contextmanager
def once(folder: Path) -> Iterator[bool]:
    """Whether this process is the one to fill a folder; the others wait for it."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        yield not done.exists()
        done.touch()


@pytest.fixture(scope="session")
def made(shared_folder: Path) -> Made:
    """One run of the workflow over both data sets, exported for every tool."""
    folder = shared_folder / "made"
    flow, forms = Flow(folder / "flow"), drawn.forms()
    places = [(dataset, tool) for dataset in DATASETS for tool in dict.fromkeys(HABITS.values())]
    exports = {(dataset, tool): folder / f"out-{dataset}-{tool}" for dataset, tool in places}
    with once(folder) as mine:
        if mine:
            flow.configure({"datasets": DATASETS})
            drawn.make(flow.folder)
            flow.make("results/crowd/masks.json", "results/drawn/masks.json")
            for (dataset, tool), out in exports.items():
                corrections(flow, "export", dataset, "--to", tool, "--all", "--output", str(out))
    return Made(flow, exports, forms)


def corrections(flow: Flow, *arguments: str) -> None:
    """`crowdmask corrections ...` in a flow's folder, which must succeed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(flow.folder)
        assert cli.main(["corrections", *arguments]) == 0


@pytest.fixture(scope="session")
def results(made: Made, shared_folder: Path) -> Callable[[str, str, bool], list[Path]]:
    """(habit, case, whether ids are taken away) -> files that came back; a habit's cases are made at once."""

    def find(habit: str, case: str, strip: bool) -> list[Path]:
        folder = shared_folder / f"{habit.replace(':', '-')}-{'no-ids' if strip else 'ids'}"
        tool = HABITS[habit]
        with once(folder) as mine:
            if mine:
                jobs = []
                for one, (dataset, edit) in CASES.items():
                    plan = {"strip": strip, "pictures": plan_of(made.tasks(dataset, tool), edit)}
                    job = {"habit": habit, "folder": str(made.exports[dataset, tool]), "out": str(folder / one)}
                    jobs.append({**job, "plan": plan})
                judge(jobs, folder)
        out = folder / case
        assert not (out / "error.txt").exists(), (out / "error.txt").read_text()
        found = sorted(out.glob("result.*")) or sorted((out / "saved").glob("*.json"))
        return found or [out / "SegmentationMap"]

    return find


def judge(jobs: list[dict[str, Any]], folder: Path) -> None:
    """Run jobs with the judges' Python."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [os.environ["CROWDMASK_JUDGES"], str(Path(__file__).with_name("habits.py")), str(folder / "jobs.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def plan_of(tasks: tuple[record.Task, ...], edit: bool) -> dict[str, Any]:
    """Five masks halved, two deleted, three added, over three pictures, or none; none touches another mask."""
    pictures: dict[str, Any] = {}
    quota = [(2, 1, 1), (2, 1, 1), (1, 0, 1)] if edit else [(0, 0, 0)] * len(tasks)
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
                halved[str(head.point_id)] = drawn.counts(new)
        assert len(halved) == replaced
        places = []
        free = cv2.distanceTransform((~taken).astype(np.uint8), cv2.DIST_L2, 5)
        for _ in range(added):
            y, x = np.unravel_index(int(np.argmax(free)), free.shape)
            assert free[y, x] > 8
            mask = Window(int(x) - 3, int(y) - 4, np.ones((9, 7), bool)).full(task.h, task.w)
            places.append(drawn.counts(mask))
            free[max(0, y - 30) : y + 30, max(0, x - 30) : x + 30] = 0
        pictures[task.name] = {"size": [task.h, task.w], "replace": halved, "delete": gone, "add": places}
    return pictures
