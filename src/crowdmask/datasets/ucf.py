"""UCF-QNRF and UCF_CC_50; also the reading of MATLAB files for other formats.

UCF-QNRF has the folders `Train` and `Test` with `img_0001.jpg` and `img_0001_ann.mat`; UCF_CC_50 has `1.jpg` and
`1_ann.mat` in one folder. The MATLAB variable `annPoints` holds one row (x, y) a head.

Coordinates are kept as they are written. They were clicked in MATLAB, where the centre of the first pixel is (1, 1), so
they may be one pixel to the right and below of ours, where it is (0, 0); the files do not say, every published method
takes them as they are, and a shift would make results incomparable.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crowdmask.datasets.base import ImageRef
from crowdmask.datasets.folders import FolderReader, Split, folder_names, has_files
from crowdmask.errors import DataError
from crowdmask.files import read_bytes

_ENDING = "_ann.mat"

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCTURE, _NUMERIC_CLASSES, _OPAQUE = 1, 2, range(6, 16), 17
_LARGEST = 1 << 28  # bytes that a compressed variable may become


class UcfReader(FolderReader):
    """Reader of the two UCF data sets: splits `train` and `test`, or `all` for a flat folder."""

    title = "UCF-QNRF or UCF_CC_50"
    expected = "folders Train and Test with img_0001.jpg and img_0001_ann.mat, or one folder with 1.jpg and 1_ann.mat"

    def splits(self, root: Path) -> list[Split]:
        """Train and Test in any case, or the root itself where annotations lie in it; see `FolderReader.splits`."""
        folders: dict[str, str] = {}
        for folder in folder_names(root):
            split = folder.lower()
            if split in ("train", "test"):
                if split in folders:
                    raise DataError(root / folder, f"the folder {folders[split]} is there too", "Keep one of them.")
                folders[split] = folder
        flat = has_files(root, _ENDING)
        if folders and flat:
            raise DataError(
                root,
                f"annotations lie beside the folders {', '.join(folders.values())}, so the layout is not clear",
                f"Expected: {self.expected}.",
            )
        if flat:
            return [Split("all", "", "")]
        return [Split(split, folder, folder) for split, folder in folders.items()]

    def annotated_id(self, file_name: str) -> str | None:
        """`img_0001` for `img_0001_ann.mat`."""
        return file_name[: -len(_ENDING)] if file_name.lower().endswith(_ENDING) else None

    def annotation_name(self, image_id: str) -> str:
        """`img_0001_ann.mat` for `img_0001`."""
        return image_id + _ENDING

    def read_points(self, ref: ImageRef) -> np.ndarray:
        """Rows of `annPoints` as float64 (N, 2), (x, y) in pixels; see `base.Reader`."""
        path = Path(self.root, ref.annotation)
        return as_points(path, mat_variable(path, "annPoints", self.way_out(ref)), self.way_out(ref))


def mat_variable(path: Path, name: str, way_out: str, optional: bool = False) -> Any:
    """One variable of a MATLAB file of version 5 to 7.

    A reader of our own, because `scipy.io.loadmat` ends the process on some damaged files (unknown type codes: a
    segmentation fault) and hangs on others (dimensions that the file does not hold). Source: "MAT-File Format",
    MathWorks, chapter 1. Reads numbers, cells, structures and text; allocates no more than the file holds.

    Args:
        path: The file.
        name: The variable.
        way_out: What the user can do about an unusable file, for the message.
        optional: Whether None is returned where there is no such variable.

    Returns:
        Numbers: an array of their dimensions. Cell: the list of its values, column by column. Structure: a dictionary
        from field to such a list. Anything else: its MATLAB class as text.

    Raises:
        DataError: missing, empty or damaged file, version 7.3 (which is HDF5), or no such variable (the message names
            those that are there).
    """
    content = read_bytes(path, way_out)
    if content.startswith(b"MATLAB 7.3") or content.startswith(b"\x89HDF"):
        raise DataError(
            path,
            "a MATLAB file of version 7.3, which is not read",
            "Save it in MATLAB with `save(file, variable, '-v7')`.",
        )
    try:
        variables = _variables(content)
        value = _value(*variables[name]) if name in variables else None
    except (ValueError, IndexError, struct.error, zlib.error, RecursionError, UnicodeDecodeError) as error:
        raise DataError(path, f"not a readable MATLAB file of version 5 to 7 ({error})", way_out) from None
    if name not in variables and not optional:
        found = ", ".join(sorted(variables)) or "none"
        raise DataError(path, f"no variable '{name}'; variables found: {found}", way_out)
    return value


def _variables(content: bytes) -> dict[str, tuple[bytes, str]]:
    """Body and byte order of each variable of a MATLAB file."""
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise ValueError("no such header")
    result = {}
    for kind, data in _elements(content[128:], order):
        if kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            plain = inflater.decompress(data, _LARGEST)
            if not inflater.eof:
                raise ValueError("compressed data end early or are too large")
            ((kind, data),) = _elements(plain, order)
        if kind != _MATRIX:
            raise ValueError(f"element of type {kind} where a variable should be")
        name = _header(data, order)[3]
        if name:
            result[name] = (data, order)
    return result


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of the data elements that lie one after the other."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start, end = at + 8, at + 8 + size
        at = end if kind == _COMPRESSED else end + -size % 8
        if kind >> 16:  # up to four bytes lie in the tag itself
            kind, size = kind & 0xFFFF, kind >> 16
            start, end, at = start - 4, start - 4 + size, start
            if size > 4:
                raise ValueError("a short element of more than 4 bytes")
        if end > len(data):
            raise ValueError("data end early")
        yield kind, data[start:end]


def _header(data: bytes, order: str) -> tuple[int, bool, tuple[int, ...], str, list[tuple[int, bytes]]]:
    """Class, complex flag, dimensions and name of a matrix, and its other elements."""
    elements = list(_elements(data, order))
    if len(elements) < 3:
        raise ValueError("a variable without header")
    (flags,) = struct.unpack_from(f"{order}I", elements[0][1])
    if flags & 0xFF == _OPAQUE:  # objects of newer classes have no dimensions here
        return _OPAQUE, False, (0, 0), elements[1][1].decode("ascii"), []
    dimensions = tuple(_numbers(*elements[1], order).tolist())
    if elements[1][0] != 5 or not 2 <= len(dimensions) <= 32 or min(dimensions) < 0:
        raise ValueError("dimensions that cannot be")
    return flags & 0xFF, bool(flags & 0x800), dimensions, elements[2][1].decode("ascii"), elements[3:]


def _value(data: bytes, order: str) -> Any:
    """Value of a matrix, as `mat_variable` gives it."""
    if not data:
        return np.zeros((0, 0))
    kind, is_complex, dimensions, _, elements = _header(data, order)
    count = math.prod(dimensions)
    if kind in (_CELL, _STRUCTURE):
        fields = [""]
        if kind == _STRUCTURE:
            length, text = int(_numbers(*elements[0], order)[0]), elements[1][1]
            if length < 1:
                raise ValueError("field names of no length")
            names = [text[at : at + length] for at in range(0, len(text), length)]
            fields = [name.split(b"\0")[0].decode("ascii") for name in names]
            elements = elements[2:]
        if len(elements) != count * len(fields) or any(kind != _MATRIX for kind, _ in elements):
            raise ValueError("another number of values than its dimensions say")
        values = [_value(content, order) for _, content in elements]
        return {name: values[k :: len(fields)] for k, name in enumerate(fields)} if kind == _STRUCTURE else values
    if kind not in _NUMERIC_CLASSES:
        return {4: "text", 5: "a sparse matrix", 16: "a function"}.get(kind, f"an object (class {kind})")
    if is_complex:
        return "complex numbers"
    if len(elements) != 1:
        raise ValueError("numbers that are not one block")
    numbers = _numbers(*elements[0], order)
    if numbers.size != count:
        raise ValueError("another number of values than its dimensions say")
    return numbers.reshape(dimensions, order="F")


def _numbers(kind: int, data: bytes, order: str) -> np.ndarray:
    if kind not in _NUMBERS:
        raise ValueError(f"type {kind} where numbers should be")
    return np.frombuffer(data, np.dtype(order + _NUMBERS[kind]))


def as_points(path: Path, value: Any, way_out: str) -> np.ndarray:
    """Check annotated points.

    Args:
        path: File that they come from.
        value: Numbers (N, 2); (0, 0) and (0, 2) are no points.
        way_out: What the user can do about an unusable file, for the message.

    Returns:
        float64 (N, 2), (x, y) in pixels, order and duplicates kept.

    Raises:
        DataError: not numbers, another shape, or NaN or infinity (with the first such row).
    """
    return as_rows(path, value, way_out, "point", ("x", "y"))


def as_rows(path: Path, value: Any, way_out: str, what: str, columns: tuple[str, ...]) -> np.ndarray:
    """Check numbers of which each row is a `what` (point, box) with these columns, as `as_points` does.

    Returns:
        float64 (N, number of columns), order and duplicates kept.
    """
    width = len(columns)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        found = {np.ndarray: "other values", list: "a cell", dict: "a structure"}.get(type(value), str(value))
        raise DataError(path, f"the {_plural(what)} are not real numbers but {found}", way_out)
    if value.shape in ((0, 0), (0, width)):
        return np.zeros((0, width))
    if value.ndim != 2 or value.shape[1] != width:
        shape = " x ".join(str(n) for n in value.shape)
        wanted = f"N x {width} ({', '.join(columns)})"
        raise DataError(path, f"the {_plural(what)} are {shape} numbers instead of {wanted}", way_out)
    rows = value.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        numbers = ", ".join(f"{number:g}" for number in rows[bad[0]])
        more = f" (and so for {bad.size - 1} more)" if bad.size > 1 else ""
        raise DataError(path, f"the {what} ({numbers}) is not finite{more}", way_out, row=int(bad[0]))
    return rows


def _plural(what: str) -> str:
    return f"{what}es" if what.endswith("x") else f"{what}s"
