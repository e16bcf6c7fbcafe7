"""Stage corrections: reads the tables of all batches, one image in memory at a time; writes a JSON file and a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crowdmask import tables
from crowdmask.corrections import gain, gain_page, native
from crowdmask.datasets.images import Exif, read_row
from crowdmask.errors import DataError
from crowdmask.files import replacing
from crowdmask.masks.rle import Window

VERSION = 1
"""Raised when the files change for the same tables."""


class Batch(NamedTuple):
    """Paths of the tables of one batch; `truth` None = the data set has none."""

    images: str | Path
    made: str | Path
    merged: str | Path
    edits: str | Path
    truth: str | Path | None


def run(
    name: str,
    batches: Sequence[Batch],
    folder: str | Path,
    root: str | Path,
    exif: Exif,
    settings: str,
    output_json: str | Path,
    output_html: str | Path,
) -> dict[str, Any]:
    """Compare the masks of a data set before and after its edits.

    Args:
        name: Of the data set.
        batches: Tables of every batch.
        folder: Of the data set's edit files, as {split}/{image_id}.json.
        root: Folder that image paths are relative to; only images that the page shows are read.
        exif: EXIF policy of the data set.
        settings: Canonical JSON of the settings to record.
        output_json: Everything, an image a line; see docs/corrections.md.
        output_html: Page that needs no other file.

    Returns:
        The totals; see `gain.Totals`.

    Raises:
        DataError: tables or edit files do not belong together, are damaged or missing, or an image cannot be read.
    """
    has_truth = any(batch.truth is not None for batch in batches)
    totals = gain.Totals(has_truth)
    page = gain_page.Page(name, has_truth)
    with replacing(output_json) as temporary, open(temporary, "w", encoding="utf-8") as file:
        head = {"version": VERSION, "dataset": name, "settings": json.loads(settings)}
        file.write(f'{_line(head)[:-1]}, "images": [')
        between = "\n"
        for batch in batches:
            for image, edit_rows, found in _images(batch, folder):
                totals.add(edit_rows, found)
                page.add(found, _photo(root, image, exif))
                key = {"split": image["split"], "image_id": image["image_id"]}
                file.write(f"{between}{_line(key | found.as_json())}")
                between = ",\n"
        result = totals.result()
        file.write(f'\n], "totals": {_line(result)}}}\n')
    with replacing(output_html) as temporary:
        temporary.write_text(page.html(result), encoding="utf-8")
    return result


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _photo(root: str | Path, image: dict[str, Any], exif: Exif) -> gain_page.Photo:
    """Gives the pixels, read at the first call."""

    @cache
    def photo() -> np.ndarray:
        return read_row(root, image, exif)

    return photo


class _Cursor:
    """Rows of a table in the order of the images, one image at a time."""

    def __init__(self, path: str | Path, table: str) -> None:
        self.path = path
        self.groups = groupby(tables.stream(path, table), key=lambda row: (row["split"], row["image_id"]))
        self.waiting = next(self.groups, None)

    def take(self, key: tuple[str, str], wanted: bool = True) -> list[dict[str, Any]]:
        """Rows of this image, none where the table has none; without `wanted` they are passed over."""
        if self.waiting is None or self.waiting[0] != key:
            return []
        rows = list(self.waiting[1]) if wanted else []
        self.waiting = next(self.groups, None)
        return rows

    def end(self, images: str | Path) -> None:
        """Refuse what is left."""
        if self.waiting is not None:
            name = "/".join(self.waiting[0])
            raise DataError(self.path, f"image {name} is not in {images}, or out of order", "Delete it and run again.")


def _images(batch: Batch, folder: str | Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], gain.ImageGain]]:
    """Each image with edits: its row, its rows of the edits table, and what they did."""
    edits = _Cursor(batch.edits, "edits")
    if edits.waiting is None:
        return
    made, merged = _Cursor(batch.made, "masks"), _Cursor(batch.merged, "masks")
    truth = _Cursor(batch.truth, "truth") if batch.truth is not None else None
    for image in tables.stream(batch.images, "images", batch=64):
        key = image["split"], image["image_id"]
        edit_rows = edits.take(key)
        wanted = bool(edit_rows)
        made_rows, merged_rows = (cursor.take(key, wanted) for cursor in (made, merged))
        true_rows = truth.take(key, wanted) if truth is not None else []
        if wanted:
            path = Path(folder, key[0], f"{key[1]}.json")
            file = native.load(path)
            native.check_location(path, file)
            true = {row["point_id"]: Window.from_columns(row) for row in true_rows} if truth is not None else None
            yield image, edit_rows, gain.of_image(file, edit_rows, made_rows, merged_rows, true, path)
    for cursor in (edits, made, merged, truth):
        if cursor is not None:
            cursor.end(batch.images)
