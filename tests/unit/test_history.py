"""Who did what: edits by author, verified shares, heads with two authors."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from edited import H, W, box, file_of, replace, three
from hypothesis import given
from hypothesis import strategies as st

from crowdmask import cli_history, tables
from crowdmask.corrections import history, merge, native
from crowdmask.datasets.base import ImageRef
from crowdmask.errors import CrowdmaskError, DataError

ADA, BOB = {"author": "ada"}, {"author": "bob"}


def put(folder, *edits, name="a", split="test"):
    path = folder / split / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(native.dump(file_of(*edits, image_id=name, split=split)), encoding="utf-8")
    return path


def pairs(*edits):
    return {names: pair.as_json() for names, pair in history.pairs_of(file_of(*edits), "a.json").items()}


# One file


def test_the_work_of_each_author():
    done = history.work_of(
        file_of(
            {"action": "delete", "point_id": 3, **BOB, "time": "2025-01-02T00:30:00+01:00"},
            {"action": "add", "x": 1, "y": 1, "polygons": [[0, 0, 3, 0, 3, 3]], **BOB, "time": "2025-01-01T23:45:00Z"},
            {"action": "accept", "point_id": 1, **BOB, "time": "2025-01-01T23:40:00"},
            {"action": "circle", "point_id": 2, **ADA, "provenance": {"tool": "CVAT 1.1"}},
            {"action": "circle", "point_id": 2, **ADA},
        )
    )
    assert list(done) == ["bob", "ada"]
    zero = dict.fromkeys(history.ACTIONS, 0)
    # Half past midnight in Berlin is the earliest of the three; a time without zone is UTC.
    assert done["bob"].as_json() == {
        **zero,
        **{"delete": 1, "add": 1, "accept": 1},
        **{"first": "2025-01-02T00:30:00+01:00", "last": "2025-01-01T23:45:00Z", "tools": ["by hand"]},
    }
    assert done["ada"].as_json()["circle"] == 2 and done["ada"].tools == ["CVAT 1.1", "by hand"]


@given(st.lists(st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)), min_size=1))
def test_first_and_last_are_those_in_time_whatever_the_zone(times):
    work = history.Work()
    zones = ("+14:00", "-12:00", "Z", "")
    told = [f"{time.isoformat()}{zones[n % 4]}" for n, time in enumerate(times)]
    for time in told:
        work.add(file_of({"action": "delete", "point_id": 0, "time": time}).edits[0])
    hours = (14, -12, 0, 0)
    true = [time - timedelta(hours=hours[n % 4]) for n, time in enumerate(times)]
    assert true[told.index(work.first)] == min(true) and true[told.index(work.last)] == max(true)


def test_times_at_the_ends_of_the_calendar_are_compared():
    assert history.moment("0001-01-01T00:00:00+14:00") < history.moment("9999-12-31T23:59:59-14:00")
    assert history.moment("2025-01-01") == datetime(2025, 1, 1, tzinfo=UTC)


def test_two_authors_of_one_head_and_how_far_they_agree():
    found = pairs(
        replace(0, box(0, 0, 2, 2), **ADA),
        replace(0, box(0, 0, 4, 4), **ADA),  # her last counts: 16 pixels
        replace(0, box(0, 0, 4, 3), **BOB),  # 12 of them
        replace(1, box(5, 5, 2, 2), **BOB),
        replace(1, box(5, 5, 2, 2), **ADA),
        replace(2, box(5, 5, 2, 2), **ADA),
        {"action": "accept", "point_id": 2, **BOB},
    )
    assert found == {("ada", "bob"): {"heads": 2, "drawn_by_both": 2, "mean_iou": 0.875, "opposed": 0}}


def test_one_deletes_what_another_draws():
    found = pairs(
        replace(0, box(0, 0, 2, 2), **ADA),
        {"action": "delete", "point_id": 0, **BOB},
        {"action": "delete", "point_id": 1, **ADA},
        {"action": "delete", "point_id": 1, **BOB},
        {"action": "circle", "point_id": 2, **ADA},
        replace(2, box(0, 0, 2, 2), **BOB),
    )
    assert found == {("ada", "bob"): {"heads": 3, "drawn_by_both": 0, "mean_iou": None, "opposed": 1}}


def test_three_authors_are_three_pairs_and_added_heads_without_id_none():
    square = [[0, 0, 3, 0, 3, 3, 0, 3]]
    adds = [{"action": "add", "x": 1, "y": 1, "polygons": square, "author": name} for name in "xy"]
    heads = [replace(0, box(0, 0, 2, 2 + n), author=name) for n, name in enumerate("cab")]
    found = pairs(*adds, *heads)
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair["mean_iou"] for pair in found.values()] == [0.75, round(4 / 6, 6), 0.5]


def test_an_added_head_with_an_id_may_be_drawn_by_two():
    add = {"action": "add", "x": 1, "y": 1, "polygons": [[0, 0, 3, 0, 3, 3, 0, 3]], "point_id": 9, **ADA}
    assert pairs(add, replace(9, box(0, 0, 4, 2), **BOB))["ada", "bob"]["mean_iou"] == 0.5


def test_a_drawing_outside_of_the_image_is_named():
    outside = {"action": "replace", "point_id": 0, "polygons": [[90, 90, 95, 90, 95, 95]], **BOB}
    with pytest.raises(DataError, match=r"a\.json, row 1: the polygon covers no pixel"):
        pairs(replace(0, box(0, 0, 2, 2), **ADA), outside)


# What is verified


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.lists(st.booleans(), max_size=4)), max_size=6))
def test_verified_shares(images):
    rows = [
        {"split": split, "image_id": str(n), "verified": flag}
        for n, (split, flags) in enumerate(images)
        for flag in flags
    ]
    found = history.verified(iter(rows))
    assert found.keys() == {split for split, flags in images if flags}
    for split, sums in found.items():
        flags = [flags for other, flags in images if other == split and flags]
        assert sums == {
            "masks": sum(map(len, flags)),
            "verified": sum(map(sum, flags)),
            "images": len(flags),
            "images_verified": sum(map(all, flags)),
        }


# A data set


def refs(*names, split="test"):
    return [ImageRef(split, name, f"{name}.png", f"{name}.txt") for name in names]


def make(folder, name, split="test", merged=True):
    """Tables of an image as merge makes them."""
    path = folder / "corrections" / split / f"{name}.json"
    rows = [{**row, "split": split, "image_id": name} for row in three()]
    table: list[dict] = []
    if merged and path.is_file():
        rows, table = merge.merge_image(rows, native.load(path), H, W, "a" * 64)
    for stage, kind, values in (("merge", "masks", rows), ("edits", "edits", table)):
        place = folder / "results" / "it" / stage / split / f"{name}.parquet"
        tables.write(place, kind, values, version=1, settings="{}")


def log(folder, *names):
    batches = {("test", name): refs(name) for name in names}
    return history.log("it", folder / "corrections", batches, folder / "results")


def test_the_log_of_a_data_set(tmp_path):
    put(tmp_path / "corrections", replace(0, box(0, 0, 3, 3), **ADA), replace(0, box(0, 0, 3, 2), **BOB))
    accepts = [{"action": "accept", "point_id": n, **ADA} for n in range(3)]
    put(tmp_path / "corrections", *accepts, {"action": "circle", "point_id": 0, "base": "0" * 64, **BOB}, name="b")
    for name in "abc":
        make(tmp_path, name)
    found = log(tmp_path, "a", "b", "c", "d")
    assert (found["edits"], found["images"], found["batches"], found["batches_made"]) == (6, 2, 4, 3)
    assert [(work["image_id"], work["author"]) for work in found["work"]] == [
        *(("a", "ada"), ("a", "bob")),
        *(("b", "ada"), ("b", "bob")),
    ]
    assert [(a["author"], a["images"], a["replace"], a["accept"]) for a in found["authors"]] == [
        ("ada", 2, 1, 3),
        ("bob", 2, 1, 0),
    ]
    assert found["outcomes"] == {"applied": 4, "forced": 0, "stale": 1, "superseded": 1}
    assert found["verified"]["whole"] == {"masks": 9, "verified": 4, "images": 3, "images_verified": 1}
    assert found["verified"]["splits"] == {"test": found["verified"]["whole"]}
    assert found["pairs"] == [
        {"authors": ["ada", "bob"], "heads": 1, "drawn_by_both": 1, "mean_iou": 0.666667, "opposed": 0}
    ]
    assert found["outdated"] == []
    json.dumps(found, allow_nan=False)


def test_results_that_are_older_than_the_edits_are_named(tmp_path):
    put(tmp_path / "corrections", {"action": "delete", "point_id": 0}, name="new")
    gone = put(tmp_path / "corrections", {"action": "delete", "point_id": 0}, name="gone")
    other = put(tmp_path / "corrections", {"action": "delete", "point_id": 0}, name="other")
    put(tmp_path / "corrections", {"action": "delete", "point_id": 0}, name="same")
    make(tmp_path, "new", merged=False)
    for name in ("gone", "other", "same"):
        make(tmp_path, name)
    gone.unlink()
    other.write_text(native.dump(file_of({"action": "delete", "point_id": 0, **BOB}, image_id="other")))
    assert log(tmp_path, "gone", "new", "other", "same", "later")["outdated"] == ["test/gone", "test/new", "test/other"]


def test_without_edits_and_without_results(tmp_path):
    found = log(tmp_path, "a")
    assert (found["edits"], found["work"], found["verified"], found["outcomes"]) == (0, [], None, None)
    assert "results: not made yet" in "\n".join(cli_history.lines(found))


def test_a_file_at_the_wrong_place_or_no_edit_file_is_named(tmp_path):
    path = put(tmp_path / "corrections", {"action": "delete", "point_id": 0})
    path.rename(path.with_name("b.json"))
    with pytest.raises(DataError, match=r"b\.json: it speaks of image test/a"):
        log(tmp_path)
    path.with_name("b.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.json: not valid JSON"):
        log(tmp_path)


# The command


def printed(capsys, *arguments):
    parser = argparse.ArgumentParser()
    cli_history.add_log(parser.add_subparsers(required=True))
    args = parser.parse_args(["log", *arguments])
    args.run(args)
    return capsys.readouterr().out


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A data set of two images with edits, merged, as the working directory."""
    monkeypatch.chdir(tmp_path)
    entry = {"format": "synthetic", "count": 2, "split": "test"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"datasets": {"it": entry}}), encoding="utf-8")
    put(tmp_path / "corrections" / "it", name="scene-0001")
    nasty = {"author": "\x1b[2Jeve\u202e", "provenance": {"tool": "tool\n" * 40}}
    put(
        tmp_path / "corrections" / "it",
        {"action": "accept", "point_id": 0, **nasty},
        {"action": "delete", "point_id": 1, **ADA},
        {"action": "delete", "point_id": 0, **ADA},
        replace(0, box(0, 0, 3, 3), **nasty),
        name="scene-0000",
    )
    (tmp_path / "corrections" / "test").symlink_to(tmp_path / "corrections" / "it" / "test")
    for name in ("scene-0000", "scene-0001"):
        make(tmp_path, name)
    return tmp_path


