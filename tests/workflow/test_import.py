"""Masks out to a tool's file and back: edits are found, conflicts listed, hostile files refused, nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flow import Flow, environment, targets


def crowdmask(flow: Flow, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crowdmask.cli", "corrections", *arguments]
    done = subprocess.run(command, cwd=flow.folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def counted(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    found = json.loads(done.stdout)
    return {
        kind: found[kind] for kind in ("kept", "replaced", "added", "deleted", "ambiguous", "refused") if found[kind]
    }


def edit_files(flow: Flow) -> dict[str, str]:
    return {str(path): path.read_text() for path in flow.folder.glob("corrections/crowd/*/*.json")}


@pytest.fixture
def handed_out(changed: Flow) -> tuple[Flow, Path, dict[str, Any]]:
    """A run, the exported file, and its content."""
    crowdmask(changed, "export", "crowd", "--to", "coco", "--all", "--output", "out")
    path = changed.folder / "out" / "annotations.json"
    return changed, path, json.loads(path.read_text())


def entries(flow: Flow) -> dict[tuple[int, int], dict[str, Any]]:
    found = json.loads(flow.path("crowd", "masks.json").read_text())["annotations"]
    return {(one["image_id"], one["point_id"]): {**one, "id": 0} for one in found}


@pytest.mark.parametrize("ids", [True, False])
def test_edits_come_back_and_nothing_else(handed_out: tuple[Flow, Path, dict[str, Any]], ids: bool) -> None:
    flow, path, content = handed_out
    before = entries(flow)
    number = len(content["annotations"])
    assert counted(crowdmask(flow, "import", "crowd", str(path), "--json")) == {"kept": number}
    assert edit_files(flow) == {}
    gone = content["annotations"].pop(0)["point_id"]
    if not ids:
        for entry in content["annotations"]:
            del entry["point_id"], entry["attributes"]
    path.write_text(json.dumps(content))
    wanted = {"kept": number - 1, "deleted": 1}
    assert counted(crowdmask(flow, "import", "crowd", str(path), "--author", "ada", "--json", "--dry-run")) == wanted
    assert edit_files(flow) == {}
    assert counted(crowdmask(flow, "import", "crowd", str(path), "--author", "ada", "--json")) == wanted
    assert counted(crowdmask(flow, "import", "crowd", str(path), "--author", "ada", "--json")) == {"kept": number}
    plan = flow.plan(*targets("crowd", "masks.json"))
    assert {rule: len(jobs) for rule, jobs in plan.items()} == {"merge": 1, "export": 1}
    flow.make(*targets("crowd", "masks.json"))
    after = entries(flow)
    lost = before.keys() - after.keys()
    assert {point for _, point in lost} == {gone} and all(after[key] == before[key] for key in after)
    # Another author, who did not see that, draws the head: nobody wins silently.
    crowdmask(flow, "import", "crowd", str(path), "--author", "bo", "--json")
    log = json.loads(crowdmask(flow, "log", "crowd", "--json").stdout)
    assert "ada" in json.dumps(log) and "bo" not in log


def test_two_authors_conflict(handed_out: tuple[Flow, Path, dict[str, Any]]) -> None:
    flow, path, content = handed_out
    number = len(content["annotations"])
    first = content["annotations"][0]
    path.write_text(json.dumps({**content, "annotations": content["annotations"][1:]}))
    crowdmask(flow, "import", "crowd", str(path), "--author", "ada")
    written = edit_files(flow)
    x, y, w, h = first["bbox"]
    first["segmentation"] = [[x, y, x + w + 9, y, x + w + 9, y + h + 9, x, y + h + 9]]
    path.write_text(json.dumps(content))
    done = crowdmask(flow, "import", "crowd", str(path), "--author", "bo", "--json", code=1)
    assert counted(done) == {"kept": number - 1, "refused": 1}
    (conflict,) = json.loads(done.stdout)["conflicts"]
    assert conflict["earlier"]["author"] == "ada" and conflict["incoming"]["author"] == "bo" and conflict["iou"] == 0
    assert edit_files(flow) == written and "--conflicts" in done.stderr
    done = crowdmask(flow, "import", "crowd", str(path), "--author", "bo", "--conflicts", "author:bo", "--json")
    assert counted(done) == {"kept": number - 1, "replaced": 1} and edit_files(flow) != written


def test_hostile_files_are_refused_and_nothing_is_written(handed_out: tuple[Flow, Path, dict[str, Any]]) -> None:
    flow, path, content = handed_out
    cases: dict[str, Any] = {}
    for name, change in {
        "unknown": lambda c: c["images"][0].update(file_name="nobody.jpg"),
        "size": lambda c: c["images"][0].update(height=7),
        "huge": lambda c: c["annotations"][0].update(segmentation={"size": [120, 160], "counts": [10**10]}),
        "negative": lambda c: c["annotations"][0].update(segmentation={"size": [120, 160], "counts": [-1, 19201]}),
        "nan": lambda c: c["annotations"][0].update(segmentation=[[float("nan"), 1, 2, 2, 3, 1]]),
        "points": lambda c: c["annotations"][0].update(segmentation=[[1.0, 2.0] * 10**6]),
    }.items():
        made = json.loads(json.dumps(content))
        made["annotations"].pop()  # an edit that would be written
        change(made)
        cases[f"{name}.json"] = json.dumps(made).encode()
    cases["bomb.xml"] = b'<!DOCTYPE a [<!ENTITY b "bbbb">]><annotations>&b;</annotations>'
    for name, data in cases.items():
        (flow.folder / name).write_bytes(data)
    with zipfile.ZipFile(flow.folder / "slip.zip", "w") as archive:
        archive.writestr("../../evil.json", path.read_bytes())
    for name in [*cases, "slip.zip"]:
        done = crowdmask(flow, "import", "crowd", name, code=1)
        assert name in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert edit_files(flow) == {}
