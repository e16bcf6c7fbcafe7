"""Label maps: a 16-bit grey picture a handed-out picture, whose value is the id of the head plus 1.

`SegmentationMap/<stem>.png`, 0 = background. No list of labels lies beside it: the value says all (our choice). A pixel
has one value, so masks that overlap cannot be written. Programs return the map as PNG or TIFF of 8 or 16 bits. It has
no room for the picture's name beyond its own stem, and that is the name that `read` tells.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from crowdmask.corrections.exchange.base import MAX_PIXELS, MAX_SIDE, File, Picture, Shape
from crowdmask.corrections.exchange.budget import MAX_KEPT
from crowdmask.corrections.exchange.record import Record, Task
from crowdmask.errors import DataError
from crowdmask.files import replacing
from crowdmask.masks.rle import Window

TOOL = "label-map"
"""Name for `--to`."""
FOLDER = "SegmentationMap"
"""Folder of the maps, beside `images`."""
MAX_ID = 65_534
"""Largest id that fits, plus 1, in 16 bits."""

_BAND = 1 << 22
"""Pixels that are looked through together."""
_DEEPEST = 1032
"""Most bytes that deflate, thus a PNG, makes of one (zlib's technical notes)."""
_RAW = ("L", "I;16", "I;16B", "I;16L", "I;16N")
"""Forms of grey samples that Pillow gives as they are stored; those of other names it stretches or turns round."""
_WAY_OUT = "Save it as grey PNG of 16 bits with the ids as values, or use another format."


def write(folder: Path, record: Record) -> list[Path]:
    """Write one map a picture.

    Args:
        folder: Of the export.
        record: What is handed out; a head without a pixel in its picture is left out.

    Returns:
        The files, in the order of the pictures.

    Raises:
        DataError: two heads share a pixel, or an id is larger than `MAX_ID`; no map of that picture is written.
    """
    from PIL import Image

    paths = []
    for task in record.tasks:
        path = folder / FOLDER / f"{PurePosixPath(task.name).stem}.png"
        picture = Image.fromarray(_paint(path, task))
        with replacing(path) as temporary:
            picture.save(temporary, "PNG")
        paths.append(path)
    return paths


def _paint(path: Path, task: Task) -> np.ndarray:
    """Values uint16 (h, w)."""
    values = np.zeros((task.h, task.w), np.uint16)
    other = "Export in another format, such as coco."
    for head in task.heads:
        if head.point_id > MAX_ID:
            raise DataError(path, f"the id {head.point_id} is larger than {MAX_ID}, the last one of 16 bits", other)
        mask = task.local(head)
        h, w = mask.mask.shape
        part = values[mask.y0 : mask.y0 + h, mask.x0 : mask.x0 + w]
        if part[mask.mask].any():
            below = int(part[mask.mask].max()) - 1
            raise DataError(path, f"the masks of points {below} and {head.point_id} overlap, a map has no room", other)
        part[mask.mask] = head.point_id + 1
    return values


def belongs(file: File) -> bool:
    """Whether the file is a PNG or TIFF of one channel outside of a folder `images`, or any in a folder of maps.

    Only its header is read.
    """
    folders = [part.lower() for part in PurePosixPath(file.name.replace(":", "/")).parts[:-1]]
    if FOLDER.lower() in folders:
        return _header(file) is not None
    return "images" not in folders and _header(file) in ("1", "L", "I", "I;16", "I;16B")


def _header(file: File) -> str | None:
    """Colour mode of a PNG or TIFF as Pillow names it; None for anything else."""
    from PIL import Image

    if file.content[:4] not in (b"\x89PNG", b"II*\0", b"MM\0*"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(file.content), formats=("PNG", "TIFF")) as picture:
                return picture.mode
    except Exception:  # damaged: it is a map for all that, and `read` says what is wrong
        return "L"


def read(file: File) -> Iterator[Picture]:
    """The one picture of a label map, with a shape for each value, by ascending value.

    Raises:
        DataError: damaged, too large, in colour, with a palette, of other than 8 or 16 bits, turned by a TIFF tag, or
            with larger boxes altogether than memory has room for.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(file.content), formats=("PNG", "TIFF")) as picture:
                _check(file, picture)
                if picture.format == "PNG":  # `load` passes over the checksums, `verify` looks at nothing else
                    with Image.open(io.BytesIO(file.content), formats=("PNG",)) as other:
                        other.verify()
                picture.load()
                width, height = picture.size
                shapes = _shapes(file, picture)
    except DataError:
        raise
    except Exception as error:  # the decoders raise nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(file.name, f"not a readable picture ({reason})", _WAY_OUT) from None
    yield Picture("", file.stem, height, width, shapes, "label map")


def _check(file: File, picture: Any) -> None:
    """Refuse by the header what should not be decoded, or would not give the values as they were stored."""
    width, height = picture.size
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise DataError(file.name, f"{width} x {height} is more than {MAX_PIXELS} pixels", _WAY_OUT)
    if picture.mode not in ("L", "I", "I;16", "I;16B"):
        problem = f"a picture of colour mode {picture.mode}, not ids in one channel of 8 or 16 bits"
        raise DataError(file.name, problem, _WAY_OUT)
    for tile in picture.tile:
        raw = tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3]
        if raw not in _RAW:
            raise DataError(file.name, f"grey samples of the form {raw}, not of 8 or 16 bits", _WAY_OUT)
    if picture.format == "PNG" and width * height * (1 if picture.mode == "L" else 2) > _DEEPEST * len(file.content):
        raise DataError(file.name, f"{width} x {height} pixels, which so short a file cannot hold", _WAY_OUT)
    if picture.format == "TIFF":
        tags = picture.tag_v2
        if tags.get(274, 1) != 1:
            raise DataError(file.name, "the map is turned by its orientation tag", _WAY_OUT)
        # A tile, or strip, is decoded into memory of its own.
        if not all(isinstance(tags.get(tag, 1), int) and tags.get(tag, 1) <= MAX_SIDE for tag in (322, 323)):
            raise DataError(file.name, "its tiles are too large", _WAY_OUT)


def _shapes(file: File, picture: Any) -> list[Shape]:
    """Masks of all values; of the whole map, only a band at a time becomes an array."""
    boxes = _boxes(picture)
    if sum((right - left) * (bottom - top) for left, top, right, bottom in boxes.values()) > MAX_KEPT:
        problem = f"the boxes of its {len(boxes)} values hold more than {MAX_KEPT} pixels altogether"
        raise DataError(file.name, problem, "Is it a label map? Values of one head lie together.")
    shapes = []
    for value, box in sorted(boxes.items()):
        window = Window(box[0], box[1], _mask(picture, value, box))
        shapes.append(Shape(f"value {value}", (window,), exact=True, point_id=value - 1))
    return shapes


def _mask(picture: Any, value: int, box: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = box
    mask = np.empty((bottom - top, right - left), bool)
    rows = max(1, _BAND // (right - left))
    for start in range(top, bottom, rows):
        stop = min(start + rows, bottom)
        np.equal(np.asarray(picture.crop((left, start, right, stop))), value, out=mask[start - top : stop - top])
    return mask


def _boxes(picture: Any) -> dict[int, tuple[int, int, int, int]]:
    """Left, top, right, bottom (the last two excluded) of the pixels of each value but 0."""
    from scipy import ndimage

    width, height = picture.size
    rows = max(1, _BAND // width)
    boxes: dict[int, tuple[int, int, int, int]] = {}
    for start in range(0, height, rows):
        band = np.asarray(picture.crop((0, start, width, min(start + rows, height)))).astype(np.int32)
        for value, found in enumerate(ndimage.find_objects(band), 1):
            if found is not None:
                y, x = found
                left, top, right, bottom = box = x.start, start + y.start, x.stop, start + y.stop
                known = boxes.get(value, box)
                boxes[value] = min(known[0], left), min(known[1], top), max(known[2], right), max(known[3], bottom)
    return boxes