def test_the_log_as_text(project, capsys):
    text = printed(capsys, "it")
    assert all(line.isprintable() and len(line) < 200 for line in text.splitlines())
    lines = text.splitlines()
    assert lines[0] == "corrections/it: 4 edits in 1 image by 2 authors"
    eve = next(line for line in lines if "eve" in line)
    assert eve.split()[:7] == ["test/scene-0000", r"\x1b[2Jeve\u202e", *"10001"]
    assert "edits in the results: 2 applied, 0 forced, 0 stale, 2 superseded" in lines
    assert "verified: 1 of 5 masks (20.0 %); every mask in 0 of 2 images" in lines
    assert lines[-1] == r"\x1b[2Jeve\u202e and ada edited the same 1 head; 1 deleted by one of them only"
    assert len({line.index("2025-01-02") for line in lines if line.startswith("test/")}) == 1


def test_the_log_as_json(project, capsys):
    text = printed(capsys, "it", "--json")
    found = json.loads(text)
    assert text.isascii()
    assert found["verified"]["whole"]["verified"] == 1 and [a["author"] for a in found["authors"]] == [
        "\x1b[2Jeve\u202e",
        "ada",
    ]


def test_an_unknown_data_set_is_an_error(project, capsys):
    with pytest.raises(CrowdmaskError, match="no data set 'nothing'"):
        printed(capsys, "nothing")
