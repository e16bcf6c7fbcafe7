"""Lists of a JSON file that is too large to hold, entry by entry; bounded, without NaN, no key twice.

Entries are parsed from a buffer that moves on; where a value is cut off at its end, more is read. How the file is laid
out (one entry a line, or all in one) does not matter.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Iterator
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from crowdmask.errors import DataError
from crowdmask.files import JSON, reading

MAX_ENTRY = 16 << 20
"""Longest single entry of a list, and longest other value, characters."""
CHUNK = 1 << 20
"""Bytes that are read at a time, at least."""


class Entry(NamedTuple):
    """A value of the file.

    Attributes:
        key: Of the object that the file is; empty where the file is itself a list.
        row: Place in the list of that key; None = a whole value, or `[]` for a list without entries.
        value: Parsed.
        begin: Byte of the file at which it begins.
        size: Bytes.
    """

    key: str
    row: int | None
    value: Any
    begin: int
    size: int


def entries(path: Path, lists: Collection[str], way_out: str, values: Collection[str] = ()) -> Iterator[Entry]:
    """Entries of some lists of the file's object, or of the list that the file is, in the order of the file.

    Args:
        path: The file, UTF-8 with or without byte order mark.
        lists: Keys of the lists.
        way_out: What the user can do about an unusable file, for the message.
        values: Keys of values that are wanted whole; those of all other keys are read and dropped.

    Raises:
        DataError: cannot be read, empty, not valid JSON, neither object nor list, something other than a list where one
            is wanted, an entry of more than `MAX_ENTRY`, a key twice in one object, NaN or infinity, nested beyond what
            can be read, cut off, or followed by something else.
    """
    with reading(path, way_out), open(path, "rb") as file:
        text = _Text(file, path, way_out)
        first = text.next()
        if not first:
            raise text.fault("the file is empty")
        if first == "[":
            yield from text.list("")
        else:
            for key in text.keys():
                if key in lists:
                    if text.next() != "[":
                        raise text.fault(f"{key!r} is no list")
                    yield from text.list(key)
                else:
                    found = text.value()
                    if key in values:
                        yield Entry(key, None, *found)
        if text.next():
            raise text.fault("something follows after its end")


class _Text:
    """A JSON text of which only a part is held.

    Args:
        file: Opened at its first byte.
        path: For messages.
        way_out: For messages.
    """

    def __init__(self, file: BinaryIO, path: Path, way_out: str) -> None:
        self._file, self._path, self._way_out = file, path, way_out
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text, self._at, self._ended = "", 0, False
        self._mark = self._marked = 0  # character of what is held, and byte of the file, that are the same place
        while not self._text and not self._ended:
            self._more()
        if self._text.startswith("\ufeff"):
            self._at = 1

    def fault(self, problem: str, at: int | None = None) -> DataError:
        """The error that says so, with its place: a character of what is held, None = where the reader is."""
        place = self._byte(self._at if at is None else at)
        return DataError(self._path, f"not valid JSON (byte {place}: {problem})", self._way_out)

    def _byte(self, at: int) -> int:
        """Byte of the file at which a character stands, not before one that was asked for earlier."""
        part = self._text[self._mark : at]
        self._marked += len(part) if part.isascii() else len(part.encode())
        self._mark = at
        return self._marked

    def _more(self) -> None:
        """Read as much again as is held, so that what is scanned twice is never more than what is read."""
        if self._at:
            self._byte(self._at)
            self._text = self._text[self._at :]
            self._at = self._mark = 0
        data = self._file.read(max(CHUNK, len(self._text)))
        self._ended = not data
        try:
            self._text += self._decode(data, self._ended)
        except UnicodeDecodeError as error:
            raise self.fault(f"after it, not valid UTF-8 ({error.reason})") from None

    def next(self) -> str:
        """The next character that is no space, which is not taken; empty at the end."""
        while True:
            self._at = WHITESPACE.match(self._text, self._at).end()
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def _take(self, allowed: str) -> str:
        found = self.next()
        if not found or found not in allowed:
            what = f"{found!r} where" if found else "it ends too early, where"
            raise self.fault(f"{what} one of {allowed} is expected")
        self._at += 1
        return found

    def value(self) -> tuple[Any, int, int]:
        """The next value, whole; its first byte, and its number of bytes."""
        self.next()
        while True:
            cut: json.JSONDecodeError | None = None
            try:
                value, end = JSON.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error
            except (ValueError, RecursionError) as error:
                raise self.fault(str(error)) from None
            # What is held may end within a number: 1, 1. and 1.5e are beginnings of 1.5e3.
            if cut is None and (self._ended or self._text[end : end + 1] not in ("", *"+-.0123456789Ee")):
                begin = self._byte(self._at)
                self._at = end
                return value, begin, self._byte(end) - begin
            if cut is not None and self._ended:
                raise self.fault(cut.msg, cut.pos)
            if len(self._text) - self._at > MAX_ENTRY:
                raise self.fault(f"an entry of more than {MAX_ENTRY} characters, or a fault in it")
            self._more()

    def list(self, key: str) -> Iterator[Entry]:
        """Entries of the list that comes next."""
        self.next()
        begin = self._byte(self._at)
        self._take("[")
        if self.next() == "]":
            self._at += 1
            yield Entry(key, None, [], begin, self._byte(self._at) - begin)
            return
        row = 0
        while True:
            yield Entry(key, row, *self.value())
            row += 1
            if self._take(",]") == "]":
                return

    def keys(self) -> Iterator[str]:
        """Keys of the object that comes next; the caller takes the value of each."""
        self._take("{")
        seen: set[str] = set()
        if self.next() == "}":
            self._at += 1
            return
        while True:
            if self.next() != '"':
                raise self.fault("a key is no text")
            key = self.value()[0]
            if key in seen:
                raise self.fault(f"key {key[:60]!r} twice in one object")
            seen.add(key)
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return
