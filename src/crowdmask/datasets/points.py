"""A table with one row a head: CSV or Parquet, for all images of the data set.

Columns (their names are settings): the image's file name below the folder of the images, x and y in pixels, and the
split, if any. Other columns are ignored. `point_id` counts the rows of one image in the order of the table. Rows in
messages count from 0 below the header.

An image without people: one row with x and y left empty; or, where there is but one split, no row at all, as every
image in the folder then belongs to it. With several splits an image without row is in none of them, and `unlabelled`.

CSV: UTF-8 with or without byte order mark; columns apart by comma, semicolon or tab (whichever gives the header the
wanted columns); with semicolon or tab a comma may stand for the decimal point. The table is read once a process, and
numbers are checked image by image, so that a bad row hinders its own image only.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask import config
from crowdmask.datasets.base import ImageRef
from crowdmask.datasets.folders import Split
from crowdmask.datasets.shared_file import SharedFileReader, image_path, images_below, state_of
from crowdmask.datasets.ucf import as_points
from crowdmask.errors import DataError

_WAY_OUT = "Correct the table; rows count from 0 below the header."
_DELIMITERS = (",", ";", "\t")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_SPLIT = re.compile(config.NAME)


@dataclass(frozen=True)
class Table:
    """What is kept of a table.

    Attributes:
        images: Position of each image by its path below the folder of the images.
        first_rows: Row that names an image first, by position.
        splits: Split of each image, by position.
        order: int64 (M,) rows by image, then as they lie in the table.
        starts: int64 (images + 1,) where each image begins in `order`.
        x: Column of x, as it lies in the file: an Arrow array (M,) of numbers or text.
        y: Column of y, likewise.
        decimal: What stands for the decimal point in text.
    """

    images: dict[str, int]
    first_rows: list[int]
    splits: list[str]
    order: np.ndarray
    starts: np.ndarray
    x: Any
    y: Any
    decimal: str


class PointsReader(SharedFileReader):
    """Reader of tables of points: the splits of the column, or `all`."""

    title = "a table with one row a head"

    def __init__(self, name: str, entry: config.Points) -> None:
        """Take the name and settings of the data set; opens nothing."""
        super().__init__(name, entry)
        self._table = entry
        columns = [entry.image, entry.x, entry.y, *([entry.split] if entry.split else [])]
        self.expected = f"{entry.table} with the columns {', '.join(columns)}, and images in {entry.images}"

    @property
    def _images(self) -> str:
        return self._below_root("images", self._table.images)

    def splits(self, root: Path) -> list[Split]:
        """Those that the table has; none where it is missing. See `FolderReader.splits`."""
        file = self._below_root("table", self._table.table)
        if not (root / file).is_file():
            return []
        told = set() if self._table.split is None else set(self._load(root / file).splits)
        return [Split(name, self._images, file) for name in sorted(told or {"all"})]

    def listed(self, split: Split) -> Iterable[tuple[str, int]]:
        """Images with rows in a split, and those without where no other split could have them."""
        table = self._load(Path(self.root, split.annotations))
        for file, image in table.images.items():
            if table.splits[image] == split.name:
                yield file, table.first_rows[image]
        if len(set(table.splits)) <= 1:
            for file in images_below(Path(self.root, self._images)):
                if file not in table.images:
                    yield file, -1

    def read_points(self, ref: ImageRef) -> np.ndarray:
        """Points of an image as float64 (N, 2), (x, y) in pixels, in the table's order; see `base.Reader`."""
        path, way_out = Path(self.root, ref.annotation), f"{_WAY_OUT} Or: {self.way_out(ref)}"
        table = self._load(path)
        image = table.images.get(self.file_of(ref))
        if image is None:
            return np.zeros((0, 2))
        rows = table.order[table.starts[image] : table.starts[image + 1]]
        x, y = (_values(column, rows) for column in (table.x, table.y))
        blank = [a is None and b is None for a, b in zip(x, y, strict=True)]
        if all(blank):
            return np.zeros((0, 2))
        points = np.empty((len(rows), 2))
        for at, row in enumerate(rows.tolist()):
            for axis, (name, value) in enumerate(((self._table.x, x[at]), (self._table.y, y[at]))):
                number = _number(value, table.decimal)
                if number is None:
                    shown = "empty" if value is None else f"{value!r}, no finite number"
                    raise DataError(path, f"{name} is {shown}", way_out, row)
                points[at, axis] = number
        return as_points(path, points, way_out)

    def _load(self, path: Path) -> Table:
        entry = self._table
        return _load(*state_of(path, _WAY_OUT), entry.image, entry.x, entry.y, entry.split)


