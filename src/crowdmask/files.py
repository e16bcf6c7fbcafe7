"""Files: written so that a killed run leaves the old one or the new one, never half of one; read with clear errors."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crowdmask.errors import DataError


@contextmanager
def reading(path: Path, way_out: str) -> Iterator[None]:
    """Turn what the file system says inside of the block into a `DataError` with this way out."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(path, "file not found (or a link that leads nowhere)", way_out) from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", way_out) from None


def read_bytes(path: Path, way_out: str) -> bytes:
    """Content of a file.

    Raises:
        DataError: missing, unreadable or empty.
    """
    with reading(path, way_out):
        content = path.read_bytes()
    if not content:
        raise DataError(path, "the file is empty (0 bytes)", way_out)
    return content


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s name, on failure it is removed."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Cut, so that the longest names that the file system takes still have room for the random part.
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys.

    Raises:
        ValueError: NaN or infinity, which JSON does not have; use None.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def parse_json(text: str) -> Any:
    """The value of a JSON text from anywhere; stricter than `json`: no NaN or infinity, no key twice in one object.

    Raises:
        ValueError: not such a text.
        RecursionError: nested too deeply.
    """
    return JSON.decode(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key[:60]!r} twice in one object")
            seen.add(key)
    return made


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number")


JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
"""How `parse_json` reads; for a text of which only the first value is wanted (`raw_decode`)."""


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def listed(folder: Path, suffixes: Collection[str], way_out: str) -> list[Path]:
    """Files of a folder with one of these endings, by name.

    Raises:
        DataError: no such folder.
    """
    if not folder.is_dir():
        raise DataError(folder, "no such folder", way_out)
    return sorted(path for path in folder.iterdir() if path.suffix in suffixes)


def inside(root: str | Path, relative: str) -> Path:
    """`root / relative`, refused where it would leave `root` (links resolved).

    Raises:
        ValueError: the path leaves the root.
    """
    base = Path(root).resolve()
    try:
        path = (base / relative).resolve()
    except (RuntimeError, OSError) as error:  # links in a circle (RuntimeError before Python 3.13)
        raise ValueError(f"{relative!r} cannot be resolved below {root}: {error}") from None
    if path != base and base not in path.parents:
        raise ValueError(f"{relative!r} leads outside of {root}")
    return Path(root) / relative
