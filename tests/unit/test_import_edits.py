"""What comes back from tools becomes edits: of several people, at once, twice, and after the edit file was changed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crowdmask import cli, tables
from crowdmask.corrections import import_run, importing, native
from crowdmask.files import replacing
from layouts.handout import WHO, edit, edit_path, mask_row, run_merge

KEY = "test", "rgb"
BLOB = [[40, 2, 50, 2, 50, 9, 40, 9]]
OTHER = [[40, 2, 50, 2, 50, 9, 41, 10]]

QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def project(handout_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the data set, as the working directory."""
    copy = shutil.copytree(handout_made, tmp_path / "copy")
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def take(project: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Import files: exit code, the diff for machines, and errors."""

    def run(*arguments: Any) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        code = cli.main(["corrections", "import", "crowd", *map(str, arguments), "--json"])
        told = capsys.readouterr()
        return code, json.loads(told.out) if told.out else {}, told.err

    return run


def hand_out(*, all_of: bool = False) -> dict[str, Any]:
    """Content of a COCO file with the masks of an image, or of all."""
    which = ["--all"] if all_of else ["--images", "/".join(KEY)]
    shutil.rmtree("out", ignore_errors=True)
    with contextlib.redirect_stdout(None):
        assert cli.main(["corrections", "export", "crowd", "--to", "coco", *which, "--output", "out"]) == 0
    return json.loads(Path("out/annotations.json").read_text(encoding="utf-8"))


def back(content: dict[str, Any], *gone: int, drawn: dict[int, list] | None = None, new: Any = None) -> dict[str, Any]:
    """The file without some heads, with others drawn anew, and with a new one."""
    content = json.loads(json.dumps(content))
    content["annotations"] = [entry for entry in content["annotations"] if entry["point_id"] not in gone]
    for entry in content["annotations"]:
        if entry["point_id"] in (drawn or {}):
            entry["segmentation"] = drawn[entry["point_id"]]
    if new is not None:
        content["annotations"].append({"id": 999, "image_id": 1, "category_id": 1, "segmentation": new})
    return content


def put(content: dict[str, Any], name: str = "back.json") -> Path:
    path = Path(name)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def edits(key: tuple[str, str] = KEY) -> list[tuple[str, str, int | None]]:
    path = edit_path("crowd", *key)
    file = native.load(path) if path.exists() else None
    return [(one.action, one.author, one.point_id) for one in file.edits] if file else []


def counted(found: dict[str, Any]) -> dict[str, int]:
    return {kind: found[kind] for kind in importing.KINDS if found[kind]}


def test_without_a_record_what_is_not_merged_has_not_been_seen(take: Run) -> None:
    content = hand_out()
    shutil.rmtree("corrections/.exports")
    content["images"][0]["file_name"] = "rgb.png"
    path = put(back(content, 0))
    code, _, text = take(path, "--author", "ada")
    assert code == 1 and "2 images of the data set" in text  # train/sub-rgb has a file of the same name
    content["images"][0]["file_name"] = "images/rgb.png"
    take(put(back(content, 0)), "--author", "ada")
    assert edits() == [("delete", "ada", 0)]
    code, found, _ = take(put(back(content, drawn={0: BLOB})), "--author", "bo")
    assert code == 1 and counted(found) == {"kept": 4, "refused": 1}
    assert edits() == [("delete", "ada", 0)]


@pytest.mark.parametrize("tool", ["coco", "cvat", "labelme", "label-studio", "label-map"])
def test_a_picture_without_heads_comes_back(take: Run, tool: str) -> None:
    edit(*KEY, *({"action": "delete", "point_id": i, **WHO} for i in range(5)))
    run_merge()
    command = ["corrections", "export", "crowd", "--to", tool, "--images", "/".join(KEY), "--output", "out"]
    with contextlib.redirect_stdout(None):
        assert cli.main(command) == 0
    code, found, text = take("out")
    assert code == 0 and counted(found) == {} and found["images"] == {"/".join(KEY): []}, text


def test_an_edit_file_that_was_rewritten_by_hand_shows_no_edit_as_seen(take: Run) -> None:
    edit(*KEY, {"action": "accept", "point_id": 2, **WHO})
    run_merge()
    content = hand_out()
    # Afterwards the only edit that was handed out goes, and another one comes in its place.
    edit(*KEY, {"action": "replace", "point_id": 0, "polygons": BLOB, **WHO, "author": "cy"})
    code, found, _ = take(put(back(content, 0)), "--author", "bo")
    assert code == 1 and counted(found) == {"kept": 4, "refused": 1}
    assert [conflict["earlier"]["author"] for conflict in found["conflicts"]] == ["cy"]
    assert edits() == [("replace", "cy", 0)]


def test_edits_that_were_seen_stay_seen_wherever_they_are(take: Run) -> None:
    mine = {"action": "replace", "point_id": 0, "polygons": BLOB, **WHO}
    edit(*KEY, mine)
    run_merge()
    content = hand_out()
    edit(*KEY, {"action": "delete", "point_id": 1, **WHO, "author": "cy"}, mine)
    code, found, _ = take(put(back(content, 0)), "--author", "bo")
    assert code == 0 and counted(found) == {"kept": 4, "deleted": 1}
    assert edits() == [("delete", "cy", 1), ("replace", "ada", 0), ("delete", "bo", 0)]


def test_the_same_file_twice_at_once_adds_a_head_once(take: Run) -> None:
    path = put(back(hand_out(), 1, new=BLOB))
    code, found, _ = take(path, path, "--author", "ada")
    assert code == 0 and found["ambiguous"] == 0
    assert edits() == [("delete", "ada", 1), ("add", "ada", 5)]
    assert counted(take(path, "--author", "ada")[1]) == {"kept": 6}
    assert len(edits()) == 2


def test_accepting_twice_accepts_once(take: Run) -> None:
    path = put(back(hand_out(), 1))
    take(path, "--author", "ada", "--accept-kept")
    before = edits()
    assert before == [("delete", "ada", 1), *(("accept", "ada", i) for i in (0, 2, 3, 4))]
    assert take(path, "--author", "ada", "--accept-kept")[1]["written"] == []
    assert edits() == before


def test_nobody_accepts_what_they_have_not_seen(take: Run) -> None:
    content = hand_out()
    take(put(back(content, drawn={0: BLOB})), "--author", "ada")
    take(put(content), "--author", "bo", "--accept-kept")
    assert edits() == [("replace", "ada", 0), *(("accept", "bo", i) for i in (1, 2, 3, 4))]
    # Nor in one go: who redrew a head and who kept it are two.
    edit_path("crowd", *KEY).unlink()
    both = (
        put({**content, "info": {"contributor": "bo"}}, "bo.json"),
        put({**back(content, drawn={0: BLOB}), "info": {"contributor": "ada"}}, "ada.json"),
    )
    take(*both, "--accept-kept")
    assert ("accept", "bo", 0) not in edits() and ("replace", "ada", 0) in edits()


def test_what_has_no_point_any_more_is_refused(take: Run) -> None:
    edit(*KEY, {"action": "add", "x": 45, "y": 5, "polygons": BLOB, **WHO})
    run_merge()
    content = hand_out()
    edit_path("crowd", *KEY).unlink()
    code, found, _ = take(put(back(content, 5)), "--author", "bo")
    assert code == 1 and counted(found) == {"kept": 5, "refused": 1}
    assert edits() == []


def test_a_new_head_that_is_one_without_an_id_in_the_edit_file(take: Run) -> None:
    content = hand_out()
    edit(*KEY, {"action": "add", "x": 45, "y": 5, "polygons": BLOB, **WHO})
    path = put(back(content, new=[[40, 2, 50, 2, 50, 14, 40, 14]]))
    code, _, text = take(path, "--author", "bo", "--conflicts", "newest")
    assert code == 0, text
    assert edits() == [("add", "ada", None), ("replace", "bo", 5)]
    native.load(edit_path("crowd", *KEY))
    run_merge()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--author", "x" * 201], "--author"),
        (["--author", "a\nb"], "--author"),
        (["--tolerance", "nan"], "--tolerance"),
        (["--tolerance", "-1"], "--tolerance"),
        (["--tolerance", "1e9"], "--tolerance"),
        (["--time", "yesterday"], "--time"),
    ],
)
def test_options_that_make_no_sense_are_refused(take: Run, options: list[str], words: str) -> None:
    code, _, text = take(put(back(hand_out(), 1)), *options)
    assert code == 1 and words in text and edits() == []


def test_long_names_of_two_authors_fit_in_one(take: Run) -> None:
    content = hand_out()
    take(put(back(content, drawn={0: BLOB})), "--author", "a" * 200)
    code, _, text = take(put(back(content, drawn={0: OTHER})), "--author", "b" * 200, "--conflicts", "union")
    assert code == 0, text
    assert len(edits()) == 2


def test_a_file_name_that_is_no_unicode(take: Run) -> None:
    path = put(back(hand_out(), 1))
    name = os.fsdecode(b"na\xefve.json")
    path.rename(name)
    code, _, text = take(name, "--author", "ada")
    assert code == 0, text
    assert edits() == [("delete", "ada", 1)]


def test_a_folder_of_edits_that_cannot_be_written(take: Run) -> None:
    path = put(back(hand_out(), 1))
    Path("corrections/crowd").write_text("no folder")
    code, _, text = take(path, "--author", "ada")
    assert code == 1 and text.startswith("crowdmask: error: corrections/crowd")


def test_nothing_is_written_where_one_file_cannot_be(take: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    content = hand_out(all_of=True)
    path = put(back(content, 1))
    number = 0

    @contextlib.contextmanager
    def full(path: Path):
        nonlocal number
        number += 1
        with replacing(path) as temporary:
            if number == 3:
                raise OSError(28, "No space left on device")
            yield temporary

    monkeypatch.setattr(import_run, "replacing", full)
    code, _, text = take(path, "--author", "ada")
    assert code == 1 and "No space left on device" in text
    assert number == 3
    assert not list(Path("corrections/crowd").rglob("*.json"))


def test_an_edit_that_comes_while_an_import_runs_is_not_lost(take: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(back(hand_out(), 1))
    settle = import_run.importing.settle

    def meanwhile(*arguments: Any) -> None:
        edit(*KEY, {"action": "delete", "point_id": 2, **WHO})
        settle(*arguments)

    monkeypatch.setattr(import_run.importing, "settle", meanwhile)
    code, _, text = take(path, "--author", "bo")
    assert code == 1 and "has been changed" in text
    assert edits() == [("delete", "ada", 2)]


def test_imports_at_once_keep_every_edit_or_say_which_not(project: Path) -> None:
    content = hand_out()
    base = [sys.executable, "-m", "crowdmask.cli", "corrections", "import", "crowd"]
    running = [
        subprocess.Popen([*base, str(put(back(content, i), f"{i}.json")), "--author", f"author{i}"], **QUIET)
        for i in range(4)
    ]
    codes = [one.wait(timeout=120) for one in running]
    assert len(edits()) == codes.count(0) >= 1


def test_stale_edits_name_the_page_that_shows_them(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(back(hand_out(), drawn={0: BLOB}))
    table = Path("results/crowd/exclude/test/batch-0000.parquet")
    rows = tables.read(table, "masks")
    for row in rows:
        if (row["image_id"], row["point_id"]) == (KEY[1], 0):
            row |= {key: mask_row(KEY, 0, 9, 9)[key] for key in ("x0", "y0", "sha256")}
    tables.write(table, "masks", rows, version=2, settings="{}")
    capsys.readouterr()
    assert cli.main(["corrections", "import", "crowd", str(path), "--author", "ada"]) == 0
    told = capsys.readouterr().out
    assert "made by: snakemake --cores 2 results/crowd/corrections.html" in told
    cli.main(["corrections", "import", "crowd", str(path), "--author", "ada"])  # nothing new, nothing stale
    assert "corrections.html" not in capsys.readouterr().out


def test_names_of_authors_do_not_steer_the_terminal(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = hand_out()
    edit(*KEY, {"action": "replace", "point_id": 0, "polygons": BLOB, **WHO, "author": "a\x1b[2J"})
    capsys.readouterr()
    path = put(back(content, 0))
    assert cli.main(["corrections", "import", "crowd", str(path), "--author", "bo"]) == 1
    told = capsys.readouterr()
    assert "\\x1b[2J" in told.out and "\x1b" not in told.out + told.err


def test_an_import_with_a_byte_order_mark_and_windows_line_ends(take: Run) -> None:
    edit(*KEY, {"action": "accept", "point_id": 2, **WHO})
    place = edit_path("crowd", *KEY)
    place.write_bytes(place.read_text().replace(", ", ",\r\n").encode("utf-8-sig"))
    run_merge()
    text = json.dumps(back(hand_out(), 1), indent=1).replace("\n", "\r\n")
    Path("back.json").write_bytes(text.encode("utf-8-sig"))
    code, _, error = take("back.json", "--author", "bo")
    assert code == 0, error
    assert edits() == [("accept", "ada", 2), ("delete", "bo", 1)]
