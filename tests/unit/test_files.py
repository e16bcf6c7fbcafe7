"""Files are replaced whole or not at all."""

import hashlib
import json
import math
import os
import stat
import subprocess
import sys

import pytest

from crowdmask.files import inside, replacing, sha256, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replacing_makes_folders_and_the_file(tmp_path):
    target = tmp_path / "a" / "b.txt"
    with replacing(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("new", encoding="utf-8")
        assert not target.exists()
    assert target.read_text(encoding="utf-8") == "new"
    assert names(target.parent) == ["b.txt"]


def test_replacing_keeps_the_old_file_on_failure(tmp_path):
    target = tmp_path / "b.txt"
    target.write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError, match="half way"), replacing(target) as temporary:
        temporary.write_text("ha", encoding="utf-8")
        raise RuntimeError("half way")
    assert target.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["b.txt"]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    target = tmp_path / "b.txt"
    target.write_text("old", encoding="utf-8")
    code = (
        "import sys, time; from crowdmask.files import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('ha'); print('ready', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.kill()
    assert target.read_text(encoding="utf-8") == "old"
    with replacing(target) as temporary:  # what it left behind is not in the way
        temporary.write_text("new", encoding="utf-8")
    assert target.read_text(encoding="utf-8") == "new"


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_the_file_has_ordinary_permissions(tmp_path):
    mask = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640


def test_long_names(tmp_path):
    target = tmp_path / ("a" * 250 + ".json")
    write_json(target, 1)
    assert names(tmp_path) == [target.name]


def test_write_json_is_sorted_readable_and_final(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, 2.5], "a": "Zürich"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": "Zürich",\n  "b": [\n    1,\n    2.5\n  ]\n}\n'
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "Zürich", "b": [1, 2.5]}


@pytest.mark.parametrize("value", [math.nan, math.inf, {"mean_iou": math.nan}])
def test_write_json_refuses_what_json_has_not(tmp_path, value):
    path = tmp_path / "a.json"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, value)
    assert path.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256(tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    assert sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("relative", ["a", "a/b.jpg", "a/../b", ".", "..a", "a..b"])
def test_inside_accepts(tmp_path, relative):
    assert inside(tmp_path, relative) == tmp_path / relative


@pytest.mark.parametrize("relative", ["..", "../x", "a/../../x", "/etc/passwd", "a\0b"])
def test_inside_refuses(tmp_path, relative):
    with pytest.raises(ValueError):
        inside(tmp_path, relative)


def test_inside_refuses_a_sibling_with_the_same_beginning(tmp_path):
    (tmp_path / "data-private").mkdir()
    with pytest.raises(ValueError, match="outside"):
        inside(tmp_path / "data", "../data-private")


def test_inside_follows_links(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "back").symlink_to(root)
    with pytest.raises(ValueError, match="outside"):
        inside(root, "out/x")
    assert inside(root, "back/x") == root / "back" / "x"


def test_inside_survives_links_in_a_circle(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    try:  # Python 3.13 resolves it to itself, older ones cannot: either way no crash and nothing outside
        assert inside(tmp_path, "loop/x") == tmp_path / "loop" / "x"
    except ValueError as error:
        assert "loop" in str(error)


def test_two_writers_do_not_meet(tmp_path):
    target = tmp_path / "a.txt"
    with replacing(target) as first, replacing(target) as second:
        assert first != second
        first.write_text("1", encoding="utf-8")
        second.write_text("2", encoding="utf-8")
    assert target.read_text(encoding="utf-8") == "1"  # the outer one finishes last
    assert names(tmp_path) == ["a.txt"]
