"""The audit: a data set with planted defects, its cache and report, and the real UCF_CC_50."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crowdmask import cli, config
from crowdmask.audit import page, run
from crowdmask.audit.findings import KINDS, Finding, by_kind, finding
from crowdmask.audit.listing import existing_files, identity, listing
from crowdmask.datasets import reader_for
from crowdmask.datasets.base import ImageRef
from crowdmask.errors import DataError
from layouts.official import LAYOUTS
from layouts.planted import SKIP, Planter, Stub, entry, picture, plant, small


def audited(root: Path, results: Path, **options: Any) -> dict[str, Any]:
    made = entry(root, **SKIP)
    return run.audit("mine", made, results, progress=False, reader=Stub("mine", made), **options)


def places(report: dict[str, Any]) -> set[tuple[str, str, str, tuple[int, ...]]]:
    return {(f["kind"], f["split"], f["image_id"], tuple(f["rows"])) for f in report["findings"]}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set, dict[str, Any], Path]:
    """A data set with planted defects, what is to be found in it, its report, and the folder of results."""
    folder = tmp_path_factory.mktemp("planted")
    expected = plant(folder / "root")
    return folder / "root", expected, audited(folder / "root", folder / "results"), folder / "results"


def test_every_planted_defect_is_found_and_nothing_else(planted: Any) -> None:
    _, expected, report, _ = planted
    assert len({kind for kind, *_ in expected}) >= 25
    found = places(report)
    assert expected - found == set()
    assert found - expected == set()
    assert len(report["findings"]) == len(expected)


def test_each_finding_says_what_the_workflow_does(planted: Any) -> None:
    _, _, report, _ = planted
    for item in report["findings"]:
        known = KINDS[item["kind"]]
        assert item["action"] == known.action and item["severity"] == known.severity and item["message"]
        assert item["row"] == (item["rows"][0] if item["rows"] else None)
    assert report["totals"]["errors"] == sum(f["severity"] == "error" for f in report["findings"]) == 12
    assert "skip_images" in next(f["message"] for f in report["findings"] if f["kind"] == "missing_annotation")


def test_what_is_an_error_stops_the_listing_or_the_images(planted: Any) -> None:
    root, _, report, _ = planted
    with pytest.raises(DataError, match="cannot be an image id"):
        reader_for("mine", entry(root), "results").list_images()
    assert {f["kind"] for f in report["findings"] if f["severity"] == "error"} == {
        "missing_annotation", "orphan_annotation", "duplicate_id", "unsafe_id", "unknown_skip", "broken_link",
        "empty_file", "unreadable_image", "truncated_image", "unreadable_annotation", "not_finite", "box_count",
    }  # fmt: skip


def test_the_form_of_the_report(planted: Any) -> None:
    _, _, report, results = planted
    assert json.loads((results / "mine/audit.json").read_text()) == report
    assert report.keys() == {
        "version", "dataset", "format", "recognised", "totals", "splits", "kinds", "findings", "images",
    }  # fmt: skip
    assert report["totals"].keys() == {"images", "unlabelled", "points", "errors", "warnings", "notes"}
    for item in report["findings"]:
        assert item.keys() == {"kind", "severity", "split", "image_id", "row", "message", "action", "rows"}
        assert Finding.from_json(item).as_json() == item
    for kind in report["kinds"].values():
        assert kind.keys() == {"severity", "title", "action", "findings", "images", "rows"}
    for image in report["images"]:
        assert image.keys() == {"split", "image_id", "height", "width", "mode", "points", "median_nearest"}


def test_the_page_needs_nothing_else_and_escapes(planted: Any) -> None:
    _, _, _, results = planted
    text = (results / "mine/audit.html").read_text(encoding="utf-8")
    assert len(text) < 3_000_000 and 'name="viewport"' in text and "prefers-color-scheme: dark" in text
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|<script", text)
    assert text.count("<svg") == 4 and text.count("data:image/jpeg") == run.PICTURES
    bad = finding("outside", "<script>alert(1)</script>", "a<b", '"><img src=x>', [1])
    report = {"dataset": "<i>", "format": "f", "recognised": "<u>", "splits": {"<s>": {"images": 1, "points": 1}}}
    report |= {"totals": {"errors": 0, "warnings": 1}, "kinds": {}}
    made = page.page(report, [bad], {}, [("a<b", '"><img src=x>', b"x")])
    for part in ("<script>", "<img src=x>", "<i>", "<u>", "<s>", "a<b"):
        assert part not in made


# ------------------------------------------------------------------ the cache


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Images that were decoded, for their record or for a picture of the page."""
    seen: list[str] = []

    def counting(function: Callable) -> Callable:
        def wrapper(reader: Any, ref: ImageRef, *rest: Any) -> Any:
            seen.append(ref.image_id)
            return function(reader, ref, *rest)

        return wrapper

    for name in ("examine", "picture_of"):
        monkeypatch.setattr(run, name, counting(getattr(run, name)))
    return seen


