"""JSON that somebody brings back: bounded, without NaN, no key twice."""

from __future__ import annotations

import json
from typing import Any

from crowdmask.corrections.exchange.base import File
from crowdmask.errors import DataError
from crowdmask.json_stream import refuse, unique

MAX_BYTES = 128 << 20
"""Largest JSON file."""
MAX_MEMORY = 768 << 20
"""Most memory that the values of a file may take, bytes, as estimated from its punctuation."""


def read(file: File, way_out: str) -> Any:
    """Content of a JSON file (UTF-8, with or without byte order mark).

    Args:
        file: The file.
        way_out: What the user can do about an unusable file, for the message.

    Raises:
        DataError: empty, too large, not UTF-8, not JSON, nested beyond what can be read, a key twice in one object, NaN
            or infinity.
    """
    content = file.content
    if not content.strip():
        raise DataError(file.name, "the file is empty", way_out)
    if len(content) > MAX_BYTES or _memory(content) > MAX_MEMORY:
        problem = f"{len(content)} bytes, or too many values, for one JSON file"
        raise DataError(file.name, problem, f"Bring it in parts of at most {MAX_BYTES >> 20} MiB. {way_out}")
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(file.name, f"not valid JSON ({error})", way_out) from None


def _memory(content: bytes) -> int:
    """Bytes of the parsed content, not too low: measured sizes of CPython's objects for each mark that begins one."""
    text = len(content) if content.isascii() else 4 * len(content)
    marks = {b",": 48, b"[": 96, b"{": 264, b'"': 60}
    return text + sum(size * content.count(mark) for mark, size in marks.items())
