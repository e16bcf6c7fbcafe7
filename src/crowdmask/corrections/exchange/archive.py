"""Files that people bring back: plain ones, folders, and zips of them, which are never unpacked to disk.

A member of a zip is read into memory, one at a time, and its name is only a name: no path is made of it. An archive
with one member that could hurt a program which does unpack it (a way out of the folder, a link) is refused as a whole.

Pictures come along with annotation files, as files like any other. An importer takes for a label map what
`label_map.belongs` says: a PNG or TIFF of one channel, unless it lies in a folder `images`; other pictures are media.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from tqdm import tqdm

from crowdmask.corrections.exchange.base import File
from crowdmask.errors import DataError
from crowdmask.files import reading, sha256

MAX_FILES = 100_000
"""Most files of a folder, or members of a zip."""
MAX_BYTES = 256 << 20
"""Largest file, and largest unpacked member."""
MAX_TOTAL = 16 << 30
"""Most bytes that the members of one zip may be unpacked."""
MAX_RATIO = 200
"""Most bytes that one byte of a zip may become, beyond `FREE`; label maps and run lengths stay below 100."""
FREE = 16 << 20
"""Unpacked bytes for which nobody asks how they were packed."""

_MAX_DIRECTORY = 16 << 20
"""Longest list of members of a zip, bytes."""
_BLOCK = 1 << 20
_ENTRY = b"PK\x01\x02"
_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_JUNK = frozenset({"__macosx", ".ds_store", "thumbs.db", "desktop.ini"})
_REPACK = "Unpack it where you trust it, look at it, and bring the files themselves."
_CHECK = "Check the path."


def files(paths: Sequence[Path], progress: bool = False) -> Iterator[File]:
    """All files that were brought, one in memory at a time; folders and zips in the order of their names.

    What systems leave behind (`__MACOSX`, `.DS_Store`, `Thumbs.db`, `desktop.ini`, `._*`) is left out. A zip may lie in
    a folder, not in a zip. A file in a folder or a zip may be empty.

    Args:
        paths: Files, folders, zips.
        progress: Show a bar.

    Raises:
        DataError: missing, unreadable, empty, no regular file, too large or too many; a link that leaves its folder; a
            zip that is damaged, encrypted, packed in an unusual way or too densely, or that has members with faulty
            names, links among them, one name twice, or a zip in it.
    """
    with tqdm(unit="file", disable=not progress, mininterval=1.0, dynamic_ncols=True) as bar:
        for path in paths:
            with reading(path, _CHECK):
                is_folder = path.is_dir()
            for file in _folder(path) if is_folder else _file(path):
                if not file.content and not is_folder and file.name == str(path):
                    raise DataError(path, "the file is empty (0 bytes)", _CHECK)
                yield file
                bar.update()


def _folder(root: Path) -> Iterator[File]:
    found: list[tuple[str, Path]] = []
    home = root.resolve()
    for folder, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if not _is_junk(name)]
        for name in (*folders, *names):
            path = Path(folder, name)
            if path.is_symlink() and home not in _target(path).parents:
                raise DataError(path, "a link that leads out of the folder", "Replace it by what it means.")
        found += [(Path(folder, name).relative_to(root).as_posix(), Path(folder, name)) for name in names]
        if len(found) > MAX_FILES:
            raise DataError(root, f"more than {MAX_FILES} files", "Bring the folder in parts.")
    found = [(name, path) for name, path in found if not _is_junk(path.name)]
    if not found:
        raise DataError(root, "the folder holds no file", _CHECK)
    for _, path in sorted(found):
        yield from _file(path)


def _refuse(error: OSError) -> None:
    raise DataError(error.filename, f"cannot be read ({error.strerror})", _CHECK)


def _target(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle (RuntimeError before Python 3.13)
        raise DataError(path, "a link that leads nowhere", "Remove it.") from None


def _is_junk(name: str) -> bool:
    return name.lower() in _JUNK or name.startswith("._")


def _file(path: Path) -> Iterator[File]:
    with reading(path, _CHECK):
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # asked before it is opened: a pipe would never end
            raise DataError(path, "neither a file nor a folder", _CHECK)
        with open(path, "rb") as opened:
            if opened.read(4) not in _MAGIC and path.suffix.lower() != ".zip":
                opened.seek(0)
                content = opened.read(MAX_BYTES + 1)
                if len(content) > MAX_BYTES:
                    raise DataError(path, f"larger than {MAX_BYTES >> 20} MiB", "Bring it in parts.")
                opened.close()
                yield File(str(path), content, hashlib.sha256(content).hexdigest())
                return
    yield from _zip(path)


class _Bounded(io.RawIOBase):
    """A zip as `zipfile` sees it: it reads the list of members at once, however long a file says that it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes; too long a list is refused before it becomes objects."""
        if size is None or size < 0 or size > _MAX_DIRECTORY:
            size = _MAX_DIRECTORY + 1
        data = self._file.read(size)
        if len(data) > _MAX_DIRECTORY or data.count(_ENTRY) > MAX_FILES:
            raise _TooMany
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of the file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is."""
        return True