def test_unchanged_images_are_not_read_again(tmp_path: Path, counted: list[str]) -> None:
    root = small(tmp_path / "root")
    made = entry(root)
    first = run.audit("mine", made, tmp_path / "results", progress=False)
    assert sorted(counted) == ["0000", "0000", "0001", "0002", "0003", "0004"]
    pages = [(tmp_path / "results/mine" / name).read_bytes() for name in ("audit.html", "audit.json")]
    counted.clear()
    assert run.audit("mine", made, tmp_path / "results", progress=False) == first
    assert counted == []
    assert pages == [(tmp_path / "results/mine" / name).read_bytes() for name in ("audit.html", "audit.json")]

    # An annotation of the same size and time, another image, and one more: those three only.
    path = root / "train/gt/0001.txt"
    status = path.stat()
    path.write_text(path.read_text().replace("20.0 20.0", "21.0 20.0", 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    picture(77).save(root / "train/images/0002.png")
    Planter(root).both("0009", picture(78))
    run.audit("mine", made, tmp_path / "results", progress=False)
    assert sorted(counted) == ["0001", "0002", "0009"]
    counted.clear()
    run.audit("mine", made.model_copy(update={"exif": "apply"}), tmp_path / "results", progress=False)
    assert len(counted) == 7


def test_a_changed_list_beside_the_annotations_is_noticed(tmp_path: Path, counted: list[str]) -> None:
    truth = LAYOUTS["jhu"][1](tmp_path / "jhu", np.random.default_rng(7))
    made = entry(tmp_path / "jhu")
    reader = reader_for("mine", made, "results")
    run.audit("mine", made, tmp_path, progress=False)
    path = tmp_path / "jhu/train/image_labels.txt"
    assert path in existing_files(reader, listing(reader))
    first = path.read_text().partition(",")[0]
    path.write_text(f"{first},999,street,0,0\n")
    counted.clear()
    found = by_kind(map(Finding.from_json, run.audit("mine", made, tmp_path, progress=False)["findings"]))
    assert [(f.split, f.image_id) for f in found["declared_differs"]] == [("train", first)]
    assert set(counted) == {key.partition("/")[2] for key in truth if key.startswith("train/")}
    path.unlink()
    assert "declared_differs" not in run.audit("mine", made, tmp_path, progress=False)["kinds"]


def test_the_list_has_another_identity_where_the_report_would_be_another(tmp_path: Path) -> None:
    LAYOUTS["nwpu"][1](tmp_path, np.random.default_rng(7))

    def state(**settings: Any) -> str:
        return identity(listing(reader_for("mine", entry(tmp_path, "nwpu", **settings), "results")))

    first = state()
    assert state() == first
    seen = {first, state(skip_images=["val/3110"])}
    row = (tmp_path / "train.txt").read_text().splitlines(keepends=True)[0]
    (tmp_path / "train.txt").write_text((tmp_path / "train.txt").read_text().removeprefix(row))
    (tmp_path / "val.txt").write_text((tmp_path / "val.txt").read_text() + row)
    seen.add(state())
    (tmp_path / "mats/0009.mat").touch()
    seen.add(state())
    next(tmp_path.glob("images_part*/3612.jpg")).unlink()
    assert len(seen | {state()}) == 5


def test_a_damaged_cache_is_ignored(tmp_path: Path, counted: list[str]) -> None:
    made = entry(small(tmp_path / "root"))
    first = run.audit("mine", made, tmp_path / "results", progress=False)
    store = tmp_path / "results/mine/audit-cache/records.jsonl"
    lines = store.read_bytes().splitlines()
    assert len(lines) == 5
    broken = json.loads(lines[1])
    broken["record"]["findings"] = [{"kind": "nonsense"}]
    store.write_bytes(b"\n".join([lines[0], json.dumps(broken).encode(), b"\xff\x00", b"[1]", lines[2][:50]]))
    counted.clear()
    assert run.audit("mine", made, tmp_path / "results", progress=False) == first
    assert len(counted) == 4
    assert store.read_bytes().splitlines() == lines


def test_unreadable_images_are_not_tried_again_for_a_picture(tmp_path: Path, counted: list[str]) -> None:
    root = small(tmp_path / "root")
    (root / "train/images/0003.png").write_bytes(b"not an image")
    run.audit("mine", entry(root), tmp_path, progress=False)
    counted.clear()
    run.audit("mine", entry(root), tmp_path, progress=False)
    assert counted == []


def test_rings_mark_rows_of_the_annotation_not_of_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS["nwpu"][1](tmp_path / "root", np.random.default_rng(7))
    with (tmp_path / "root/val.txt").open("a") as file:
        file.write("3110 1 1\n")
    drawn: dict[str, list[Finding]] = {}
    monkeypatch.setattr(run, "picture_of", lambda reader, ref, exif, own: drawn.update({ref.image_id: own}))
    run.audit("mine", entry(tmp_path / "root", "nwpu"), tmp_path, progress=False)
    assert "3110" in drawn and all(f.kind != "duplicate_id" for own in drawn.values() for f in own)


def test_a_killed_audit_goes_on(tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = entry(small(tmp_path / "root"))
    counting = run.examine

    def killed(reader: Any, ref: ImageRef, exif: Any) -> Any:
        if ref.image_id == "0003":
            raise KeyboardInterrupt
        return counting(reader, ref, exif)

    monkeypatch.setattr(run, "examine", killed)
    with pytest.raises(KeyboardInterrupt):
        run.audit("mine", made, tmp_path / "results", progress=False)
    assert not (tmp_path / "results/mine/audit.json").exists()
    monkeypatch.setattr(run, "examine", counting)
    counted.clear()
    run.audit("mine", made, tmp_path / "results", progress=False)
    assert sorted(counted) == ["0000", "0003", "0004"]


def test_several_processes_say_the_same(tmp_path: Path) -> None:
    made = entry(small(tmp_path / "root", run.FEWEST_FOR_POOL + 1))
    reports = [run.audit("mine", made, tmp_path / f"results-{n}", jobs=n, progress=False) for n in (1, 2)]
    assert reports[0] == reports[1]
    assert [f["kind"] for f in reports[0]["findings"]] == ["duplicate_points"]


# ------------------------------------------------------------------ the list


def test_five_thousand_images_are_listed_within_a_second(tmp_path: Path) -> None:
    for folder in ("images", "gt"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    for k in range(5000):
        (tmp_path / f"train/images/{k:04d}.jpg").write_bytes(b"")
        (tmp_path / f"train/gt/{k:04d}.txt").write_bytes(b"")
    (tmp_path / "train/gt/0003.txt").unlink()
    made = reader_for("mine", entry(tmp_path), "results")
    start = time.process_time()
    listed = listing(made)
    assert time.process_time() - start < 1
    assert len(listed.refs) == 4999 and [f.kind for f in listed.findings] == ["missing_annotation"]
    assert len(listed.published["train"]) == 5000
    assert len(existing_files(made, listed)) == 9998


def test_left_out_images_have_a_line_each(tmp_path: Path) -> None:
    made = entry(small(tmp_path), skip=1, limit=2, skip_images=["train/0004"])
    found = by_kind(listing(reader_for("mine", made, "results")).findings)
    assert [f.image_id for f in found["skipped"]] == ["0004"]
    assert [f.image_id for f in found["unselected"]] == ["0000", "0003"]


def test_missing_folder_of_a_split_is_told_and_the_other_split_audited(tmp_path: Path) -> None:
    (small(tmp_path / "root") / "val/images").mkdir(parents=True)
    report = run.audit("mine", entry(tmp_path / "root"), tmp_path / "results", progress=False)
    assert report["totals"]["images"] == 5
    assert [(f["kind"], f["split"]) for f in report["findings"] if f["severity"] == "error"] == [("layout", "val")]
    with pytest.raises(DataError, match="is missing"):
        run.audit("mine", entry(tmp_path / "elsewhere"), tmp_path / "results", progress=False)


def test_rendered_scenes_and_label_maps(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "root" / folder).mkdir(parents=True)
    labels = np.zeros((40, 50), np.uint8)
    labels[10:20, 10:20] = 1
    for name, size in (("a", (50, 40)), ("b", (40, 50))):
        picture(ord(name), size[1], size[0]).save(tmp_path / f"root/images/{name}.png")
        Image.fromarray(labels).save(tmp_path / f"root/labels/{name}.png")
    report = run.audit("mine", entry(tmp_path / "root", "label_map"), tmp_path, progress=False)
    assert [(f["kind"], f["image_id"]) for f in report["findings"]] == [("label_map_size", "b")]


def test_scenes_that_are_not_rendered_yet(tmp_path: Path) -> None:
    made = config.load({"datasets": {"mine": {"format": "synthetic", "count": 2}}}).datasets["mine"]
    with pytest.raises(DataError, match=r"not rendered yet\. Run: snakemake"):
        run.audit("mine", made, tmp_path, progress=False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sound_data_sets_in_their_official_layouts(tmp_path: Path, layout: str) -> None:
    kind, write = LAYOUTS[layout]
    truth = write(tmp_path / "root", np.random.default_rng(7))
    report = run.audit("mine", entry(tmp_path / "root", kind), tmp_path, progress=False)
    assert {(i["split"], i["image_id"]): i["points"] for i in report["images"]} == {
        tuple(key.split("/")): len(wanted.points_xy) for key, wanted in truth.items()
    }
    # Their points lie where chance put them, now and then close to each other.
    assert report["kinds"].keys() <= {"colour_mode", "no_points", "unlabelled", "close_points"}
    assert report["totals"]["unlabelled"] == (3 if layout == "nwpu" else 0)


def test_an_id_twice_in_a_list_stops_nothing_else(tmp_path: Path) -> None:
    truth = LAYOUTS["nwpu"][1](tmp_path / "root", np.random.default_rng(7))
    with (tmp_path / "root/val.txt").open("a") as file:
        file.write("3110 1 1\n0001 1 1\n")
    made = entry(tmp_path / "root", "nwpu")
    report = run.audit("mine", made, tmp_path, progress=False)
    errors = [f for f in report["findings"] if f["severity"] == "error"]
    assert [(f["kind"], f["split"], f["image_id"]) for f in errors] == [
        ("duplicate_id", "val", "0001"), ("duplicate_id", "val", "3110"),
    ]  # fmt: skip
    assert "'0001' stands in train.txt already" in errors[0]["message"] and errors[0]["rows"]
    assert report["totals"]["images"] == len(truth)
    for ref in listing(reader_for("mine", made, "results")).refs:  # as another process does, which lists nothing
        reader_for("mine", made, "results").read_annotation(ref)


# ------------------------------------------------------------------ the command


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    small(tmp_path / "in")
    Path("config.yaml").write_text("datasets: {mine: {format: jhu, root: in}}\n")
    assert cli.main(["datasets", "audit", "mine", "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "points on the same spot" in said and "results/mine/audit.html" in said and "1 warnings" in said
    assert cli.main(["datasets", "audit", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("results/mine/audit.json").read_text())
    Path("in/train/gt/0002.txt").unlink()
    assert cli.main(["datasets", "audit", "mine"]) == 1
    assert "1 errors, at which the workflow stops" in capsys.readouterr().err
    selection = json.dumps({"format": "jhu", "root": "in"})
    assert cli.main(["datasets", "audit", "mine", "--report-only", "--selection", selection]) == 0
    assert cli.main(["datasets", "audit", "other"]) == 1
    assert "no data set 'other'" in capsys.readouterr().err
    for jobs in ("0", "-1", "two", "1.5"):
        with pytest.raises(SystemExit):
            cli.main(["datasets", "audit", "mine", f"--jobs={jobs}"])
        assert f"--jobs: '{jobs}' is no number of processes of at least 1" in capsys.readouterr().err
    Path("in/train/images/Zo\u00eb.png").touch()
    assert cli.main(["datasets", "audit", "mine", "--json"]) == 1
    text = capsys.readouterr().out
    assert text.isascii() and json.loads(text) == json.loads(Path("results/mine/audit.json").read_text("utf-8"))


def test_every_kind_is_in_the_documentation_as_it_is() -> None:
    text = (Path(__file__).parents[2] / "docs/audit.md").read_text(encoding="utf-8")
    for name, kind in KINDS.items():
        assert f"| `{name}` | {kind.severity} | {kind.title} | {kind.action} |" in text
