"""JSON that anybody may bring: read with bounded memory, the values of a long list one after the other.

Python needs up to 264 bytes for a bracket and some fifty for a number, so both are counted before anything is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from crowdmask.corrections.exchange.checks import Checks
from crowdmask.files import parse_json

MAX_BYTES = 1 << 29
"""Largest file."""
MAX_MEMORY = 768 << 20
"""Most memory that what is read at once may take, bytes, as estimated from its punctuation."""
MAX_BRACKETS = 1 << 20
"""Most lists and tables in an item of a list."""
MAX_DEPTH = 64
"""Deepest nesting of an item."""

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
# Everything up to the next bracket outside of a text; possessive, so that nothing is tried twice.
_SKIP = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
# Measured sizes of CPython's objects for each mark that begins one.
_MARKS = {b",": 48, b"[": 96, b"{": 264, b'"': 60}


def begins(content: bytes) -> bytes:
    """The first character of a file that is no space or byte order mark; empty where there is none."""
    return content[:4096].removeprefix(_BOM).lstrip(_SPACE)[:1]


def parse(content: bytes, checks: Checks, where: str = "") -> Any:
    """The value of a JSON text.

    Args:
        content: UTF-8, with or without byte order mark.
        checks: Of the file.
        where: Place in the file, for messages.

    Raises:
        DataError: empty, too large, not UTF-8, not JSON, nested too deeply, a key twice in one table, or NaN.
    """
    memory = sum(size * content.count(mark) for mark, size in _MARKS.items())
    if len(content) > MAX_BYTES or memory + len(content) * (1 if content.isascii() else 4) > MAX_MEMORY:
        raise checks.error(
            where,
            f"too large to be read at once: {len(content)} bytes, or too many values",
            "Bring the pictures back in several files.",
        )
    try:
        text = content.decode("utf-8-sig")
        if not text.strip():
            raise ValueError("it is empty")
        return parse_json(text)
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text, so not valid JSON ({error.reason} at byte {error.start})"
        raise checks.error(where, problem) from None
    except RecursionError:
        raise checks.error(where, "not valid JSON (nested too deeply)") from None
    except ValueError as error:
        raise checks.error(where, f"not valid JSON ({error})") from None


def items(content: bytes, checks: Checks, what: str) -> Iterator[Any]:
    """The values of the list that a file holds, one in memory at a time; a single table counts as a list of one.

    Args:
        content: UTF-8, with or without byte order mark.
        checks: Of the file.
        what: What an item is, for messages.

    Raises:
        DataError: as `parse`; or neither a list nor a table; or items that are not tables.
    """
    if len(content) > MAX_BYTES:
        raise checks.error(
            "", f"{len(content)} bytes, more than the {MAX_BYTES} that are read", "Bring back parts of it."
        )
    if begins(content) != b"[":
        yield parse(content, checks)
        return
    number = 0
    at = content.index(b"[") + 1
    while True:
        start, at = at, _SKIP.match(content, at).end()  # type: ignore[union-attr]
        between, bracket = content[start:at].strip(_SPACE), content[at : at + 1]
        if bracket != b"{":
            if bracket != b"]" or between or content[at + 1 :].strip(_SPACE):
                raise checks.error("", f"not valid JSON: after {number} of {what} there is no next one, and no end")
            return
        if between != (b"," if number else b""):
            raise checks.error("", f"not valid JSON: {what} {number} does not follow upon a comma")
        end = _closing(content, at, checks, f"{what} {number}")
        yield parse(content[at:end], checks, f"{what} {number}")
        at, number = end, number + 1


def _closing(content: bytes, at: int, checks: Checks, where: str) -> int:
    """One past the bracket that closes the one at `at`."""
    depth = brackets = 0
    while at < len(content):
        if content[at] in b"[{":
            depth, brackets = depth + 1, brackets + 1
            if depth > MAX_DEPTH:
                raise checks.error(where, f"nested deeper than {MAX_DEPTH}")
            if brackets > MAX_BRACKETS:
                raise checks.error(where, f"more than {MAX_BRACKETS} lists and tables", "Bring back parts of it.")
        elif content[at] in b"]}":
            depth -= 1
            if depth == 0:
                return at + 1
        else:
            raise checks.error(where, "not valid JSON (a text without end)")
        at = _SKIP.match(content, at + 1).end()  # type: ignore[union-attr]
    raise checks.error(where, "not valid JSON (cut off)")
