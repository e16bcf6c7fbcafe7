"""Annotations in JSON: read without trust, numbers checked row by row."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask.errors import DataError
from crowdmask.files import read_bytes


def read_json(path: Path, way_out: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Content of a JSON file (UTF-8, with or without byte order mark).

    Args:
        path: The file.
        way_out: What the user can do about an unusable file, for the message.
        hook: What each object becomes as soon as it is read, to keep large files lean.

    Raises:
        DataError: missing, empty, not UTF-8, not JSON, or nested beyond what can be read.
    """
    content = read_bytes(path, way_out)
    try:
        return json.loads(content.decode("utf-8-sig"), object_hook=hook)
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"not a readable JSON file ({error})", way_out) from None


def as_number(value: Any) -> float | None:
    """A JSON number as float, infinite where it is too large for one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def number_rows(path: Path, value: Any, columns: int, what: str, way_out: str) -> np.ndarray:
    """Check a list of rows of finite numbers.

    Args:
        path: File that they come from.
        value: What stands there: a list of lists.
        columns: Numbers in a row.
        what: What a row is, for the message.
        way_out: What the user can do about an unusable file, for the message.

    Returns:
        float64 (N, columns), order kept.

    Raises:
        DataError: not a list; with the row: another number of numbers, something else, NaN or infinity.
    """
    if not isinstance(value, list):
        raise DataError(path, f"no list of a {what} for each head", way_out)
    rows = []
    for index, row in enumerate(value):
        numbers = [as_number(item) for item in row] if isinstance(row, list) else []
        if len(numbers) != columns or None in numbers:
            raise DataError(path, f"a {what} has {columns} numbers, found {_short(row)}", way_out, row=index)
        if not all(math.isfinite(number) for number in numbers if number is not None):
            raise DataError(path, f"the {what} {_short(row)} is not finite", way_out, row=index)
        rows.append(numbers)
    return np.array(rows, np.float64).reshape(-1, columns)


def _short(value: Any) -> str:
    try:
        text = ascii(value)
    except RecursionError:  # can be read a little deeper than printed
        return "something deeply nested"
    return text if len(text) <= 60 else f"{text[:57]}..."
