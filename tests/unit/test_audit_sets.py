"""The audit on whole data sets: published ones, video, the real UCF_CC_50."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from crowdmask.audit import run, sets
from layouts.planted import Planter, entry, picture


def ids(kind: str) -> tuple[str, dict[str, list[str]]]:
    if kind == "shanghaitech_b":
        return "shanghaitech", {
            "train": [f"IMG_{n + 1}" for n in range(400)],
            "test": [f"IMG_{n + 1}" for n in range(316)],
        }
    if kind == "ucf_qnrf":
        return "ucf", {s: [f"img_{n + 1:04d}" for n in range(m)] for s, m in (("train", 1201), ("test", 334))}
    return "fdst", {"train": [f"1-{n:03d}" for n in range(9000)], "test": [f"2-{n:03d}" for n in range(6000)]}


@pytest.mark.parametrize("kind", ["shanghaitech_b", "ucf_qnrf", "fdst"])
def test_published_sets_are_recognised_and_their_numbers_compared(kind: str) -> None:
    name, have = ids(kind)
    known = sets.recognise(name, have)
    assert known is not None and known["id"] == kind
    (said,) = sets.published_numbers(known, have, known["points"])
    assert said.kind == "published_agrees" and f"{known['points']:,} points" in said.message
    (differs, agrees) = sets.published_numbers(known, have, known["points"] - 3)
    assert differs.kind == "published_differs" and "differs by -3" in differs.message and "images" in agrees.message
    have["test"].pop()
    (incomplete,) = sets.published_numbers(known, have, None)
    assert incomplete.kind == "published_differs" and "published images" in incomplete.message


def test_other_sets_are_not_taken_for_published_ones() -> None:
    assert sets.recognise("shanghaitech", {"train": ["IMG_4", "IMG_167"], "test": ["IMG_1"]}) is None
    assert sets.recognise("ucf", {"all": [f"{n}" for n in range(1, 40)]}) is None
    assert sets.recognise("ucf", {"all": [f"photo{n}" for n in range(50)]}) is None
    assert sets.recognise("label_map", {"all": [f"{n}" for n in range(1, 51)]}) is None
    name, have = ids("shanghaitech_b")
    assert sets.recognise(name, {"train": have["train"]}) is None


def test_known_defects_by_split() -> None:
    name, have = ids("shanghaitech_b")
    known = sets.recognise(name, have)
    assert known is not None
    found = sets.known_defects(known, [(split, name) for split in have for name in have[split]])
    wanted = {"test": (131, 175, 185, 283, 303), "train": (108, 202, 217, 296, 396)}
    assert {(f.split, f.image_id) for f in found} == {(s, f"IMG_{n}") for s in wanted for n in wanted[s]}
    assert all("source" in f.message for f in found)


def test_near_pictures_are_those_of_a_comparison_of_every_pair() -> None:
    rng = np.random.default_rng(3)
    looks = rng.integers(60, 180, (120, sets.LOOK_SIDE, sets.LOOK_SIDE)).astype(np.float32)
    for k in range(0, 120, 3):  # twins at distances around the threshold, by noise and by a shift of all levels
        looks[k + 1] = looks[k] + rng.normal(0, rng.uniform(0.5, 2.5), looks[k].shape)
        looks[k + 2] = looks[k] + rng.uniform(-2.5, 2.5)
    looks = looks.reshape(120, -1)
    wanted: dict[int, int] = {}
    for later in range(120):
        for earlier in range(later):
            if np.sqrt(((looks[later] - looks[earlier]) ** 2).mean()) <= sets.LOOK_RMS:
                wanted.setdefault(later, earlier)
    found = sets._twins(looks, np.ones(120))
    assert 30 < len(wanted) < 80 and {later: earlier for later, (earlier, _) in found.items()} == wanted


def test_many_pictures_of_one_brightness_are_compared_fast() -> None:
    looks = np.random.default_rng(0).normal(110, 40, (4000, sets.LOOK_SIDE**2)).astype(np.float32)
    start = time.process_time()
    assert sets._twins(looks, np.ones(len(looks))) == {}
    assert time.process_time() - start < 4


def test_frames_of_video_are_told_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = np.asarray(picture(5)).astype(int)
    new = Planter(tmp_path / "root")
    for k in range(sets.VIDEO_IMAGES + 2):
        frame = (base + rng.integers(-2, 3, base.shape)).clip(0, 255).astype(np.uint8)
        new.both(f"{k:03d}", Image.fromarray(frame))
    report = run.audit("mine", entry(tmp_path / "root"), tmp_path / "results", progress=False)
    assert [f["kind"] for f in report["findings"]] == ["video_frames"]


# ------------------------------------------------------------------ real files


def test_real_ucf_cc_50(shared: Path, tmp_path: Path) -> None:
    root = shared / "ucf_cc_50"
    report = run.audit("cc", entry(root, "ucf"), tmp_path, progress=False)
    assert report["recognised"] == "UCF_CC_50" and report["totals"]["errors"] == 0
    found = {kind: {f["image_id"] for f in report["findings"] if f["kind"] == kind} for kind in report["kinds"]}
    assert found["outside"] == {"6", "20"} and found["known_defect"] == {"6", "20", "41", "46"}
    assert found["beyond_edge"] == {"1", "3", "17", "25"}
    assert len(found["colour_mode"]) == 50
    # The same photo under two ids, in other words also in two folds of every cross-validation.
    assert found["near_duplicate_image"] == {"46"}
    (agrees,) = [f for f in report["findings"] if f["kind"] == "published_agrees"]
    assert "50 images and 63,974 points agree" in agrees["message"]
    theirs = scipy.io.loadmat(root / "14_ann.mat")["annPoints"]
    distance = np.linalg.norm(theirs[:, None] - theirs[None], axis=2) + 1e9 * np.tri(len(theirs)).T
    (close,) = [f for f in report["findings"] if f["kind"] == "close_points" and f["image_id"] == "14"]
    assert close["rows"] == np.flatnonzero(distance.min(axis=1) < 2).tolist()


def test_real_shanghaitech_and_nuclei(shared: Path, tmp_path: Path) -> None:
    for part in ("part_A", "part_B"):
        made = entry(shared / "shanghaitech_mini" / part, "shanghaitech")
        report = run.audit(part, made, tmp_path, progress=False)
        assert report["recognised"] is None and report["totals"]["errors"] == 0
    report = run.audit("nuclei", entry(shared / "dsb2018", "label_map", limit=20), tmp_path, progress=False)
    assert report["totals"]["images"] == 20 and report["totals"]["errors"] == report["totals"]["warnings"] == 0
