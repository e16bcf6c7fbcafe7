"""Files, folders and zips that people bring back."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from exchange_cases import mutations

from crowdmask.corrections.exchange import archive
from crowdmask.errors import DataError


def packed(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, **about) -> Path:
    """A zip; `about` are attributes of its members that `zipfile` would not write by itself."""
    with zipfile.ZipFile(path, "w", method) as made:
        for name, content in members.items():
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.compress_type = name, method
            for key, value in about.items():
                setattr(info, key, value)
            made.writestr(info, content)
    return path


def found(*paths: Path) -> list[tuple[str, bytes]]:
    return [(file.name, file.content) for file in archive.files(paths)]


def problem(*paths: Path) -> str:
    before = sorted(paths[0].parent.rglob("*"))
    with pytest.raises(DataError) as caught:
        found(*paths)
    assert caught.value.fix and str(paths[0].parent) in caught.value.path
    assert sorted(paths[0].parent.rglob("*")) == before
    return caught.value.problem


def test_a_plain_file_comes_with_its_hash(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"{}")
    (file,) = archive.files([path])
    assert (file.name, file.content, file.suffix, file.stem) == (str(path), b"{}", ".json", "a")
    assert file.sha256 == hashlib.sha256(b"{}").hexdigest()


def test_a_member_comes_with_the_hash_of_its_archive(tmp_path):
    members = {"z/b.PNG": b"1", "a.json": b"{}", "z/": b"", "empty.txt": b"", "z/ä ö.xml": b"<a/>"}
    path = packed(tmp_path / "back.zip", members)
    files = list(archive.files([path], progress=True))
    assert [file.name for file in files] == [f"{path}:{n}" for n in ("a.json", "empty.txt", "z/b.PNG", "z/ä ö.xml")]
    assert [file.content for file in files] == [b"{}", b"", b"1", b"<a/>"]
    assert {file.sha256 for file in files} == {hashlib.sha256(path.read_bytes()).hexdigest()}
    assert files[2].stem == "b" and files[2].suffix == ".png"


def test_stored_members_and_other_names_of_the_archive_are_read(tmp_path):
    path = packed(tmp_path / "back", {"a.json": b"{}"}, zipfile.ZIP_STORED)
    assert found(path) == [(f"{path}:a.json", b"{}")]


def test_a_folder_is_read_in_order_with_the_zips_in_it(tmp_path):
    home = tmp_path / "back"
    (home / "b").mkdir(parents=True)
    (home / "b" / "2.json").write_bytes(b"2")
    (home / "c.json").write_bytes(b"3")
    (home / "d.txt").write_bytes(b"")
    packed(home / "a.zip", {"1.json": b"1"})
    (home / "e.json").symlink_to(home / "c.json")
    wanted = ["a.zip:1.json", "b/2.json", "c.json", "d.txt", "e.json"]
    assert found(home) == list(zip([f"{home}/{name}" for name in wanted], [b"1", b"2", b"3", b"", b"3"], strict=True))


def test_what_systems_leave_behind_is_left_out(tmp_path):
    junk = ["__MACOSX/._a.json", ".DS_Store", "x/Thumbs.db", "x/._b", "desktop.ini"]
    path = packed(tmp_path / "back.zip", {"a.json": b"{}", **dict.fromkeys(junk, b"junk")})
    assert [name for name, _ in found(path)] == [f"{path}:a.json"]
    home = tmp_path / "folder"
    for name in ("a.json", *junk):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"1")
    assert [name for name, _ in found(home)] == [f"{home}/a.json"]
    assert problem(packed(tmp_path / "junk.zip", dict.fromkeys(junk, b"junk"))) == "the zip holds no file"


def test_one_file_is_in_memory_at_a_time(tmp_path):
    path = packed(tmp_path / "back.zip", {"a.json": b"1", "b.json": b"2"})
    files = archive.files([path, tmp_path / "missing"])
    assert [next(files).content, next(files).content] == [b"1", b"2"]
    with pytest.raises(DataError, match="not found"):
        next(files)


# Refused


def test_what_is_no_file_is_refused(tmp_path):
    assert "file not found" in problem(tmp_path / "missing.json")
    (tmp_path / "empty.json").write_bytes(b"")
    assert "empty" in problem(tmp_path / "empty.json")
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in problem(tmp_path / "pipe")
    (tmp_path / "none").mkdir()
    assert "holds no file" in problem(tmp_path / "none")


@pytest.mark.parametrize("is_folder", [False, True])
def test_links_out_of_a_folder_are_refused(tmp_path, is_folder):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"1")
    home = tmp_path / "home"
    home.mkdir()
    (home / "a.json").symlink_to(outside if is_folder else outside / "secret")
    assert "leads out of the folder" in problem(home)


def test_links_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "a.json").symlink_to(tmp_path / "home" / "b.json")
    assert "file not found" in problem(tmp_path / "home")
    (tmp_path / "home" / "b.json").symlink_to(tmp_path / "home" / "a.json")
    with pytest.raises(DataError):
        found(tmp_path / "home")


def test_limits_of_plain_files_and_folders(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    for name in "abc":
        (home / name).write_bytes(b"1234")
    monkeypatch.setattr(archive, "MAX_FILES", 2)
    assert "more than 2 files" in problem(home)
    monkeypatch.setattr(archive, "MAX_BYTES", 3)
    assert "larger than" in problem(home / "a")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil.json", "leads out of its folder"),
        ("a/../../evil.json", "leads out of its folder"),
        ("..", "leads out of its folder"),
        ("/etc/evil.json", "leads out of its folder"),
        ("C:evil.json", "leads out of its folder"),
        ("C:/evil.json", "leads out of its folder"),
        ("..\\evil.json", "faulty name"),
        ("a\\b.json", "faulty name"),
        ("a.json\0.png", "faulty name"),
        ("inner.ZIP", "that is a zip itself"),
    ],
)
def test_one_faulty_name_refuses_the_whole_archive(tmp_path, name, words):
    path = packed(tmp_path / "back.zip", {"a.json": b"{}", name: b"evil"})
    text = problem(path)
    assert words in text and text.isprintable()
    files = archive.files([path])
    with pytest.raises(DataError):
        next(files)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_refuse_the_whole_archive(tmp_path, kind):
    path = packed(tmp_path / "back.zip", {"a": b"/etc/passwd"}, external_attr=(kind | 0o777) << 16)
    assert "a link, or no regular file" in problem(path)


def test_encrypted_archives_are_refused(tmp_path):
    path = packed(tmp_path / "back.zip", {"a.json": b"{}"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x03\x04") + 6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "is encrypted" in problem(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_pack_are_refused(tmp_path, method):
    assert "another method" in problem(packed(tmp_path / "back.zip", {"a.json": b"{}"}, method))


def test_one_name_twice_is_refused(tmp_path):
    path = tmp_path / "back.zip"
    with zipfile.ZipFile(path, "w") as made, pytest.warns(UserWarning, match="Duplicate"):
        made.writestr("a.json", b"1")
        made.writestr("a.json", b"2")
    assert "two members 'a.json'" in problem(path)


def test_a_zip_in_a_zip_is_refused_under_any_name(tmp_path):
    inner = io.BytesIO()
    zipfile.ZipFile(inner, "w").close()
    for number, content in enumerate((inner.getvalue(), packed(tmp_path / "i.zip", {"a": b"1"}).read_bytes())):
        assert "a zip in a zip" in problem(packed(tmp_path / f"{number}.zip", {"a.json": content}))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = packed(tmp_path / "back.zip", {"a.json": bytes(100 << 20)})
    assert path.stat().st_size < 150_000
    assert "may be a bomb" in problem(path)


def test_bombs_of_many_small_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "FREE", 100_000)
    path = packed(tmp_path / "back.zip", {f"{i:04}.json": bytes(90_000) for i in range(100)})
    assert "may be a bomb" in problem(path)
    good = packed(tmp_path / "good.zip", {"a.json": os.urandom(300_000)})
    assert len(found(good)) == 1


def test_limits_of_members(tmp_path, monkeypatch):
    path = packed(tmp_path / "back.zip", {"a": b"1234", "b": b"1234", "c": b"1"})
    monkeypatch.setattr(archive, "MAX_TOTAL", 8)
    assert problem(path).startswith("c unpacks to more than the 0 bytes")
    monkeypatch.setattr(archive, "MAX_BYTES", 3)
    assert problem(path).startswith("a unpacks to more than the 3 bytes")
    monkeypatch.setattr(archive, "MAX_FILES", 2)
    assert "more than 2 members" in problem(path)


def test_sizes_that_an_archive_claims_are_not_believed(tmp_path):
    path = packed(tmp_path / "back.zip", {"a.json": bytes(100 << 20)})
    content = bytearray(path.read_bytes())
    for magic, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(magic) + place
        assert struct.unpack_from("<I", content, at) == (100 << 20,)
        struct.pack_into("<I", content, at, 10)
    path.write_bytes(content)
    assert problem(path)


def test_a_list_of_members_of_any_claimed_length_is_read_within_bounds(tmp_path):
    path = packed(tmp_path / "back.zip", {"a.json": b"{}"})
    with open(path, "ab") as file:  # a sparse tail: a list of 64 MiB is claimed
        file.truncate(64 << 20)
        file.seek(0, os.SEEK_END)
        file.write(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, (64 << 20) - 200, 100, 0))
    assert "more than 100000 members" in problem(path)


def test_damage_is_named(tmp_path):
    path = packed(tmp_path / "back.zip", {"a.json": b"{}" * 500, "b.json": os.urandom(500)})
    whole = path.read_bytes()
    for cut in (whole[:-30], whole[: len(whole) // 2], b"PK\x03\x04", b"PK\x05\x06"):
        path.write_bytes(cut)
        assert "not a readable zip" in problem(path)
    changed = bytearray(whole)
    changed[whole.index(b"b.json") + 100] ^= 1
    path.write_bytes(changed)
    assert "CRC" in problem(path) and "b.json" in problem(path)
    (tmp_path / "text.zip").write_bytes(b"text")
    assert "not a readable zip" in problem(tmp_path / "text.zip")


def test_damaged_zips_are_refused_or_read(tmp_path):
    path = packed(tmp_path / "x.zip", {"a.json": b"{}" * 50, "images/b.png": b"\x89PNG" * 9, "c/": b""})
    content = path.read_bytes()
    parts = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"../", b"\x63"]
    fine = refused = 0
    for damaged in mutations(content, 500, parts):
        path.write_bytes(damaged or b"PK")
        try:
            for file in archive.files([path]):
                assert file.name.startswith(str(path))
            fine += 1
        except DataError as error:
            assert error.fix and str(path) in str(error)
            refused += 1
    assert fine > 5 and refused > 100
    assert list(tmp_path.iterdir()) == [path]
