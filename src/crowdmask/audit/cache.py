"""Records of earlier audits: one JSON line each, added as they are made, so that a killed audit goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crowdmask.audit.record import is_record
from crowdmask.files import replacing

NAME = "records.jsonl"


class Cache:
    """Records by key, in a folder.

    Attributes:
        folder: Where they lie, with the pictures of the page.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read what is there; lines that are damaged or cut off are ignored."""
        self.folder = Path(folder)
        self._records: dict[str, dict[str, Any]] = {}
        self._tidy = False  # whether the file is exactly what `keep` would write
        try:
            lines = (self.folder / NAME).read_bytes().splitlines()
        except OSError:
            return
        for line in lines:
            try:
                value = json.loads(line)
                key, record = value["key"], value["record"]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            if isinstance(key, str) and is_record(record):
                self._records[key] = record
        self._tidy = lines == [_line(key, self._records[key]).encode().rstrip() for key in sorted(self._records)]

    def get(self, key: str) -> dict[str, Any] | None:
        """The record of a key; None where there is none."""
        return self._records.get(key)

    def add(self, made: Iterable[tuple[str, dict[str, Any]]]) -> Iterable[tuple[str, dict[str, Any]]]:
        """Pass records through, each written to the file before the next is asked for."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / NAME, "a", encoding="utf-8") as file:
            # First an end for a line that a killed audit left unfinished.
            start = "\n" if file.tell() else ""
            for key, record in made:
                self._tidy = False
                file.write(start + _line(key, record))
                start = ""
                file.flush()
                self._records[key] = record
                yield key, record

    def keep(self, keys: Iterable[str]) -> None:
        """Forget everything else, also pictures that no key names."""
        wanted = set(keys)
        kept: Mapping[str, dict[str, Any]] = {key: self._records[key] for key in sorted(wanted & self._records.keys())}
        if kept.keys() != self._records.keys() or not self._tidy:
            with replacing(self.folder / NAME) as temporary, open(temporary, "w", encoding="utf-8") as file:
                file.writelines(_line(key, record) for key, record in kept.items())
        for path in self.folder.glob("*.jpg"):
            if path.stem not in wanted:
                path.unlink(missing_ok=True)

    def picture(self, key: str) -> Path:
        """Where the picture of an image lies."""
        return self.folder / f"{key}.jpg"


def _line(key: str, record: Mapping[str, Any]) -> str:
    return json.dumps({"key": key, "record": record}, sort_keys=True, allow_nan=False) + "\n"
