"""Every table that passes between stages: columns, types, units, and how they are read and written.

All coordinates are pixels of the original image (after the data set's EXIF policy), x to the right, y down, pixel
centres at integers. A mask is stored as its window (`x0, y0, w, h`, pixels, cut to the image) and the COCO compressed
run-length counts of the window's own pixels, column by column; see `crowdmask.masks.rle`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crowdmask.errors import DataError
from crowdmask.files import replacing


def _field(name: str, kind: pa.DataType, meaning: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


_KEY = [
    _field("split", pa.string(), "split of the data set; 'all' where the layout has none"),
    _field("image_id", pa.string(), "file name of the image without its extension"),
]
_POINT_KEY = [*_KEY, _field("point_id", pa.int32(), "0-based row of the point in the source annotation")]
_WINDOW = [
    _field("x0", pa.int32(), "left column of the window, pixels"),
    _field("y0", pa.int32(), "top row of the window, pixels"),
    _field("w", pa.int32(), "width of the window, pixels"),
    _field("h", pa.int32(), "height of the window, pixels"),
    _field("counts", pa.binary(), "COCO compressed run lengths of the window"),
]

POINT = pa.struct(
    [
        _field("point_id", pa.int32(), "0-based row in the source annotation"),
        _field("x", pa.float64(), "annotated x, pixels, never moved"),
        _field("y", pa.float64(), "annotated y, pixels, never moved"),
        _field("outside", pa.bool_(), "annotated outside of the image; its prompt is clipped to the border"),
        _field("x0", pa.float64(), "left edge of the head box as annotated, pixels; null without box", nullable=True),
        _field("y0", pa.float64(), "its upper edge, pixels", nullable=True),
        _field("x1", pa.float64(), "its right edge, pixels", nullable=True),
        _field("y1", pa.float64(), "its lower edge, pixels", nullable=True),
    ]
)

NO_BOX = dict.fromkeys(("x0", "y0", "x1", "y1"))
"""The box columns of a point without box."""

IMAGES = pa.schema(
    [
        *_KEY,
        _field("path", pa.string(), "image file relative to the data set's root, POSIX"),
        _field("height", pa.int32(), "pixels"),
        _field("width", pa.int32(), "pixels"),
        _field("mode", pa.string(), "colour mode of the file as PIL names it"),
        _field("sha256", pa.string(), "hash of the image file"),
        _field("points", pa.list_(POINT), "all annotated points, in source order"),
    ]
)
"""One row an image: what every later stage knows of it."""

TRUTH = pa.schema([*_POINT_KEY, _field("instance_id", pa.int32(), "value in the label map"), *_WINDOW])
"""True mask of each point, for data sets that have them."""

SUPERPIXELS = pa.schema(
    [
        *_POINT_KEY,
        _field("superpixel", pa.int32(), "SLIC label, from 1"),
        _field("sharing", pa.int32(), "points in that superpixel, this one included"),
        *_WINDOW,
    ]
)
"""The part of its superpixel that belongs to each point (split by nearest point where several share one)."""

SEGMENT = pa.schema(
    [
        *_POINT_KEY,
        _field("score", pa.float32(), "SAM's own estimate of the mask's IoU, not clipped to [0, 1]"),
        _field("stability", pa.float32(), "pixels with logit > 1 over pixels with logit > -1; 0 where none"),
        _field("tile", pa.int32(), "index of the tile in the image"),
        _field("zoom", pa.float32(), "pixels of SAM's input frame for one original pixel"),
        *_WINDOW,
    ]
)
"""SAM's mask of each point, in a window around the point; may be empty, may overlap others."""

SOURCES = ("sam", "circle", "pixel", "manual")
"""Where a mask comes from: SAM within the circle, the circle itself, the own pixel alone, a person."""

MASKS = pa.schema(
    [
        *_POINT_KEY,
        _field("x", pa.float64(), "head point, pixels, as annotated"),
        _field("y", pa.float64(), "head point, pixels, as annotated"),
        _field("source", pa.string(), "one of sam, circle, pixel, manual"),
        _field("verified", pa.bool_(), "a person has drawn or accepted this mask"),
        _field("author", pa.string(), "who did so, by the last edit in force; null where nobody", nullable=True),
        _field("score", pa.float32(), "SAM's estimate; null for masks without it", nullable=True),
        _field("radius_px", pa.float64(), "radius of the exclusion circle, pixels"),
        _field("lost_px", pa.int32(), "pixels given to other instances by the tie-break"),
        _field("area", pa.int64(), "pixels of the mask"),
        _field("sha256", pa.string(), "hash of the mask (window and counts), which edits refer to"),
        *_WINDOW,
    ]
)
"""One mask an annotated point: the output of exclude and of merge. The window is the mask's bounding box."""