@lru_cache(maxsize=8)
def _load(name: str, _changed: int, _size: int, image: str, x: str, y: str, split: str | None) -> Table:
    """The table with rows by image.

    Raises:
        DataError: unreadable file, a column missing or there twice, or a row without image or split.
    """
    path = Path(name)
    wanted = [image, x, y, *([split] if split is not None else [])]
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        content, decimal = _read_parquet(path, wanted), "."
    elif suffix in (".csv", ".tsv", ".txt"):
        content, decimal = _read_csv(path, wanted)
    else:
        raise DataError(path, f"a table of the kind {suffix or 'without suffix'}", "Use .csv or .parquet.")
    names, codes, firsts = _texts(path, content[image], image)
    images: dict[str, int] = {}
    merged = np.zeros(len(names), np.int64)  # two spellings of one path are one image
    first_rows: list[int] = []
    for code, (text, row) in enumerate(zip(names, firsts, strict=True)):
        position = images.setdefault(image_path(path, text, row), len(images))
        merged[code] = position
        if position == len(first_rows):
            first_rows.append(row)
    image_of = merged[codes]
    order = np.argsort(image_of, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(image_of, minlength=len(images)))]).astype(np.int64)
    splits = ["all"] * len(images)
    if split is not None:
        splits = _splits(path, *_texts(path, content[split], split)[:2], image_of, first_rows)
    return Table(images, first_rows, splits, order, starts, content[x], content[y], decimal)


def _splits(path: Path, names: list[str], codes: np.ndarray, image_of: np.ndarray, first_rows: list[int]) -> list[str]:
    """Split of each image; all of its rows must have the same."""
    own = codes[first_rows][image_of] if len(codes) else codes
    other = np.flatnonzero(own != codes)
    if other.size:
        row = int(other[0])
        said = f"is in split {names[codes[row]]!r} here, in {names[own[row]]!r} above"
        raise DataError(path, f"the image {said}", "Give all rows of an image one split.", row)
    for code, name in enumerate(names):
        if not _SPLIT.match(name):
            row = int(np.flatnonzero(codes == code)[0])
            raise DataError(path, f"{name!r} cannot be a split", "Use letters, digits and ._- for splits.", row)
    return [names[codes[row]] for row in first_rows]


