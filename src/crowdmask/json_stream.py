"""Lists of a JSON file that is too large to hold, entry by entry; bounded, without NaN, no key twice."""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Iterator
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any, BinaryIO

from crowdmask.errors import DataError
from crowdmask.files import reading

MAX_ENTRY = 16 << 20
"""Longest single entry of a list, and longest other value, characters."""
CHUNK = 1 << 20
"""Bytes that are read at a time, at least."""


def entries(path: Path, wanted: Collection[str], way_out: str) -> Iterator[tuple[str, Any]]:
    """Entries of some lists of the file's object, in the order of the file.

    Args:
        path: The file, UTF-8 with or without byte order mark.
        wanted: Keys of the lists; all other values are read and dropped.
        way_out: What the user can do about an unusable file, for the message.

    Yields:
        Key and entry; where the file is itself a list, an empty key and its entries.

    Raises:
        DataError: cannot be read, not valid JSON, neither object nor list, a wanted value that is no list, an entry of
            more than `MAX_ENTRY`, a key twice in one object, NaN or infinity, or nested beyond what can be read.
    """
    with reading(path, way_out), open(path, "rb") as file:
        text = _Text(file)
        try:
            if text.next() == "[":
                yield from (("", entry) for entry in text.list())
            else:
                for key in text.keys():
                    if key not in wanted:
                        text.value()
                    elif text.next() != "[":
                        raise ValueError(f"{key!r} is no list")
                    else:
                        yield from ((key, entry) for entry in text.list())
            if text.next():
                raise ValueError("something follows after its end")
        except (ValueError, RecursionError) as error:
            raise DataError(path, f"not valid JSON ({error})", way_out) from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's pairs as dict, for `object_pairs_hook`.

    Raises:
        ValueError: a key twice.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key[:60]!r} twice in one object")
            seen.add(key)
    return made


def refuse(name: str) -> None:
    """What JSON does not have, for `parse_constant`.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{name} is not a number")


class _Text:
    """A JSON text of which only a part is held."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._scan = json.JSONDecoder(object_pairs_hook=unique, parse_constant=refuse).raw_decode
        self._text, self._at, self._ended = "", 0, False

    def _more(self) -> None:
        """Read as much again as is held, so that what is scanned twice is never more than what is read."""
        data = self._file.read(max(CHUNK, len(self._text) - self._at))
        self._ended = not data
        self._text, self._at = self._text[self._at :] + self._decode(data, self._ended), 0

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
            raise ValueError(f"{found!r} where one of {allowed} is expected" if found else "it ends too early")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, whole."""
        self.next()
        while True:
            try:
                value, end = self._scan(self._text, self._at)
                # What is held may end within a number: 1, 1. and 1.5e are beginnings of 1.5e3.
                if self._ended or (end < len(self._text) and self._text[end] not in "+-.0123456789Ee"):
                    self._at = end
                    return value
            except json.JSONDecodeError:
                if self._ended:
                    raise
            if len(self._text) - self._at > MAX_ENTRY:
                raise ValueError(f"an entry of more than {MAX_ENTRY} characters, or a fault in it")
            self._more()

    def list(self) -> Iterator[Any]:
        """Entries of the list that comes next."""
        self._take("[")
        if self.next() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
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
                raise ValueError("a key is no text")
            key = self.value()
            if key in seen:
                raise ValueError(f"key {key[:60]!r} twice in one object")
            seen.add(key)
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return
