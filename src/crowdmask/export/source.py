"""What every export reads: images and checked masks of the batches of a data set, as columns or image by image.

Masks are checked by arithmetic on their run lengths (`crowdmask.masks.runs`), without a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from crowdmask import tables
from crowdmask.errors import DataError
from crowdmask.masks import runs
from crowdmask.masks.rle import Window

Batch = tuple[str | Path, str | Path]
"""Paths of the `images` and the `masks` table of one batch."""

ROWS = 5000
"""Masks in memory at a time."""

AGAIN = "Delete it and run again."
"""Way out of a faulty table."""

_IMAGE = ("split", "image_id", "path", "height", "width", "sha256")
_NEEDED = ("split", "image_id", "point_id", "area", "x0", "y0", "w", "h", "counts")


@dataclass(frozen=True)
class Image:
    """An image of the data set.

    Attributes:
        number: From 1, in the order of the batches and of their rows.
        split: Of the data set.
        image_id: Within its split.
        path: Of the file, below the data set's root.
        height: Pixels.
        width: Pixels.
        sha256: Of the file.
    """

    number: int
    split: str
    image_id: str
    path: str
    height: int
    width: int
    sha256: str


def images(batches: Sequence[Batch]) -> list[list[Image]]:
    """Images of each batch.

    Raises:
        DataError: a table is missing or damaged, or an image comes twice.
    """
    seen: set[tuple[str, str]] = set()
    found: list[list[Image]] = []
    for path, _ in batches:
        known: list[Image] = []
        for part in tables.columns(path, "images", _IMAGE, batch=1000):
            for row in part.to_pylist():
                key = row["split"], row["image_id"]
                if key in seen:
                    raise DataError(path, f"image {key[0]}/{key[1]} is in the data set twice", AGAIN)
                seen.add(key)
                known.append(Image(len(seen), **row))
        found.append(known)
    return found


@dataclass(frozen=True)
class Chunk:
    """Some rows of a masks table, checked.

    Attributes:
        columns: Those asked for, and the window's.
        place: int64 (N,), index of each mask's image in the images of its batch.
        whole: Places of the masks in their images.
        boxes: int64 (N, 4): x, y, w, h of each mask in its image; 0, 0, 0, 0 of an empty one.
        areas: int64 (N,), pixels of each mask.
    """

    columns: pa.RecordBatch
    place: np.ndarray
    whole: runs.Intervals
    boxes: np.ndarray
    areas: np.ndarray

    def numbers(self, name: str) -> np.ndarray:
        """A column without empty values as an array."""
        return _numbers(self.columns, name)


def _numbers(part: pa.RecordBatch, name: str) -> np.ndarray:
    return part.column(name).to_numpy(zero_copy_only=False)


def chunks(
    path: str | Path, known: Sequence[Image], names: Sequence[str] | None = (), rows: int | None = None
) -> Iterator[Chunk]:
    """Masks of one batch, in the order of the table.

    Args:
        path: Of its masks table.
        known: Images of the batch.
        names: Columns wanted besides those of the key, the window and the area; None = all.
        rows: Most masks of a chunk; None = `ROWS`.

    Raises:
        DataError: the table is missing or damaged; with the first such row: a mask that belongs to no image of its
            batch, leaves its image or comes twice, whose run lengths are none, or whose area is not as stored.
    """
    wanted = None if names is None else [*_NEEDED, *(name for name in names if name not in _NEEDED)]
    places = {(image.split, image.image_id): place for place, image in enumerate(known)}
    sizes = np.array([[image.height, image.width] for image in known], np.int64).reshape(-1, 2)
    seen: set[int] = set()
    first = 0
    for part in tables.columns(path, "masks", wanted, rows or ROWS):
        place = _places(part, places)
        fault = _first_fault(part, place, sizes, seen)
        limit = part.num_rows if fault is None else fault[0]
        made = _measured(path, part.slice(0, limit), place[:limit], sizes, first)
        if fault is not None:
            raise _error(path, part, fault[0], first, fault[1])
        yield made
        first += part.num_rows


def _places(part: pa.RecordBatch, places: dict[tuple[str, str], int]) -> np.ndarray:
    """int64 (N,): index of each row's image; -1 where there is none."""
    split, image = (part.column(name).dictionary_encode() for name in ("split", "image_id"))
    split_names, image_names = split.dictionary.to_pylist(), image.dictionary.to_pylist()
    pair = split.indices.to_numpy().astype(np.int64) * len(image_names) + image.indices.to_numpy()
    pairs, inverse = np.unique(pair, return_inverse=True)
    found = [places.get((split_names[k // len(image_names)], image_names[k % len(image_names)]), -1) for k in pairs]
    return np.array(found, np.int64)[inverse.ravel()]


def _first_fault(part: pa.RecordBatch, place: np.ndarray, sizes: np.ndarray, seen: set[int]) -> tuple[int, str] | None:
    """Row and text of the first mask without image, that comes again, or that leaves its image; adds to `seen`."""
    found: list[tuple[int, int, str]] = []
    lost = np.flatnonzero(place < 0)
    if lost.size:
        found.append((int(lost[0]), 0, ": the image is not in the images table"))
    keys = ((place << 32) + _numbers(part, "point_id")).tolist()
    if len(set(keys)) < len(keys) or not seen.isdisjoint(keys):
        found.append((_first_repeated(keys, seen), 1, " has two masks"))
    seen.update(keys)
    if sizes.size:
        height, width = sizes[place].T
        x0, y0, w, h = _windows(part).T
        out = (np.minimum(x0, y0) < 0) | (x0 + w > width) | (y0 + h > height)
        row = int(np.argmax(out)) if out.size else 0
        if out.any():
            found.append((row, 2, f": its mask leaves the image of {width[row]} x {height[row]} pixels"))
    return min(found)[::2] if found else None  # type: ignore[return-value]


def _first_repeated(keys: list[int], seen: set[int]) -> int:
    known = set(seen)
    for row, key in enumerate(keys):
        if key in known:
            return row
        known.add(key)
    raise AssertionError("no key comes twice")


def _windows(part: pa.RecordBatch) -> np.ndarray:
    """int64 (N, 4): x0, y0, w, h."""
    return np.stack([_numbers(part, name) for name in ("x0", "y0", "w", "h")], axis=1).astype(np.int64)


def _measured(path: str | Path, part: pa.RecordBatch, place: np.ndarray, sizes: np.ndarray, first: int) -> Chunk:
    """Rows whose windows lie in their images, with their run lengths checked.

    Args:
        path: For messages.
        part: N rows.
        place: int64 (N,).
        sizes: int64 (images, 2): height and width.
        first: Number of the first row in the table.
    """
    windows = _windows(part)
    counts = part.column("counts")
    # Arrow keeps the bytes of a column one after the other, and where each begins.
    _, offsets, data = counts.buffers()
    starts = np.frombuffer(offsets, np.int32)[counts.offset : counts.offset + len(counts) + 1] if len(counts) else [0]
    codes = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    try:
        found = runs.parse(codes, np.asarray(starts), windows[:, 2] * windows[:, 3])
    except runs.RunsError as error:
        raise _error(path, part, error.index, first, f": {error}") from None
    within = runs.intervals(*found)
    areas, said = within.areas, _numbers(part, "area")
    wrong = np.flatnonzero(areas != said)
    if wrong.size:
        row = int(wrong[0])
        raise _error(path, part, row, first, f": its mask has {areas[row]} pixels, its row says {said[row]}")
    whole, boxes = runs.framed(within, windows, sizes[place, 0] if sizes.size else np.zeros(0, np.int64))
    return Chunk(part, place, whole, boxes, areas)


def _error(path: str | Path, part: pa.RecordBatch, row: int, first: int, problem: str) -> DataError:
    split, image, point = (part.column(name)[row].as_py() for name in ("split", "image_id", "point_id"))
    return DataError(path, f"point {point} of image {split}/{image}{problem}", AGAIN, row=first + row)


@dataclass(frozen=True)
class ImageMasks:
    """All masks of one image.

    Attributes:
        image: The image.
        rows: Their rows of the table, some or all of its columns.
        boxes_xyxy: Head boxes by point id as annotated, (x0, y0, x1, y1), pixels, where they were asked for.
    """

    image: Image
    rows: pa.Table
    boxes_xyxy: Mapping[int, tuple[float, float, float, float]]

    @property
    def point_ids(self) -> np.ndarray:
        """int64 (N,)."""
        return self.rows.column("point_id").to_numpy().astype(np.int64)

    @property
    def points_xy(self) -> np.ndarray:
        """float64 (N, 2), as annotated; needs the columns x and y."""
        return np.stack([self.rows.column(name).to_numpy() for name in ("x", "y")], axis=1).astype(np.float64)

    def windows(self) -> Iterator[Window]:
        """The masks, one after the other, tight."""
        for part in self.rows.select(["x0", "y0", "w", "h", "counts"]).to_batches():
            for row in part.to_pylist():
                yield Window.from_columns(row).tight()


def by_image(batches: Sequence[Batch], names: Sequence[str] | None = (), boxes: bool = False) -> Iterator[ImageMasks]:
    """Every image with its masks, in the order of the batches; one batch of compressed masks in memory at a time.

    Args:
        batches: Tables of every batch.
        names: Columns wanted besides those of the key, the window and the area; None = all.
        boxes: Whether the head boxes are wanted.

    Raises:
        DataError: see `images` and `chunks`.
    """
    wanted = tables.MASKS.names if names is None else list(dict.fromkeys([*_NEEDED, *names]))
    schema = pa.schema([tables.MASKS.field(name) for name in wanted])
    for (images_path, path), known in zip(batches, images(batches), strict=True):
        parts: list[list[pa.RecordBatch]] = [[] for _ in known]
        for chunk in chunks(path, known, names):
            edges = np.flatnonzero(np.diff(chunk.place, prepend=-1, append=-1))
            for begin, end in pairwise(edges.tolist()):
                parts[chunk.place[begin]].append(chunk.columns.slice(begin, end - begin).select(wanted))
        head = _head_boxes(images_path) if boxes else {}
        for image, found in zip(known, parts, strict=True):
            rows = pa.Table.from_batches(found, schema=schema.remove_metadata())
            yield ImageMasks(image, rows, head.get((image.split, image.image_id), {}))


def _head_boxes(path: str | Path) -> dict[tuple[str, str], dict[int, tuple[float, float, float, float]]]:
    """Boxes of the heads that have one, by image and point id."""
    found = {}
    for part in tables.columns(path, "images", ["split", "image_id", "points"], batch=64):
        for row in part.to_pylist():
            found[row["split"], row["image_id"]] = {
                point["point_id"]: (point["x0"], point["y0"], point["x1"], point["y1"])
                for point in row["points"]
                if None not in (point["x0"], point["y0"], point["x1"], point["y1"])
            }
    return found
