"""Large JSON files, one entry of their lists in memory at a time.

The file is one object. Entries of its lists are parsed by the standard library from a buffer that moves on; where a
value is cut off at the end of the buffer, more is read. How the file is laid out (one entry a line, or all in one) does
not matter.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from crowdmask.errors import DataError
from crowdmask.files import reading

CHUNK = 1 << 20
"""Bytes read at a time."""
MAX_ENTRY = 64 << 20
"""Most characters of an entry of a list, or of a value that is not taken apart."""

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"[-+.0-9eE]")


class Entry(NamedTuple):
    """A value of the file.

    Attributes:
        key: Of the object that the file is.
        row: Place in the list of that key; None = the value itself, which is no list that was asked for.
        value: Parsed.
        begin: Byte of the file at which it begins.
        size: Bytes.
    """

    key: str
    row: int | None
    value: Any
    begin: int
    size: int


class _Refused(ValueError):
    """Well-formed for Python, but no JSON that we take."""


def _constant(name: str) -> None:
    raise _Refused(f"{name} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _Refused("a key twice in one object")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant)


def parse(text: str) -> Any:
    """One value, as `entries` parses it.

    Raises:
        ValueError: not JSON, NaN or infinity, or a key twice in one object.
    """
    value, end = _DECODER.raw_decode(text, _after_space(text, 0))
    if _after_space(text, end) != len(text):
        raise ValueError("more than one value")
    return value


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


class _Buffer:
    """Text of a file around the place that is read, and where in the file that is.

    Args:
        file: Opened at its first byte.
        path: For messages.
        way_out: For messages.
    """

    def __init__(self, file: BinaryIO, path: Path, way_out: str) -> None:
        self._file, self._path, self._way_out = file, path, way_out
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._ended = False
        self._marked = self._mark = 0  # byte of the file, and character of the text, that are the same place
        self.text, self.at = "", 0
        self.more()
        if self.text.startswith("\ufeff"):
            self.at = 1

    def fault(self, problem: str) -> DataError:
        """The error that says so, with the place."""
        return DataError(self._path, f"byte {self.byte(self.at)}: {problem}", self._way_out)

    def byte(self, at: int) -> int:
        """Byte of the file at which a character of the text stands, not before one that was asked for earlier."""
        part = self.text[self._mark : at]
        self._marked += len(part) if part.isascii() else len(part.encode())
        self._mark = at
        return self._marked

    def more(self) -> bool:
        """Read on and forget what lies behind; False at the end of the file."""
        if self._ended:
            return False
        if self.at:
            self.byte(self.at)
            self.text = self.text[self.at :]
            self.at = self._mark = 0
        # Twice as much each time, so that a long value is not parsed from its beginning again and again.
        block = self._file.read(max(CHUNK, len(self.text)))
        self._ended = not block
        try:
            self.text += self._decode(block, self._ended)
        except UnicodeDecodeError as error:
            raise self.fault(f"not valid UTF-8 after it ({error.reason})") from None
        return True

    def mark(self) -> str:
        """The next character that is no space, not consumed; empty at the end of the file."""
        while True:
            self.at = _after_space(self.text, self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, wanted: str) -> str:
        """Consume the next character.

        Args:
            wanted: Those that may stand here.
        """
        found = self.mark()
        if not found or found not in wanted:
            what = f"{found!r}" if found else "the end of the file"
            raise self.fault(f"{what} where {' or '.join(wanted)} is expected")
        self.at += 1
        return found

    def value(self) -> tuple[Any, int, int]:
        """The next value, its first byte and its number of bytes."""
        self.mark()
        while True:
            cut: ValueError | None = None
            try:
                found, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error
            except (ValueError, RecursionError) as error:
                raise self.fault(f"not a readable value ({error})") from None
            # A number may go on behind the buffer.
            if cut is None and (end < len(self.text) or not _NUMBER.match(self.text, end - 1)):
                begin = self.byte(self.at)
                self.at = end
                return found, begin, self.byte(end) - begin
            if cut is not None and len(self.text) - self.at > MAX_ENTRY:
                raise self.fault(f"not a valid value of at most {MAX_ENTRY >> 20} MiB ({cut})")
            if not self.more():
                if cut is None:
                    begin = self.byte(self.at)
                    self.at = end
                    return found, begin, self.byte(end) - begin
                raise self.fault(f"not valid JSON, or cut off ({cut})")


def entries(path: str | Path, lists: Collection[str], way_out: str) -> Iterator[Entry]:
    """Values of a file that is one JSON object, in the order of the file.

    Args:
        path: The file, UTF-8 with or without byte order mark.
        lists: Keys whose lists are taken apart.
        way_out: What the user can do about an unusable file, for the message.

    Yields:
        Each entry of those lists, and each other value as a whole. An empty list yields its value, `[]`.

    Raises:
        DataError: missing, empty, not JSON, a key twice, NaN or infinity, cut off, followed by something else, or an
            entry larger than `MAX_ENTRY`.
    """
    path = Path(path)
    with reading(path, way_out), open(path, "rb") as file:
        buffer = _Buffer(file, path, way_out)
        if not buffer.mark():
            raise DataError(path, "the file is empty", way_out)
        buffer.take("{")
        seen: set[str] = set()
        if buffer.mark() == "}":
            buffer.take("}")
        else:
            while True:
                key, _, _ = buffer.value()
                if not isinstance(key, str) or key in seen:
                    raise buffer.fault("a key that is no text, or one that has been there before")
                seen.add(key)
                buffer.take(":")
                yield from _of_key(buffer, key, key in lists)
                if buffer.take(",}") == "}":
                    break
        if buffer.mark():
            raise buffer.fault("something stands behind the end of the object")


def _of_key(buffer: _Buffer, key: str, apart: bool) -> Iterator[Entry]:
    if not apart or buffer.mark() != "[":
        yield Entry(key, None, *buffer.value())
        return
    begin = buffer.byte(buffer.at)
    buffer.take("[")
    if buffer.mark() == "]":
        buffer.take("]")
        yield Entry(key, None, [], begin, 2)
        return
    index = 0
    while True:
        yield Entry(key, index, *buffer.value())
        index += 1
        if buffer.take(",]") == "]":
            return