EDITS = pa.schema(
    [
        *_KEY,
        _field("point_id", pa.int32(), "point that the edit names; null for an added head", nullable=True),
        _field("row", pa.int32(), "0-based row of the edit in its file"),
        _field("action", pa.string(), "replace, add, delete, circle or accept"),
        _field(
            "outcome",
            pa.string(),
            "applied; stale (not applied); forced (stale, applied because the settings say so); superseded (a later "
            "edit of the point holds); or cut: not an edit, but a mask that gave pixels to another because of it",
        ),
        _field("reason", pa.string(), "why; empty where applied"),
        _field("pixels", pa.int64(), "area after the edit, or pixels that a cut mask lost"),
        _field("author", pa.string(), "who made the edit"),
        _field("time", pa.string(), "when, ISO 8601"),
    ]
)
"""What became of every edit, and which neighbours lost pixels to one."""

_REASONS = {
    "fallback": "1 for the circle, or a single pixel, instead of SAM's mask",
    "low_iou": "SAM expects a low IoU",
    "unstable": "the mask changes with SAM's threshold",
    "cut": "the exclusion circle cuts it",
    "lost": "share of it that the tie-break gave to neighbours",
    "small": "smaller than its neighbours let expect",
    "large": "larger than its neighbours let expect",
    "edge": "the point is near the edge of the mask",
    "superpixel": "its superpixel holds other heads, or things that are not the mask",
    "ragged": "dents or holes",
    "long": "much longer than wide",
}

REASONS = tuple(_REASONS)
"""Columns of `REVIEW` that say why to look, each with a weight of the same name in the settings `review`."""

REVIEW = pa.schema(
    [
        *_POINT_KEY,
        _field("x", pa.float64(), "head point, pixels, as annotated"),
        _field("y", pa.float64(), "head point, pixels, as annotated"),
        _field("source", pa.string(), "as in the masks table"),
        _field("verified", pa.bool_(), "a person has drawn or accepted this mask: nothing to look at"),
        _field("score", pa.float32(), "0 to 1, higher = look first; 0 where verified"),
        *(_field(name, pa.float32(), f"0 (nothing odd) to 1: {text}") for name, text in _REASONS.items()),
        _field("reasons", pa.string(), "the strongest reasons in words, strongest first; may be empty"),
        _field("predicted_iou", pa.float32(), "SAM's own estimate; null for masks without it", nullable=True),
        _field("true_iou", pa.float32(), "IoU with the true mask; null for masks without one", nullable=True),
    ]
)
"""One row a mask, in the order of the batches: whether and why a person should look at it."""

TABLES: dict[str, pa.Schema] = {
    "images": IMAGES,
    "truth": TRUTH,
    "superpixels": SUPERPIXELS,
    "segment": SEGMENT,
    "masks": MASKS,
    "edits": EDITS,
    "review": REVIEW,
}


def write(
    path: str | Path,
    table: str,
    rows: Iterable[Mapping[str, Any]],
    *,
    version: int,
    settings: str,
    rows_per_group: int = 20_000,
) -> int:
    """Write rows to a Parquet file of one of `TABLES`, streamed, under a temporary name until complete.

    Args:
        path: File to write; its folder is made.
        table: Name in `TABLES`.
        rows: Mappings with exactly the table's columns.
        version: Version number of the stage that makes them.
        settings: Canonical JSON of the settings that they depend on.
        rows_per_group: Rows held in memory at a time.

    Returns:
        Number of rows written.

    Raises:
        ValueError: a row lacks a column, has one too many, or a value of the wrong type.
    """
    schema = TABLES[table].with_metadata(
        {"crowdmask.table": table, "crowdmask.version": str(version), "crowdmask.settings": settings}
    )
    names = set(schema.names)
    total = 0
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        group: list[Mapping[str, Any]] = []
        for row in rows:
            if row.keys() != names:
                raise ValueError(f"table {table}: columns differ: {sorted(names ^ set(row))}")
            group.append(row)
            if len(group) == rows_per_group:
                writer.write_table(_checked(group, schema, table))
                total, group = total + len(group), []
        writer.write_table(_checked(group, schema, table))
        total += len(group)
    return total


