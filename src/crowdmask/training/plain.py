"""Values as JSON and back, and where two of them differ."""

from __future__ import annotations

import math
from collections import Counter as Multiset
from collections.abc import Mapping
from typing import Any

SHOWN = 5
"""Most differences that a message lists."""


def to_plain(value: Any) -> Any:
    """JSON that `to_value` turns back into equal values of equal types: numbers, text, None, lists, tuples, dicts.

    Raises:
        TypeError: something else.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, list):
        return [to_plain(one) for one in value]
    if isinstance(value, tuple):
        return {"tuple": [to_plain(one) for one in value]}
    if isinstance(value, Mapping):
        # MultiStepLR has a Counter; keys that are numbers would come back as text.
        kind = "counter" if isinstance(value, Multiset) else "dict"
        return {kind: [[to_plain(key), to_plain(one)] for key, one in value.items()]}
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}: {value!r}")


def to_value(plain: Any) -> Any:
    """What `to_plain` was given."""
    if isinstance(plain, list):
        return [to_value(one) for one in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, value),) = plain.items()
    if kind == "float":
        return float(value)
    if kind == "tuple":
        return tuple(to_value(one) for one in value)
    pairs = {to_value(key): to_value(one) for key, one in value}
    return Multiset(pairs) if kind == "counter" else pairs


def differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """Where two JSON values differ: 'a.b: 1 in the file, 2 now'."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = sorted({*found, *wanted})
        dotted = [(key, f"{name}.{key}" if name else key) for key in keys]
        missing = object()
        lines = []
        for key, path in dotted:
            one, other = found.get(key, missing), wanted.get(key, missing)
            if one is missing or other is missing:
                lines.append(f"{path}: only {'now' if one is missing else 'in the file'}")
            else:
                lines += differences(one, other, path)
        return lines
    if isinstance(found, list | tuple) and isinstance(wanted, list | tuple) and len(found) == len(wanted):
        return [s for k, pair in enumerate(zip(found, wanted, strict=True)) for s in differences(*pair, f"{name}[{k}]")]
    return [] if found == wanted else [f"{name}: {found!r} in the file, {wanted!r} now"]


def listed(lines: list[str]) -> str:
    """The first lines, and how many more there are."""
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more