class _TooMany(Exception):
    pass


def _zip(path: Path) -> Iterator[File]:
    with reading(path, _CHECK), open(path, "rb") as opened:
        digest = sha256(path)
        size = path.stat().st_size
        with _damage_named(path):
            archive = zipfile.ZipFile(cast(BinaryIO, _Bounded(opened)))
        members = _members(path, archive)
        left = MAX_TOTAL
        allowed = FREE + MAX_RATIO * size
        for member in members:
            with _damage_named(path, member.filename):
                content = _unpack(path, archive, member, min(left, allowed))
            left, allowed = left - len(content), allowed - len(content)
            if content.startswith(_MAGIC):
                raise DataError(path, f"{member.filename} is a zip in a zip", "Unpack the outer one.")
            yield File(f"{path}:{member.filename}", content, digest)


def _members(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Members in the order of their names, junk and folders left out, after a look at all of them."""
    seen: set[str] = set()
    kept = []
    for member in archive.infolist():
        name = member.orig_filename  # `filename` is already cut at a NUL
        if fault := _fault(name, member):
            raise DataError(path, f"the zip has a member {name!r} {fault}; nothing of it is read", _REPACK)
        if member.filename in seen:
            raise DataError(path, f"the zip has two members {name!r}", _REPACK)
        seen.add(member.filename)
        if not member.is_dir() and not any(map(_is_junk, PurePosixPath(name).parts)):
            kept.append(member)
    if not kept:
        raise DataError(path, "the zip holds no file", _CHECK)
    return sorted(kept, key=lambda member: member.filename)


def _fault(name: str, member: zipfile.ZipInfo) -> str | None:
    """Why a member makes its archive one not to be touched."""
    if not name or "\0" in name or "\\" in name:
        return "with a faulty name"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in PurePosixPath(name).parts:
        return "whose name leads out of its folder"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "that is a link, or no regular file"
    if member.flag_bits & 0x1:
        return "that is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed by another method than deflate"
    if name.lower().endswith(".zip"):
        return "that is a zip itself"
    return None


def _unpack(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, left: int) -> bytes:
    """Content of a member; sizes are counted as it is unpacked, for what the archive says of them may be wrong."""
    limit = min(MAX_BYTES, left, FREE + MAX_RATIO * member.compress_size)
    content = bytearray()
    with archive.open(member) as opened:
        while block := opened.read(min(_BLOCK, limit + 1 - len(content))):
            content += block
            if len(content) > limit:
                problem = f"{member.filename} unpacks to more than the {limit} bytes that its archive may hold there"
                raise DataError(path, f"{problem}; it may be a bomb", _REPACK)
    return bytes(content)


@contextmanager
def _damage_named(path: Path, member: str = "") -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except _TooMany:
        raise DataError(path, f"the zip lists more than {MAX_FILES} members", "Bring it in parts.") from None
    except Exception as error:  # `zipfile` raises nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        of = f" in {member}" if member else ""
        raise DataError(path, f"not a readable zip ({reason}){of}", "Download or pack it again.") from None