def _checked(rows: list[Mapping[str, Any]], schema: pa.Schema, table: str) -> pa.Table:
    try:
        for field in schema:
            _refuse_inexact(field, [row[field.name] for row in rows], field.name)
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, ValueError) as error:
        raise ValueError(f"table {table}: {error}") from error


def _refuse_inexact(field: pa.Field, values: list[Any], name: str) -> None:
    """Refuse what Arrow would cut (1.5 for an integer), drop (unknown keys) or let pass (empty list items)."""
    if any(value is None for value in values):
        if not field.nullable:
            raise ValueError(f"column {name} has empty values")
        values = [value for value in values if value is not None]
    kind = field.type
    if pa.types.is_integer(kind):
        wrong = next((value for value in values if not isinstance(value, Integral)), None)
        if wrong is not None:
            raise ValueError(f"column {name}: {wrong!r} is not a whole number")
    elif pa.types.is_list(kind):
        item = kind.value_field.with_nullable(False)
        _refuse_inexact(item, [value for items in values for value in items], f"{name}[]")
    elif pa.types.is_struct(kind):
        names = {kind.field(i).name for i in range(kind.num_fields)}
        for value in values:
            if value.keys() != names:
                raise ValueError(f"column {name}: keys differ: {sorted(names ^ set(value))}")
        for i in range(kind.num_fields):
            inner = kind.field(i)
            _refuse_inexact(inner, [value[inner.name] for value in values], f"{name}.{inner.name}")


def _open(path: str | Path, table: str) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise DataError(path, "file not found", "Ask Snakemake for it, which makes what it needs first.") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            path, f"not a Parquet file ({' '.join(str(error).split())})", "Delete it and run again."
        ) from None
    if not file.schema_arrow.equals(TABLES[table]):
        raise DataError(
            path, f"its columns are not those of the table '{table}'", "It is of another version: delete it, run again."
        )
    return file


def read(path: str | Path, table: str) -> list[dict[str, Any]]:
    """Read all rows of a Parquet file after checking that its columns are those of `table`.

    Raises:
        DataError: the file is missing, damaged, or of another table or version.
    """
    with _open(path, table) as file, _damage_named(path):
        return file.read().to_pylist()


def stream(path: str | Path, table: str, batch: int = 5000) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file, `batch` rows in memory at a time (same checks as `read`)."""
    for part in parts(path, table, batch):
        yield from part.to_pylist()


def parts(
    path: str | Path, table: str, batch: int = 5000, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file as Arrow columns, `batch` rows at a time (same checks as `read`).

    Args:
        path: The file.
        table: Name in `TABLES`.
        batch: Most rows of a part.
        columns: Those wanted; None = all.
    """
    with _open(path, table) as file:
        found = file.iter_batches(batch_size=batch, columns=columns)
        while True:
            with _damage_named(path):
                part = next(found, None)
            if part is None:
                return
            yield part


@contextmanager
def _damage_named(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(path, f"damaged ({' '.join(str(error).split())})", "Delete it and run again.") from None


def by_image(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Group rows by (split, image_id), order kept."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["split"], row["image_id"]), []).append(row)
    return groups


def points_of(image: Mapping[str, Any]) -> np.ndarray:
    """Annotated points of a row of `IMAGES`, float64 (N, 2) as (x, y), in row order."""
    return np.array([[point["x"], point["y"]] for point in image["points"]], float).reshape(-1, 2)


def metadata(path: str | Path) -> tuple[str, int, Any]:
    """Table name, stage version and settings that a Parquet file carries.

    Raises:
        DataError: the file is missing, damaged, or not one of ours.
    """
    try:
        raw = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        raise DataError(path, "file not found", "Ask Snakemake for it, which makes what it needs first.") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            path, f"not a Parquet file ({' '.join(str(error).split())})", "Delete it and run again."
        ) from None
    try:
        return (
            raw[b"crowdmask.table"].decode(),
            int(raw[b"crowdmask.version"]),
            json.loads(raw[b"crowdmask.settings"]),
        )
    except (KeyError, ValueError):
        raise DataError(path, "no crowdmask metadata", "It was not written by crowdmask: delete it.") from None