def _texts(path: Path, column: Any, name: str) -> tuple[list[str], np.ndarray, list[int]]:
    """Different texts of a column, their code for each row, int64 (M,), and the first row of each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        texts = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(path, f"the column {name} holds {column.type}, not text", _WAY_OUT) from None
    empty = pc.fill_null(pc.equal(texts, ""), True).to_numpy(zero_copy_only=False)
    if empty.any():
        raise DataError(path, f"{name} is empty", _WAY_OUT, int(empty.argmax()))
    coded = texts.dictionary_encode()
    codes = coded.indices.to_numpy().astype(np.int64)
    _, firsts = np.unique(codes, return_index=True)
    return coded.dictionary.to_pylist(), codes, firsts.tolist()


def _values(column: Any, rows: np.ndarray) -> list[Any]:
    """Numbers or texts of some rows; None for an empty one."""
    import pyarrow as pa

    taken = column.take(pa.array(rows)).to_pylist()
    return [(value.strip() or None) if isinstance(value, str) else value for value in taken]


def _number(value: Any, decimal: str) -> float | None:
    """A finite number, None for anything else."""
    if isinstance(value, str):
        text = value.replace(decimal, ".")
        value = float(text) if _NUMBER.fullmatch(text) else None
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return number if number is not None and np.isfinite(number) else None


def _read_parquet(path: Path, wanted: list[str]) -> dict[str, Any]:
    """Columns of a Parquet file, each as one Arrow array."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {}
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names, wanted)
            table = file.read(columns=wanted)
        table.validate(full=True)  # so that a damaged file is noticed here, and not by what reads beyond its end
        for name in wanted:
            column = table[name].combine_chunks()
            if pa.types.is_dictionary(column.type):
                column = column.dictionary_decode()
            columns[name] = column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(path, f"not a readable Parquet file ({_one_line(error)})", "Write it again.") from None
    return columns


def _read_csv(path: Path, wanted: list[str]) -> tuple[dict[str, Any], str]:
    """Columns of a CSV file as Arrow arrays of text, and what stands for the decimal point in them."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")  # whole: Arrow notices a wrong byte late, and says so on the terminal too
    except UnicodeDecodeError as error:
        line_number = content.count(b"\n", 0, error.start)
        where = line_number - 1 if line_number else None
        raise DataError(path, "not UTF-8 text", "Save the table as CSV in UTF-8.", where) from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", _WAY_OUT) from None
    line, _, more = text.partition("\n")
    headers = {delimiter: columns_of(line, delimiter) for delimiter in _DELIMITERS}
    delimiter = max(_DELIMITERS, key=lambda mark: (len(set(wanted) & set(headers[mark])), len(headers[mark])))
    header = headers[delimiter]
    _check_columns(path, header, wanted)
    point = "." if delimiter == "," else ","
    if not more.strip():  # a header alone
        return {name: pa.array([], pa.string()) for name in wanted}, point
    faults: list[tuple[int | None, str]] = []

    def notice(row: Any) -> str:
        faults.append((row.number, f"{row.actual_columns} columns where the header has {row.expected_columns}"))
        return "error"

    unique = [f"{name} {at}" if name not in wanted else name for at, name in enumerate(header)]
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(content),
            # One thread, so that faulty rows have their numbers; names of our own, as others may repeat.
            read_options=arrow_csv.ReadOptions(use_threads=False, column_names=unique, skip_rows=1),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=notice),
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: pa.string() for name in wanted},
                include_columns=wanted,
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        # Rows of the file count from 1 with its header.
        row, problem = faults[0] if faults else (None, f"not a readable table ({_one_line(error)})")
        raise DataError(path, problem, _WAY_OUT, None if row is None else row - 2) from None
    return {name: table[name].combine_chunks() for name in wanted}, point


def header_of(path: Path) -> list[str]:
    """Names of the columns of a table, of a CSV file by the delimiter that gives most; empty if it is no table."""
    if path.suffix.lower() == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return list(pq.read_schema(path).names)
        except (pa.ArrowException, OSError, ValueError):
            return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline(1 << 16)
    except (UnicodeDecodeError, OSError):
        return []
    return max((columns_of(line, delimiter) for delimiter in _DELIMITERS), key=len)


def columns_of(line: str, delimiter: str) -> list[str]:
    """Names of the columns in the header line of a CSV file."""
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _check_columns(path: Path, found: list[str], wanted: list[str]) -> None:
    for name in wanted:
        if found.count(name) != 1:
            there = ", ".join(repr(column) for column in found[:20]) or "none"
            problem = f"no column '{name}'" if name not in found else f"the column '{name}' twice"
            raise DataError(
                path,
                f"{problem}; columns found: {there}",
                "Name the columns with image, x, y and split of the data set.",
            )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
