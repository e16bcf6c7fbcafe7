"""Polygons as YOLO's segmentation models are trained on: `labels/{split}/{image_id}.txt`.

A line a mask: its class (0), then x and y of each corner, divided by the image's width and height, six decimals. The
masks are in the order of the table; one without a pixel is left out, an image without masks has an empty file. The
polygon runs along the sides of the pixels (`crowdmask.export.cracks`): filled at pixel centres it is the mask, and its
area is the mask's. Holes and fragments are joined by bridges without width. Ids, scores and points are not carried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from crowdmask.corrections.drawing import fill_polygons
from crowdmask.corrections.exchange.base import MAX_POINTS
from crowdmask.errors import DataError
from crowdmask.export import cracks
from crowdmask.export.instances import Instances
from crowdmask.export.source import ImageMasks
from crowdmask.files import listed, read_bytes, replacing
from crowdmask.masks.rle import Window

COLUMNS = ()
BOXES = False

_WAY_OUT = "Export it again."
_EDGE = 1e-3
"""How far outside of the image a coordinate may lie, as a share of its side."""


def place(root: Path, split: str) -> dict[str, Path]:
    """Folders that hold files of this split only."""
    return {"labels": root / "labels" / split}


def write(folders: dict[str, Path], masks: ImageMasks, options: dict[str, str]) -> tuple[list[Path], dict[str, int]]:
    """Write one image; see `crowdmask.export.files`."""
    image = masks.image
    path = folders["labels"] / f"{image.image_id}.txt"
    counts = {"without_pixels": 0, "bridged": 0}
    with replacing(path) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as file:
        for window in masks.windows():
            if not window.mask.size:
                counts["without_pixels"] += 1
                continue
            text, bridged = line(window, image.height, image.width)
            counts["bridged"] += bridged
            file.write(text)
    return [path], counts


def line(window: Window, height: int, width: int) -> tuple[str, bool]:
    """Line of a mask with at least one pixel, and whether its polygon has bridges.

    Args:
        window: The mask.
        height: Of the image, pixels.
        width: Of the image, pixels.
    """
    rings = cracks.rings(window.mask)
    x0, y0 = window.x0, window.y0
    numbers = " ".join(f"{(x0 + x) / width:.6f} {(y0 + y) / height:.6f}" for x, y in cracks.joined(rings))
    return f"0 {numbers}\n", len(rings) > 1


def read_file(path: str | Path, height: int, width: int) -> tuple[np.ndarray, list[Window]]:
    """Classes int64 (N,) and masks of a file, filled at pixel centres by the even-odd rule, cut to the image.

    Args:
        path: The file; may be empty.
        height: Of the image, pixels.
        width: Of the image, pixels.

    Raises:
        DataError: with the row: no class and at least three corners, a coordinate that is no number or far outside of
            the image, a box instead of a polygon.
    """
    path = Path(path)
    content = b"" if path.is_file() and not path.stat().st_size else read_bytes(path, _WAY_OUT)
    classes, windows = [], []
    for row, text in enumerate(content.split(b"\n")):
        fields = text.split()
        if not fields:
            continue
        try:
            if len(fields) == 5:
                raise ValueError("a box, no polygon")
            if len(fields) < 7 or len(fields) % 2 == 0 or len(fields) > 2 * MAX_POINTS + 1:
                raise ValueError(f"{len(fields)} numbers, where a class and 3 to {MAX_POINTS} corners are expected")
            corners = np.array([float(field) for field in fields[1:]]).reshape(-1, 2)
            if not ((corners >= -_EDGE) & (corners <= 1 + _EDGE)).all():  # false for NaN, too
                raise ValueError("a coordinate is no number from 0 to 1")
            number = int(fields[0])
            if not 0 <= number < 2**31:
                raise ValueError("a class is no number from 0 to 2147483647")
            classes.append(number)
            ring = (corners * (width, height) - 0.5).ravel().tolist()
            windows.append(fill_polygons([ring], height, width).tight())
        except (ValueError, OverflowError) as error:
            raise DataError(path, f"not a class and corners ({error})", _WAY_OUT, row) from None
    return np.array(classes, np.int64), windows


def read(root: str | Path, split: str, sizes_hw: Mapping[str, tuple[int, int]]) -> Iterator[Instances]:
    """Masks of every file of a split, by name; `ids` count the lines from 0.

    Args:
        root: Folder above `labels`.
        split: Of the data set.
        sizes_hw: Height and width of each image, which the format does not tell, by `image_id`.

    Raises:
        DataError: no such folder, an image without size, or see `read_file`.
    """
    folder = place(Path(root), split)["labels"]
    for path in listed(folder, (".txt",), "Name the folder above labels/{split}, and a split."):
        if path.stem not in sizes_hw:
            raise DataError(path, "the size of its image is not known", "Read the images of the same data set.")
        height, width = sizes_hw[path.stem]
        _, windows = read_file(path, height, width)
        yield Instances(path.stem, height, width, np.arange(len(windows)), windows, split)
