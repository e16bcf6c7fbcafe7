"""The whole run: what it leaves behind, and that cores and hard ends do not change a byte of it."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import time

import numpy as np
import psutil
import pytest
from flow import CROWD, Flow, environment, targets
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from safetensors.numpy import load_file

from crowdmask import tables
from crowdmask.metrics.evaluate import FALLBACKS

IDS = ["scene-0000", "scene-0001"]


def test_masks_are_coco_with_one_disjoint_annotation_a_point(crowd, capsys):
    coco = COCO(str(crowd.path("crowd", "masks.json")))
    assert [image["file_name"] for image in coco.dataset["images"]] == [f"test/{name}.png" for name in IDS]
    for image in coco.dataset["images"]:
        points = json.loads(crowd.path("crowd", "render", image["file_name"][:-4] + ".points.json").read_text())[
            "points"
        ]
        found = coco.imgToAnns[image["id"]]
        assert [entry["point_id"] for entry in found] == list(range(len(points)))
        covered = np.zeros((image["height"], image["width"]), int)
        for entry, (x, y) in zip(found, points, strict=True):
            mask = coco.annToMask(entry)
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert entry["area"] == mask.sum() == rle.area(entry["segmentation"])
            assert entry["bbox"] == box == rle.toBbox(entry["segmentation"]).tolist()
            assert entry["iscrowd"] == 0
            assert entry["keypoints"][:2] == [x, y]
            covered += mask
        assert covered.max() == 1
    ids = [entry["id"] for entry in coco.dataset["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    capsys.readouterr()  # pycocotools talks


def test_pictures_measures_and_the_table_of_edits_are_there(crowd):
    page = crowd.path("crowd", "overlays", "index.html").read_text(encoding="utf-8")
    pictures = sorted(crowd.path("crowd", "overlays", "test").glob("*.png"))
    assert len(pictures) == 2  # export.overlays
    for path in pictures:
        assert f"test/{path.name}" in page
        with Image.open(path) as picture:
            assert min(picture.size) >= 120

    measured = json.loads(crowd.path("crowd", "evaluation.json").read_text())
    masks = json.loads(crowd.path("crowd", "masks.json").read_text())["annotations"]
    wanted = {"images", "points", "masks", "mean_iou", "fallback_share", "mean_iou_circle", "mean_iou_superpixel"}
    assert wanted <= measured.keys()
    assert (measured["images"], measured["points"], measured["masks"]) == (2, len(masks), len(masks))
    assert 0 <= measured["mean_iou"] <= 1
    rows = [
        row for name in IDS for row in tables.read(crowd.path("crowd", "merge", "test", f"{name}.parquet"), "masks")
    ]
    assert measured["fallback_share"] == pytest.approx(np.mean([row["source"] in FALLBACKS for row in rows]), abs=1e-6)

    with crowd.path("crowd", "edits.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [tables.EDITS.names]


def test_every_job_has_a_log_and_a_benchmark(crowd):
    for stage in ("render", "datasets", "truth", "superpixels", "segment", "exclude", "merge"):
        for name in IDS:
            assert crowd.path("crowd", "logs", stage, "test", f"{name}.log").is_file()
            assert crowd.path("crowd", "benchmarks", stage, "test", f"{name}.tsv").read_text().startswith("s\t")


def test_nothing_temporary_stays(crowd):
    assert [path for path in crowd.path().rglob(".*") if path.is_file()] == []


def test_one_core_gives_the_same_bytes(crowd, new):
    flow = new({"datasets": {"crowd": CROWD}})
    flow.make(*targets("crowd", "masks.json"), cores=1)
    assert flow.path("crowd", "masks.json").read_bytes() == crowd.path("crowd", "masks.json").read_bytes()


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(crowd, new):
    flow = new({"datasets": {"crowd": CROWD}})
    command = flow.command(*targets("crowd", "masks.json"), cores=1)
    process = subprocess.Popen(
        command,
        cwd=flow.folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        # In the middle: one job of segment is done, another has begun.
        until = time.monotonic() + 600
        done, begun = flow.path("crowd", "segment", "test"), flow.path("crowd", "logs", "segment", "test")
        while len(list(done.glob("*.parquet"))) < 1 or len(list(begun.glob("*.log"))) < 2:
            assert process.poll() is None and time.monotonic() < until, "the run ended, or never came to segment"
            time.sleep(0.02)
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for child in children:  # jobs in groups of their own
            if child.is_running():
                child.kill()
        psutil.wait_procs(children, timeout=10)
    assert not flow.path("crowd", "masks.json").exists()

    flow.make(*targets("crowd", "masks.json"))
    assert flow.path("crowd", "masks.json").read_bytes() == crowd.path("crowd", "masks.json").read_bytes()


@pytest.mark.parametrize(
    "rule", ["datasets", "truth", "superpixels", "segment", "exclude", "merge", "export", "overlay"]
)
def test_a_printed_command_reruns_its_job_alone(changed, rule):
    printed = (changed.folder / "printed.txt").read_text(encoding="utf-8")
    line = next(
        line for line in re.findall(r"^Shell command: (.*)$", printed, re.MULTILINE) if f" stage {rule} " in line
    )
    words = shlex.split(line)
    output = changed.folder / words[words.index("--output") + 1]
    before = output.read_bytes()
    output.unlink()
    done = subprocess.run(["bash", "-c", line], cwd=changed.folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == before


@pytest.fixture(scope="module")
def trained(crowd, tmp_path_factory) -> Flow:
    flow = crowd.copy(tmp_path_factory.mktemp("trained") / "copy")
    settings = {
        "datasets": ["crowd"],
        "steps": 2,
        "images": 1,
        "prompts": 2,
        "every": 1,
        "threads": 1,
        "precision": "fp32",
    }
    flow.configure({"datasets": {"crowd": CROWD}, "train_sam": settings})
    flow.make("results/train_sam/sam.safetensors")
    return flow


def test_training_leaves_weights_card_and_curve(trained):
    weights = load_file(trained.path("train_sam", "sam.safetensors"))
    assert weights and all(np.isfinite(values).all() for values in weights.values())
    assert json.loads(trained.path("train_sam", "sam.json").read_text())
    with trained.path("train_sam", "curve.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) >= 1


def test_trained_weights_are_used_where_the_settings_say_so(trained, crowd, tmp_path):
    flow = trained.copy(tmp_path / "copy")
    # Also without the settings that they were trained with: then the file is just a file.
    flow.configure({"datasets": {"crowd": CROWD}, "sam": {"checkpoint": "results/train_sam/sam.safetensors"}})
    target = "results/crowd/exclude/test/scene-0000.parquet"
    assert set(flow.plan(target)) == {"segment", "exclude"}
    flow.make(target)
    name = ("crowd", "segment", "test", "scene-0000.parquet")
    assert flow.path(*name).read_bytes() != crowd.path(*name).read_bytes()
